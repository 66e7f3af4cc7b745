"""Detection over real panes: what is called drift, what is not, and how alarms come and go."""

from typing import Any

import numpy as np
import pytest

from gateway.config.monitor_detect import DetectSettings
from gateway.monitor.profile.reference import Profile
from gateway.monitor.values import ALL, Finding
from tests.monitor.detect.streams import MODEL, Watched, healthy_profile, rows_of


@pytest.fixture(scope="module")
def profile() -> Profile:
    return healthy_profile()


@pytest.fixture
def watched(profile: Profile) -> Watched:
    return Watched(profile)


def test_drift_of_one_signal_is_named_within_two_windows_and_nothing_else_is(watched: Watched) -> None:
    """A shift of one deviation raises the signal's alarm, and that of all inputs together."""
    watched.run(20)
    assert watched.subjects() == set()
    watched.run(10, shift=1.0)
    drifted = {subject for kind, subject in watched.subjects() if kind == "drift"}
    assert drifted == {"x0", "inputs"}
    alarm = next(a for a in watched.detection.ledger.standing() if a.subject == "x0")
    assert alarm.key.segment == ALL
    assert alarm.severity == "page"
    assert "x0 drifted" in alarm.summary
    assert {t["statistic"] for t in alarm.evidence["tests"]} == {"psi", "js", "ks", "wasserstein", "chi2"}


def test_an_alarm_clears_when_traffic_is_healthy_again(profile: Profile) -> None:
    """Hysteresis: it outlives the drift by the calm windows that are needed, and then ends with its time."""
    watched = Watched(profile, DetectSettings(windows={"5m": 300}))
    watched.run(10, shift=1.0)
    assert ("drift", "x0") in watched.subjects()
    watched.run(8)
    assert ("drift", "x0") in watched.subjects()
    watched.run(12)
    assert watched.subjects() == set()
    ended = [a for a in watched.detection.alarms(MODEL) if (a.kind, a.subject) == ("drift", "x0")]
    assert len(ended) == 1
    assert ended[0].cleared_s is not None
    assert ended[0].cleared_s > ended[0].raised_s


def test_one_strange_window_raises_nothing(watched: Watched) -> None:
    """Two of three windows that do not overlap are needed: one wild minute is in one of them only."""
    watched.run(10)
    watched.run(1, shift=8.0)
    assert any(s.finding is Finding.DRIFT for s in watched.detection.newest(MODEL))
    watched.run(16)
    assert watched.subjects() == set()


def test_an_effect_below_its_floor_is_never_drift_however_certain(watched: Watched) -> None:
    """A shift of 0.06 deviations over 20,000 rows a minute is significant, and does not matter."""
    watched.run(7, rows=20_000, shift=0.06)
    scores = [s for s in watched.detection.newest(MODEL) if s.signal == "x0" and s.statistic == "ks"]
    assert min(s.p_value for s in scores) < 1e-4
    assert ("drift", "x0") not in watched.subjects()


@pytest.mark.parametrize(
    ("given", "subject"),
    [
        ({"missing": 0.2}, ("quality", "x1")),
        ({"colors": (b"red", b"green", b"blue", b"mauve")}, ("quality", "color")),
        ({"shift": 6.0}, ("quality", "x0")),
    ],
    ids=["missing", "novel", "range"],
)
def test_quality_alarms(watched: Watched, given: dict[str, Any], subject: tuple[str, str]) -> None:
    """More missing values, categories that the reference lacks and values out of its range are named."""
    watched.run(15, **given)
    assert subject in watched.subjects()


def test_too_few_rows_say_nothing(watched: Watched) -> None:
    """Below `min_rows` there is no finding, however far the values are off."""
    watched.run(30, rows=5, shift=10.0)
    scores = [s for s in watched.detection.newest(MODEL) if s.window == "5m"]
    assert scores
    assert {s.finding for s in scores} == {Finding.TOO_FEW}
    assert watched.subjects() == set()


def test_windows_of_which_too_little_arrived_are_degraded_and_raise_nothing(watched: Watched) -> None:
    """Of 1,000 rows a minute served a tenth arrived: shown, never acted upon."""
    for minute in range(15):
        watched.account(1000 * (minute + 1))
        watched.run(1, shift=1.0)
    newest = [s for s in watched.detection.newest(MODEL) if s.window == "5m"]
    assert {s.finding for s in newest} == {Finding.DEGRADED}
    assert max(s.coverage for s in newest) < 0.95
    assert watched.subjects() == set()


def test_a_segment_alone_is_named_and_the_whole_covers_its_segments(profile: Profile) -> None:
    """Drift within one segment names it; where the whole has the alarm its segments add none."""
    watched = Watched(profile, DetectSettings(windows={"5m": 300}))
    for _ in range(12):
        watched.apply(rows_of(watched.rng, 950, done_s=watched.now_s + 1, country=b"de"))
        watched.apply(rows_of(watched.rng, 60, done_s=watched.now_s + 1, country=b"fr", shift=1.5))
        watched.run(1, rows=0)
    found = {(a.key.segment, a.subject) for a in watched.detection.ledger.standing() if a.kind == "drift"}
    assert ("country=fr", "x0") in found
    assert ("country=de", "x0") not in found
    watched.run(15, rows=400, shift=1.5)
    after = {(a.key.segment, a.subject) for a in watched.detection.ledger.standing() if a.kind == "drift"}
    assert ("", "x0") in after
    assert ("country=de", "x0") not in after


def test_a_restart_in_the_midst_changes_nothing(profile: Profile) -> None:
    """Streaks, alarms, scores and the budget go on as if the process had not ended, whenever it ends."""
    straight, restarted = Watched(profile), Watched(profile)
    for minutes, shift in ((7, 0.0), (6, 1.0), (5, 1.0), (20, 0.0)):
        for _ in range(minutes):
            straight.run(1, shift=shift)
            restarted.run(1, shift=shift)
            restarted.restart()
    assert straight.detection.alarms() == restarted.detection.alarms()
    assert straight.detection.alarms()
    assert straight.detection.spent(MODEL) == restarted.detection.spent(MODEL)
    kept = [s for s in straight.detection.scores(MODEL) if (s.end_s / 300).is_integer() and s.window == "5m"]
    again = [
        s for s in restarted.detection.scores(MODEL) if (s.end_s / 300).is_integer() and s.window == "5m"
    ]
    assert kept
    assert [s.value for s in kept] == [s.value for s in again]


def test_eight_gateways_give_the_same_verdicts_as_one_stream_of_all_their_rows(profile: Profile) -> None:
    """The same rows cut among eight producers, in any order, give the same scores and alarms."""
    one, eight = Watched(profile), Watched(profile)
    for minute in range(14):
        parts = [
            rows_of(np.random.default_rng([minute, k]), 40, done_s=one.now_s + 1, shift=0.6 * (minute > 5))
            for k in range(8)
        ]
        for part in parts:
            one.apply(part)
        for k in np.random.default_rng(minute).permutation(8).tolist():
            eight.apply(parts[k], producer=f"gateway-{k}")
        one.run(1, rows=0)
        eight.run(1, rows=0)
    assert one.subjects()
    assert one.subjects() == eight.subjects()
    for a, b in zip(one.detection.newest(MODEL), eight.detection.newest(MODEL), strict=True):
        assert (a.key, a.signal, a.statistic, a.finding) == (b.key, b.signal, b.statistic, b.finding)
        assert a.value == pytest.approx(b.value, rel=1e-9, abs=1e-12)


def test_a_clock_that_jumps_back_compares_nothing_twice(watched: Watched) -> None:
    """Evaluating again, or with an earlier time, gives no score and counts no family."""
    watched.run(10)
    before = watched.detection.spent(MODEL)
    assert watched.detection.evaluate(watched.now_s + 21) == []
    assert watched.detection.evaluate(watched.now_s - 7200) == []
    assert watched.detection.spent(MODEL) == before


def test_a_long_pause_is_not_made_up_for_without_bound(watched: Watched) -> None:
    """After a day without evaluation the last hour is compared; the rest is counted as skipped."""
    watched.run(10)
    watched.minute += 24 * 60
    watched.run(1)
    assert watched.detection.skipped > 1000


def test_an_alarm_of_a_stream_that_fell_silent_ends_after_a_day(watched: Watched) -> None:
    """Nobody is paged for ever about a version that is no longer served."""
    watched.run(12, shift=2.0)
    assert watched.subjects()
    watched.minute += 24 * 60 + 20
    watched.run(1, rows=0)
    assert watched.subjects() == set()


def test_a_mean_that_moves_slowly_opens_a_ticket(profile: Profile) -> None:
    """ADWIN over minutes finds a change of 0.6 deviations that windows are told to put up with."""
    settings = DetectSettings.model_validate(
        {"floors": dict.fromkeys(("psi", "js", "ks", "wasserstein", "chi2", "mmd"), 10.0)}
    )
    watched = Watched(profile, settings)
    watched.run(96, rows=50)
    watched.run(64, rows=50, shift=0.6)
    alarm = watched.detection.ledger.standing()[0]
    assert (alarm.kind, alarm.subject, alarm.severity) == ("drift", "x0", "ticket")
    assert alarm.evidence["statistic"] == "adwin"


def test_streams_without_a_profile_are_known_and_not_tested(watched: Watched) -> None:
    """Rows of a version that has no reference give no score."""
    watched.apply(rows_of(watched.rng, 500, done_s=watched.now_s + 1, version=9))
    watched.run(2)
    assert {key.version for key in watched.detection.without_reference()} == {9}
    assert {s.key.version for s in watched.detection.newest(MODEL)} == {3}
