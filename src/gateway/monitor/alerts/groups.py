"""Alarms that are one event for people: of one version, arm and kind, raised within a short time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.monitor.values import Alarm

_Key = tuple[str, int, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Group:
    """Alarms of one model, version, arm, kind and severity; at least one.

    Attributes:
        id: unique and stable.
        opened_s: when the first was raised.
        alarms: the most severe first; of any segment.
    """

    id: str
    opened_s: float
    alarms: tuple[Alarm, ...]

    @property
    def first(self) -> Alarm:
        """The most severe alarm of those that stand; of all, once none does."""
        return next(iter(self.standing), self.alarms[0])

    @property
    def standing(self) -> tuple[Alarm, ...]:
        """Alarms that stand."""
        return tuple(alarm for alarm in self.alarms if alarm.cleared_s is None)

    @property
    def cleared_s(self) -> float | None:
        """When the last of them ended; None while one stands."""
        return None if self.standing else max(alarm.cleared_s or 0.0 for alarm in self.alarms)


class Groups:
    """Knows which alarm belongs where; an alarm never moves.

    Args:
        within_s: alarms raised so long after the first belong to it, while one of them stands.

    Attributes:
        members: alarm's id -> (group's id, when it was opened).
        revision: grows when members change.
    """

    def __init__(self, within_s: float) -> None:
        self.members: dict[str, tuple[str, float]] = {}
        self.revision = 0
        self._within_s = within_s

    def of(self, alarms: Iterable[Alarm]) -> list[Group]:
        """Put alarms that are new into groups, forget those that are missing; return all groups by age."""
        current = {alarm.id: alarm for alarm in sorted(alarms, key=lambda a: a.raised_s)}
        if gone := self.members.keys() - current.keys():
            self.members = {alarm: place for alarm, place in self.members.items() if alarm not in gone}
            self.revision += 1
        held: dict[str, list[Alarm]] = {}
        for alarm in current.values():
            if alarm.id in self.members:
                held.setdefault(self.members[alarm.id][0], []).append(alarm)
        for alarm in current.values():
            if alarm.id not in self.members:
                group, opened_s = self._find(held, alarm) or (_id(alarm), alarm.raised_s)
                self.members[alarm.id] = group, opened_s
                held.setdefault(group, []).append(alarm)
                self.revision += 1
        groups = [
            Group(name, self.members[found[0].id][1], tuple(sorted(found, key=severity_order)))
            for name, found in held.items()
        ]
        return sorted(groups, key=lambda group: (group.opened_s, group.id))

    def _find(self, held: dict[str, list[Alarm]], alarm: Alarm) -> tuple[str, float] | None:
        key = _key(alarm)
        for found in held.values():
            group, opened_s = self.members[found[0].id]
            near = abs(alarm.raised_s - opened_s) <= self._within_s
            if near and _key(found[0]) == key and any(one.cleared_s is None for one in found):
                return group, opened_s
        return None


def severity_order(alarm: Alarm) -> tuple[bool, float, float]:
    """Return what sorts alarms: pages, then what is furthest beyond its threshold, then what came first."""
    tests = alarm.evidence.get("tests", ())
    return alarm.severity != "page", -max(map(_beyond, tests), default=0.0), alarm.raised_s


def _beyond(test: Any) -> float:
    if not isinstance(test, dict) or not test.get("drifted"):
        return 0.0
    return float(test["value"]) / max(float(test["threshold"]), 1e-12)


def _key(alarm: Alarm) -> _Key:
    key = alarm.key
    return key.model, key.version, key.digest, key.arm, alarm.kind, alarm.severity


def _id(alarm: Alarm) -> str:
    return blake2b(alarm.id.encode(), digest_size=8).hexdigest()
