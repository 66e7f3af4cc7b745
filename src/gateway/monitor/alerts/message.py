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

    from gateway.monitor.alerts.groups import Group
    from gateway.monitor.values import Alarm

RAISED: Final = "raised"
CLEARED: Final = "cleared"
RETRAINING: Final = "retraining"
"""Name of the receiver that is asked for new versions."""

MAX_BODY_BYTES: Final = 256 << 10
"""Of one message: beyond it evidence is left out, for the link shows it."""
MAX_LABEL: Final = 128
"""Characters of a label's value."""
MAX_LISTED: Final = 100
"""Alarms that a webhook's message describes."""
MAX_SUBJECTS: Final = 20
"""Alarms that an Alertmanager's alert names."""

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
        told: RAISED or CLEARED, and the alarm, the most severe first; not empty. Beyond MAX_LISTED they are
            counted.
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
        "summary": _summary([alarm for _, alarm in told]),
        "total": len(told),
        "alarms": [{"event": event, **described(alarm, pages_url)} for event, alarm in told[:MAX_LISTED]],
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


def alertmanager_alert(group: Group, pages_url: str, ends_s: float) -> dict[str, Any]:
    """Return a group of alarms as Alertmanager's API v2 takes it (its `postableAlert`): one alert.

    Args:
        group: standing or cleared.
        pages_url: of the monitor's pages.
        ends_s: when it ends unless it is sent again, or when it has ended.
    """
    first = group.first
    key = first.key
    labels = {
        "alertname": ALERT_NAMES.get(first.kind, "ModelAlarm"),
        "model": key.model,
        "version": str(key.version),
        "arm": key.arm,
        "kind": first.kind,
        "severity": first.severity,
        "group": group.id,
    }
    where = link(pages_url, first)
    about = group.standing or group.alarms
    return {
        "labels": {name: value[:MAX_LABEL] for name, value in labels.items() if value},
        "annotations": {"summary": _summary(about), "subjects": _subjects(about), "link": where},
        "startsAt": _time(group.opened_s),
        "endsAt": _time(ends_s),
        "generatorURL": where,
    }


def _subjects(alarms: Sequence[Alarm]) -> str:
    """Return what alarms are about, in their order, each with its segment."""
    names = [
        alarm.subject[:MAX_LABEL] + (f" ({alarm.key.segment[:MAX_LABEL]})" if alarm.key.segment else "")
        for alarm in alarms[:MAX_SUBJECTS]
    ]
    more = [f"{len(alarms) - MAX_SUBJECTS} more"] if len(alarms) > MAX_SUBJECTS else []
    return ", ".join([*names, *more])


def _summary(alarms: Sequence[Alarm]) -> str:
    more = f" (and {len(alarms) - 1} more)" if len(alarms) > 1 else ""
    return f"{alarms[0].summary}{more}"


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dumped(document: Any) -> bytes:
    return orjson.dumps(document, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
