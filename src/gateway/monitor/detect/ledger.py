"""The alarms that stand and that stood: one per stream, kind and subject at a time."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.monitor.values import Alarm, StreamKey

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

MAX_STANDING: Final = 2_000
"""Alarms that stand at a time; more are counted in `refused`."""
MAX_ENDED: Final = 10_000
"""Ended alarms that are remembered; the oldest make room."""
MAX_EVIDENCE: Final = 32_768
"""Bytes of evidence as JSON; longer is replaced by a note."""

_Place = tuple[StreamKey, str, str]


class AlarmLedger:
    """Owns all alarms; written with the part that holds it.

    Attributes:
        revision: grows with every alarm that is raised, cleared or whose evidence changes.
        refused: alarms that were not raised because MAX_STANDING stood.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.refused = 0
        self._standing: OrderedDict[_Place, Alarm] = OrderedDict()
        self._ended: OrderedDict[str, Alarm] = OrderedDict()
        self._changed: dict[str, int] = {}
        self._written = 0
        self._written_before = 0

    def stand(  # noqa: PLR0913 - the fields of an alarm
        self,
        key: StreamKey,
        kind: str,
        subject: str,
        *,
        summary: str,
        evidence: Mapping[str, Any],
        now_s: float,
        severity: str = "page",
    ) -> Alarm | None:
        """Raise an alarm, or bring the evidence of the one that stands up to date.

        Returns:
            The alarm as it stands; None where there are too many.
        """
        place = (key, kind, subject)
        before = self._standing.get(place)
        if before is None and len(self._standing) >= MAX_STANDING:
            self.refused += 1
            return None
        raised_s = now_s if before is None else before.raised_s
        alarm = Alarm(
            id=_id(place, raised_s) if before is None else before.id,
            key=key,
            kind=kind,
            subject=subject,
            severity=severity,
            raised_s=raised_s,
            cleared_s=None,
            summary=summary,
            evidence=_bounded(evidence),
        )
        if alarm != before:
            self._standing[place] = alarm
            self._note(alarm)
        return alarm

    def clear(self, key: StreamKey, kind: str, subject: str, now_s: float) -> Alarm | None:
        """End the alarm; return it as it ended, None where none stood."""
        before = self._standing.pop((key, kind, subject), None)
        if before is None:
            return None
        alarm = replace(before, cleared_s=max(now_s, before.raised_s))
        self._ended[alarm.id] = alarm
        while len(self._ended) > MAX_ENDED:
            gone, _ = self._ended.popitem(last=False)
            self._changed.pop(gone, None)
        self._note(alarm)
        return alarm

    def find(self, key: StreamKey, kind: str, subject: str) -> Alarm | None:
        """Return the alarm that stands there."""
        return self._standing.get((key, kind, subject))

    def last_ended(self, key: StreamKey, kind: str, subject: str) -> Alarm | None:
        """Return the alarm that ended there last; None where none is remembered."""
        place = key, kind, subject
        ended = reversed(self._ended.values())
        return next((a for a in ended if (a.key, a.kind, a.subject) == place), None)

    def standing(self, model: str | None = None) -> tuple[Alarm, ...]:
        """Return what stands, oldest first; of one model, or of all."""
        return tuple(a for a in self._standing.values() if model in (None, a.key.model))

    def alarms(
        self, model: str | None = None, *, since_s: float = 0.0, limit: int = 1000
    ) -> tuple[Alarm, ...]:
        """Return what stands or was cleared since, newest first."""
        found = [
            alarm
            for alarm in (*self._standing.values(), *self._ended.values())
            if model in (None, alarm.key.model) and (alarm.cleared_s is None or alarm.cleared_s >= since_s)
        ]
        return tuple(sorted(found, key=lambda a: a.raised_s, reverse=True)[:limit])

    def by_id(self, alarm_id: str) -> Alarm | None:
        """Return the alarm of an id."""
        if alarm_id in self._ended:
            return self._ended[alarm_id]
        return next((a for a in self._standing.values() if a.id == alarm_id), None)

    def changed_since(self, revision: int) -> list[Alarm]:
        """Return alarms raised, changed or cleared after a revision, in its order: for who tells others."""
        by_id = {a.id: a for a in (*self._standing.values(), *self._ended.values())}
        newer = sorted((at, name) for name, at in self._changed.items() if at > revision and name in by_id)
        return [by_id[name] for _, name in newer]

    def create(self, database: sqlite3.Connection) -> None:
        """Create the table."""
        database.execute(
            "CREATE TABLE IF NOT EXISTS detection_alarms (id TEXT PRIMARY KEY, revision INTEGER NOT NULL, "
            "cleared_s REAL, body BLOB NOT NULL) WITHOUT ROWID"
        )

    def restore(self, database: sqlite3.Connection) -> None:
        """Read all alarms."""
        rows = database.execute("SELECT id, revision, body FROM detection_alarms ORDER BY revision")
        for name, revision, body in rows.fetchall():
            alarm = _alarm(orjson.loads(body))
            if alarm.cleared_s is None:
                self._standing[alarm.key, alarm.kind, alarm.subject] = alarm
            else:
                self._ended[alarm.id] = alarm
            self._changed[name] = revision
            self.revision = max(self.revision, revision)
        self._written = self._written_before = self.revision

    def flush(self, database: sqlite3.Connection) -> None:
        """Write what changed since the last flush."""
        changed = self.changed_since(self._written)
        database.executemany(
            "INSERT OR REPLACE INTO detection_alarms VALUES (?, ?, ?, ?)",
            [(a.id, self._changed[a.id], a.cleared_s, orjson.dumps(_document(a))) for a in changed],
        )
        self._written_before, self._written = self._written, self.revision

    def rolled_back(self) -> None:
        """What the last `flush` wrote is to be written again."""
        self._written = self._written_before

    def expire(self, database: sqlite3.Connection, before_s: float) -> None:
        """Forget what was cleared before."""
        for name in [a.id for a in self._ended.values() if (a.cleared_s or 0.0) < before_s]:
            del self._ended[name]
            self._changed.pop(name, None)
        database.execute("DELETE FROM detection_alarms WHERE cleared_s < ?", (before_s,))
        database.execute(
            "DELETE FROM detection_alarms WHERE cleared_s IS NOT NULL AND id NOT IN "
            "(SELECT id FROM detection_alarms WHERE cleared_s IS NOT NULL ORDER BY cleared_s DESC LIMIT ?)",
            (MAX_ENDED,),
        )

    def _note(self, alarm: Alarm) -> None:
        self.revision += 1
        self._changed[alarm.id] = self.revision


def _id(place: _Place, raised_s: float) -> str:
    text = orjson.dumps([list(place[0]), *place[1:], raised_s])
    return hashlib.sha256(text).hexdigest()[:20]


def _bounded(evidence: Mapping[str, Any]) -> Mapping[str, Any]:
    size = len(orjson.dumps(dict(evidence)))
    return dict(evidence) if size <= MAX_EVIDENCE else {"left_out": f"{size} bytes of evidence"}


def _document(alarm: Alarm) -> dict[str, Any]:
    names = ("id", "kind", "subject", "severity", "raised_s", "cleared_s", "summary", "evidence")
    return {"key": list(alarm.key), **{name: getattr(alarm, name) for name in names}}


def _alarm(document: dict[str, Any]) -> Alarm:
    return Alarm(**{**document, "key": StreamKey(*document["key"])})
