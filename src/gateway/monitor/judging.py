"""Alarms that are not of the drift tests: performance and fairness, and a log that arrives in part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.monitor.values import ALL, PANE_S, StreamKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.monitor.detect.ledger import AlarmLedger
    from gateway.monitor.panes.part import Panes
    from gateway.monitor.performance.results import Judgement

SEVERITIES: Final = {"performance": "page", "estimated_performance": "page", "fairness": "ticket"}
PIPELINE_S: Final = 10 * PANE_S
"""Time over which a log must have arrived in part for somebody to be told."""
MIN_PRODUCED: Final = 100


def take_judgements(ledger: AlarmLedger, judgements: Iterable[Judgement], now_s: float) -> None:
    """Raise an alarm for each metric whose interval left its band; clear those that came back."""
    for one in judgements:
        if one.breached:
            ledger.stand(
                one.key,
                one.kind,
                one.subject,
                summary=one.summary,
                evidence={
                    "value": one.value,
                    "interval": [one.low, one.high],
                    "band": [_finite(one.band_low), _finite(one.band_high)],
                    "window": [one.start_s, one.end_s],
                    **one.evidence,
                },
                now_s=now_s,
                severity=SEVERITIES.get(one.kind, "ticket"),
            )
        elif one.recovered:
            ledger.clear(one.key, one.kind, one.subject, now_s)


def watch_coverage(ledger: AlarmLedger, panes: Panes, settings: tuple[float, float], now_s: float) -> None:
    """Open a ticket for streams of which too little arrives, and close it when enough does again.

    Args:
        ledger: of alarms.
        panes: that know coverage.
        settings: least coverage, and seconds that rows may be under way.
        now_s: wall clock.
    """
    least, settle_s = settings
    end_s = (now_s - settle_s) // PANE_S * PANE_S
    for key in [key for key in panes.keys() if key.segment == ALL]:  # noqa: SIM118 - no dictionary
        found = panes.coverage(key.model, key.version, key.arm, end_s - PIPELINE_S, end_s)
        if found.produced >= MIN_PRODUCED and found.ratio < least:
            lost = {reason: rows for reason, rows in found.dropped.items() if reason != "sampled"}
            ledger.stand(
                key,
                "pipeline",
                "coverage",
                summary=f"{_who(key)}: only {found.ratio:.1%} of the rows served in the last "
                f"{PIPELINE_S / 60:.0f} minutes have arrived",
                evidence={"produced": found.produced, "applied": found.applied, "dropped": lost},
                now_s=now_s,
                severity="ticket",
            )
        elif found.ratio >= least:
            ledger.clear(key, "pipeline", "coverage", now_s)


def _who(key: StreamKey) -> str:
    arm = f", arm {key.arm}" if key.arm else ""
    return f"{key.model} version {key.version}{arm}"


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") else None
