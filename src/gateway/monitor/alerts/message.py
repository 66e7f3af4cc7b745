"""What is said of alarms: labels and annotations for Alertmanager, JSON for webhooks. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.values import Alarm

RAISED: Final = "raised"
CLEARED: Final = "cleared"
RETRAINING: Final = "retraining"
"""Name of the receiver that is asked for new versions."""

MAX_BODY_BYTES: Final = 256 << 10
"""Of one message: beyond it evidence is left out, for the link shows it."""
MAX_LABEL: Final = 128
"""Characters of a label's value."""

ALERT_NAMES: Final = {
    "drift": "ModelDrift",
    "performance": "ModelPerformance",
    "estimated_performance": "ModelEstimatedPerformance",
    "fairness": "ModelFairness",
    "quality": "ModelDataQuality",
    "pipeline": "PredictionLogPipeline",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One message for one receiver.

    Attributes:
        id: of its content: a repetition has the same.
        receiver: name of the webhook.
        body: JSON.
        at_s: when it was made, seconds since the epoch.
    """

    id: str
    receiver: str
    body: bytes = field(repr=False)
    at_s: float


def link(pages_url: str, alarm: Alarm) -> str:
    """Return the address of an alarm's evidence."""
    return (
        f"{pages_url.rstrip('/')}/models/{quote(alarm.key.model, safe='')}#alarm-{quote(alarm.id, safe='')}"
    )


def notice(receiver: str, told: Sequence[tuple[str, Alarm]], pages_url: str, now_s: float) -> Notice:
    """Return the message that tells a receiver of several alarms of one model.

    Args:
        receiver: whom.
        told: RAISED or CLEARED, and the alarm; not empty.
        pages_url: of the monitor's pages.
        now_s: wall clock, seconds since the epoch.
    """
    parts = "\n".join(f"{event} {alarm.id}" for event, alarm in told)
    identity = blake2b(f"{receiver}\n{parts}".encode(), digest_size=12).hexdigest()
    model = told[0][1].key.model
    document: dict[str, Any] = {
        "version": 1,
        "type": "model.retraining" if receiver == RETRAINING else "model.alarms",
        "id": identity,
        "at": _time(now_s),
        "model": model,
        "summary": _summary(told),
        "alarms": [{"event": event, **described(alarm, pages_url)} for event, alarm in told],
    }
    body = _dumped(document)
    if len(body) > MAX_BODY_BYTES:
        for alarm in document["alarms"]:
            alarm["evidence"] = {"omitted": "too large; see the link"}
        body = _dumped(document)
    return Notice(identity, receiver, body, now_s)


def described(alarm: Alarm, pages_url: str) -> dict[str, Any]:
    """Return an alarm as JSON types."""
    return {
        "id": alarm.id,
        "model": alarm.key.model,
        "model_version": alarm.key.version,
        "arm": alarm.key.arm,
        "segment": alarm.key.segment,
        "kind": alarm.kind,
        "subject": alarm.subject,
        "severity": alarm.severity,
        "raised_at": _time(alarm.raised_s),
        "cleared_at": None if alarm.cleared_s is None else _time(alarm.cleared_s),
        "summary": alarm.summary,
        "link": link(pages_url, alarm),
        "evidence": dict(alarm.evidence),
    }


def alertmanager_alert(alarm: Alarm, pages_url: str, ends_s: float) -> dict[str, Any]:
    """Return an alarm as Alertmanager's API v2 takes it (its `postableAlert`).

    Args:
        alarm: standing or cleared.
        pages_url: of the monitor's pages.
        ends_s: when it ends unless it is sent again, or when it has ended.
    """
    key = alarm.key
    labels = {
        "alertname": ALERT_NAMES.get(alarm.kind, "ModelAlarm"),
        "model": key.model,
        "version": str(key.version),
        "arm": key.arm,
        "segment": key.segment,
        "kind": alarm.kind,
        "subject": alarm.subject,
        "severity": alarm.severity,
    }
    where = link(pages_url, alarm)
    return {
        "labels": {name: value[:MAX_LABEL] for name, value in labels.items() if value},
        "annotations": {"summary": alarm.summary, "link": where},
        "startsAt": _time(alarm.raised_s),
        "endsAt": _time(ends_s),
        "generatorURL": where,
    }


def _summary(told: Sequence[tuple[str, Alarm]]) -> str:
    first = told[0][1]
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    return f"{first.summary}{more}"


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dumped(document: Any) -> bytes:
    return orjson.dumps(document, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
