"""Alarms of performance: raised outside of the band, ended inside of it, left alone in between."""

from __future__ import annotations

import pytest

from gateway.monitor.detect.ledger import AlarmLedger
from gateway.monitor.judging import take_judgements
from gateway.monitor.performance.results import Judgement
from gateway.monitor.values import StreamKey


def judged(value: float, low: float, high: float) -> Judgement:
    """A metric whose reference lies between 0.9 and 1."""
    return Judgement(
        key=StreamKey("fraud", 1, "digest"),
        kind="performance",
        subject="precision",
        start_s=0.0,
        end_s=300.0,
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
