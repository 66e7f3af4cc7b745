"""The pure parts of detection: levels, streaks, the ledger of alarms, tables of scores."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config.monitor_detect import DetectSettings
from gateway.monitor.detect.ledger import MAX_STANDING, AlarmLedger
from gateway.monitor.detect.levels import Level, levels, step_of
from gateway.monitor.detect.streaks import Streak, advanced, due, over, span_of
from gateway.monitor.detect.table import ScoreTable, from_bytes
from gateway.monitor.values import StreamKey

KEY = StreamKey("fraud", 3, "d")


def test_levels_add_up_to_the_budget() -> None:
    """Families times the chance of a false alarm each is the budget, and the documented levels hold."""
    found = {level.window: level for level in levels(DetectSettings())}
    assert sum(level.families * level.false_page for level in found.values()) == pytest.approx(1.0)
    assert [found[w].step_s for w in ("5m", "1h", "1d")] == [60, 300, 3600]
    assert [found[w].q for w in ("5m", "1h", "1d")] == pytest.approx([0.00113, 0.00254, 0.00878], rel=0.01)


@given(st.integers(1, 30 * 24 * 60).map(lambda minutes: 60 * minutes))
def test_a_step_divides_its_window_into_whole_minutes(length_s: int) -> None:
    """Windows that do not overlap are a whole number of steps apart, for any length."""
    step_s = step_of(length_s)
    assert length_s % step_s == 0
    assert step_s % 60 == 0


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4), st.integers(1, 5))
def test_streaks_say_what_the_findings_say(drifted: list[bool], needed: int, stride: int) -> None:
    """Against the plain rule: the newest drifted, and `needed` of 4 windows a stride apart did."""
    level = Level("w", 60 * stride, 60, 0.01, 0.0, 1.0)
    streak = Streak(0)
    for step, found in enumerate(drifted):
        advanced(streak, step, drifted=found, calm=not found, span=span_of(level, 4))
        apart = [drifted[step - i * stride] for i in range(4) if step >= i * stride]
        assert due(streak, level, needed, 4) == (found and sum(apart) >= needed)
        calm = [step >= i * stride and not drifted[step - i * stride] for i in range(needed)]
        assert over(streak, level, needed) == all(calm)


def test_a_streak_forgets_what_a_pause_put_out_of_reach() -> None:
    """Steps that were left out say neither drift nor calm; an older step changes nothing."""
    level = Level("w", 60, 60, 0.01, 0.0, 1.0)
    streak = Streak(10)
    advanced(streak, 10, drifted=True, calm=False, span=3)
    advanced(streak, 9, drifted=True, calm=True, span=3)
    assert (streak.step, streak.drifted, streak.calm) == (10, 1, 0)
    advanced(streak, 1_000_000_000, drifted=True, calm=False, span=3)
    assert not due(streak, level, 2, 3)


def test_settings_refuse_what_could_never_be() -> None:
    """More windows needed than looked at, or parts of minutes, are refused."""
    with pytest.raises(ValidationError, match="no alarm could be raised"):
        DetectSettings(needed=3, of=2)
    with pytest.raises(ValidationError, match="whole minutes"):
        DetectSettings(windows={"90s": 90})


def test_one_alarm_per_place_that_keeps_its_id_and_begin() -> None:
    """Standing again brings the evidence up to date; after clearing a new alarm has a new id."""
    ledger = AlarmLedger()
    first = ledger.stand(KEY, "drift", "x0", summary="a", evidence={"n": 1}, now_s=10.0)
    second = ledger.stand(KEY, "drift", "x0", summary="b", evidence={"n": 2}, now_s=20.0)
    assert first is not None
    assert second is not None
    assert (second.id, second.raised_s, second.evidence) == (first.id, 10.0, {"n": 2})
    cleared = ledger.clear(KEY, "drift", "x0", 30.0)
    assert cleared is not None
    assert cleared.cleared_s == 30.0
    assert ledger.clear(KEY, "drift", "x0", 31.0) is None
    third = ledger.stand(KEY, "drift", "x0", summary="c", evidence={}, now_s=40.0)
    assert third is not None
    assert third.id != first.id
    assert [a.id for a in ledger.alarms("fraud")] == [third.id, first.id]
    assert ledger.by_id(first.id) == cleared


def test_changes_are_told_once_in_their_order() -> None:
    """Who tells others asks for what is newer than its revision."""
    ledger = AlarmLedger()
    ledger.stand(KEY, "drift", "x0", summary="a", evidence={}, now_s=1.0)
    seen = ledger.revision
    ledger.stand(KEY, "drift", "x1", summary="a", evidence={}, now_s=2.0)
    ledger.clear(KEY, "drift", "x0", 3.0)
    assert [(a.subject, a.cleared_s) for a in ledger.changed_since(seen)] == [("x1", None), ("x0", 3.0)]
    assert ledger.changed_since(ledger.revision) == []


def test_the_ledger_survives_and_is_bounded() -> None:
    """Alarms are as before after a restart; too many are counted, too much evidence is cut."""
    database = sqlite3.connect(":memory:")
    ledger = AlarmLedger()
    ledger.create(database)
    for i in range(MAX_STANDING + 5):
        ledger.stand(
            KEY, "drift", f"x{i}", summary="a", evidence={"text": "y" * 40_000 * (i == 0)}, now_s=float(i)
        )
    assert ledger.refused == 5
    assert "left_out" in ledger.alarms(limit=9999)[-1].evidence
    ledger.clear(KEY, "drift", "x1", 9e9)
    ledger.flush(database)
    again = AlarmLedger()
    again.restore(database)
    assert again.alarms(limit=9999) == ledger.alarms(limit=9999)
    assert again.revision == ledger.revision
    again.expire(database, 1e10)
    assert all(a.cleared_s is None for a in again.alarms(limit=9999))


def test_a_table_of_scores_is_read_as_it_was_written() -> None:
    """Round trip, NaN included; anything else is refused as a ValueError."""
    one = np.array([1.5, np.nan])
    table = ScoreTable(
        key=KEY,
        window="5m",
        start_s=0.0,
        end_s=300.0,
        coverage=0.5,
        names=("x0", "x1"),
        signal=np.array([0, 1], np.int32),
        statistic=np.array([0, 7], np.uint8),
        value=one,
        threshold=one,
        p_value=one,
        rows=one,
        reference_rows=one,
        finding=np.array([0, 2], np.uint8),
    )
    data = table.to_bytes()
    again = from_bytes(data)
    assert again.key == KEY
    assert str(list(again.scores())) == str(list(table.scores()))
    for cut in (b"", data[:-9], b"x" * 50):
        with pytest.raises(ValueError, match="no table of scores"):
            from_bytes(cut)
