"""Alarms for the tests of alerts."""

from __future__ import annotations

from typing import Final

from gateway.monitor.values import Alarm, StreamKey

T0: Final = 1_790_000_000.0  # a Monday, 14:13:20 UTC


def alarm(
    subject: str = "income",
    *,
    model: str = "car_loan",
    kind: str = "drift",
    at_s: float = T0,
    psi: float = 0.4,
    arm: str = "",
    segment: str = "",
) -> Alarm:
    """Return an alarm that stands; `psi` is four times its threshold where it is 0.4."""
    return Alarm(
        id=f"{model}-{kind}-{arm}{segment}-{subject}-{at_s:.0f}",
        key=StreamKey(model, 1, "abc", arm, segment),
        kind=kind,
        subject=subject,
        severity="page",
        raised_s=at_s,
        cleared_s=None,
        summary=f"{subject} drifted",
        evidence={"tests": [{"statistic": "psi", "value": psi, "threshold": 0.1, "drifted": True}]},
    )
