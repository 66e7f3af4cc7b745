"""Alarms that are not of the drift tests: performance and fairness, and a log that arrives in part."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.monitor.values import ALL, PANE_S, StreamKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.monitor.detect.ledger import AlarmLedger
    from gateway.monitor.panes.part import Panes
    from gateway.monitor.performance.results import Judgement
    from gateway.monitor.values import Alarm

SEVERITIES: Final = {"performance": "page", "estimated_performance": "page", "fairness": "ticket"}
PIPELINE_S: Final = 10 * PANE_S
"""Time over which a log must have arrived in part for somebody to be told."""
MIN_PRODUCED: Final = 100


def take_judgements(
    ledger: AlarmLedger, judgements: Iterable[Judgement], now_s: float, stale_s: float = math.inf
) -> None:
    """Raise an alarm for each metric whose interval left its band; clear those that came back, or are over.

    Args:
        ledger: of alarms.
        judgements: of the newest window of each stream that could be judged.
        now_s: wall clock.
        stale_s: an alarm whose stream gave no newer window for so long ends: its model is gone, or nobody
            labels it any more. It is not raised again by the window that it ended with.
    """
    for one in judgements:
        place = one.key, one.kind, one.subject
        before = ledger.find(*place)
        if one.recovered:
            ledger.clear(*place, now_s)
        elif before is not None or (one.breached and not _is_over(ledger.last_ended(*place), one)):
            _stand(ledger, one, before, now_s)
    for alarm in ledger.standing():
        judged_s = float(alarm.evidence.get("judged_s", alarm.raised_s))
        if alarm.kind in SEVERITIES and now_s - judged_s > stale_s:
            _end(ledger, alarm, now_s)


def _stand(ledger: AlarmLedger, one: Judgement, before: Alarm | None, now_s: float) -> None:
    window = [one.start_s, one.end_s]
    seen = before.evidence if before is not None else {}
    ledger.stand(
        one.key,
        one.kind,
        one.subject,
        summary=one.summary,
        evidence={
            "value": one.value,
            "interval": [_finite(one.low), _finite(one.high)],
            "band": [_finite(one.band_low), _finite(one.band_high)],
            **one.evidence,
            "window": window,
            "judged_s": seen.get("judged_s", now_s) if seen.get("window") == window else now_s,
        },
        now_s=now_s,
        severity=SEVERITIES.get(one.kind, "ticket"),
    )


def _is_over(ended: Alarm | None, one: Judgement) -> bool:
    """Tell whether an alarm ended for want of a newer window than this one."""
    if ended is None or not ended.evidence.get("stale"):
        return False
    window = ended.evidence.get("window")
    return isinstance(window, list) and float(window[1]) >= one.end_s


def _end(ledger: AlarmLedger, alarm: Alarm, now_s: float) -> None:
    ledger.stand(
        alarm.key,
        alarm.kind,
        alarm.subject,
        summary=f"{alarm.summary}; over, for nothing newer could be judged",
        evidence={**alarm.evidence, "stale": True},
        now_s=now_s,
        severity=alarm.severity,
    )
    ledger.clear(alarm.key, alarm.kind, alarm.subject, now_s)


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
    return value if math.isfinite(value) else None
