"""Alarms of performance: raised outside of the band, ended inside of it, left alone in between."""

from __future__ import annotations

import pytest

from gateway.monitor.detect.ledger import AlarmLedger
from gateway.monitor.judging import take_judgements
from gateway.monitor.performance.results import Judgement
from gateway.monitor.values import StreamKey


def judged(value: float, low: float, high: float, window: int = 0) -> Judgement:
    """A metric whose reference lies between 0.9 and 1."""
    return Judgement(
        key=StreamKey("fraud", 1, "digest"),
        kind="performance",
        subject="precision",
        start_s=300.0 * window,
        end_s=300.0 * window + 300,
        value=value,
        low=low,
        high=high,
        band_low=0.9,
        band_high=1.0,
        breached=high < 0.9,
        summary="precision is low",
    )


@pytest.mark.parametrize(("value", "stands"), [(0.89, True), (0.91, False)])
def test_an_alarm_ends_inside_the_band_and_not_at_its_edge(value: float, stands: bool) -> None:
    """An interval that touches the band is no recovery: alarms would come and go with every window."""
    ledger = AlarmLedger()
    take_judgements(ledger, [judged(0.8, 0.78, 0.82)], 300.0)
    assert len(ledger.standing()) == 1
    take_judgements(ledger, [judged(value, value - 0.02, value + 0.02)], 600.0)
    assert bool(ledger.standing()) is stands


BAD = (0.8, 0.78, 0.82)
STALE_S = 900.0


def minutes(ledger: AlarmLedger, judgements: list[Judgement], first: int, last: int) -> None:
    """Judge once a minute."""
    for minute in range(first, last):
        take_judgements(ledger, judgements, 60.0 * minute, STALE_S)


def test_an_alarm_ends_when_nothing_newer_can_be_judged() -> None:
    """The label stream has ended: the last window is judged on and on, and raises nothing again."""
    ledger = AlarmLedger()
    minutes(ledger, [judged(*BAD)], 5, 20)
    assert len(ledger.standing()) == 1
    minutes(ledger, [judged(*BAD)], 20, 40)
    assert ledger.standing() == ()
    (ended,) = ledger.alarms()
    assert ended.cleared_s == 60.0 * 21
    assert "nothing newer could be judged" in ended.summary
    minutes(ledger, [judged(*BAD, window=9)], 40, 50)
    assert len(ledger.standing()) == 1
    assert len(ledger.alarms()) == 2


def test_an_alarm_whose_stream_is_gone_ends() -> None:
    """The model was unloaded and its predictions have expired: there is no judgement at all."""
    ledger = AlarmLedger()
    minutes(ledger, [judged(*BAD)], 5, 6)
    minutes(ledger, [], 6, 21)
    assert len(ledger.standing()) == 1
    minutes(ledger, [], 21, 22)
    assert ledger.standing() == ()


def test_an_alarm_of_a_stream_that_goes_on_stands() -> None:
    """A window after the other, also one that is neither good nor bad, tells that it is not over."""
    ledger = AlarmLedger()
    for window in range(20):
        one = judged(*(BAD if window % 5 == 0 else (0.89, 0.87, 0.91)), window=window)
        minutes(ledger, [one], 5 * window + 5, 5 * window + 10)
    (alarm,) = ledger.standing()
    assert alarm.raised_s == 300.0
    assert alarm.evidence["window"] == [5700.0, 6000.0]


def test_pipelines_and_drift_are_not_ended_for_want_of_labels() -> None:
    """They have rules of their own."""
    ledger = AlarmLedger()
    for kind in ("drift", "pipeline"):
        ledger.stand(StreamKey("fraud", 1, "digest"), kind, "x", summary="", evidence={}, now_s=0.0)
    take_judgements(ledger, [], 1e9, STALE_S)
    assert len(ledger.standing()) == 2
