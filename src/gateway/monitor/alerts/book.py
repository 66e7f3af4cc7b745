"""Who was told what of which alarm, and what is to be said now. Pure: no clock, no I/O."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gateway.monitor.alerts.groups import Group, Groups, severity_order
from gateway.monitor.alerts.message import CLEARED, RAISED, RETRAINING, notice
from gateway.monitor.alerts.silence import concerns, silenced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.config.monitor_alerts import AboutSettings, AlertSettings
    from gateway.monitor.alerts.message import Notice
    from gateway.monitor.values import Alarm

MAX_ALARMS: Final = 10_000
"""Alarms remembered; those beyond are told to nobody, and counted."""
MAX_TOLD: Final = 100
"""Groups of one message; the rest comes with the next one."""


@dataclass(frozen=True, slots=True)
class _Receiver:
    name: str
    about: AboutSettings
    cleared: bool
    cooldown_s: float
    stands_s: float

    def topic(self, alarm: Alarm) -> str:
        """Return what the cooldown is about."""
        if self.name == RETRAINING:
            return alarm.key.model
        key = alarm.key
        return f"{key.model}\t{key.arm}\t{key.segment}\t{alarm.kind}\t{alarm.subject}"


class AlertBook:
    """Decides which webhook is told what, and when.

    A group of alarms is told once when the first of them is raised, with all that stand by then, and once
    when the last has cleared; not at all if that was before its telling was due. Whoever was told of it as
    raised is told of its end, cooldown or not. The retraining hook is told of each alarm, and of no end.

    Args:
        settings: receivers, silences, cooldown.

    Attributes:
        told: (receiver, id of the group or alarm) -> RAISED or CLEARED, the last that was said.
        last_s: (receiver, topic) -> when it was told of last, seconds since the epoch.
        held_back: counts of what was not said, by `silence` and `cooldown`, once per group and receiver.
        memberships: which alarm is in which group.
    """

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings
        self._receivers = tuple(_receivers(settings))
        self._alarms: dict[str, Alarm] = {}
        self._groups: list[Group] = []
        self._waiting_s: dict[tuple[str, str], float] = {}
        self._held: set[tuple[str, str, str]] = set()
        self.memberships = Groups(settings.group_window)
        self.told: dict[tuple[str, str], str] = {}
        self.last_s: dict[tuple[str, str], float] = {}
        self.held_back = {"silence": 0, "cooldown": 0, "bound": 0}

    @property
    def groups(self) -> Sequence[Group]:
        """Groups that stand or ended a short while ago, the oldest first."""
        return self._groups

    def observe(self, alarms: Iterable[Alarm], now_s: float) -> None:
        """Take over how alarms stand.

        Args:
            alarms: all that stand, and those that ended lately; one that was there and is missing has ended.
            now_s: wall clock, seconds since the epoch.
        """
        current = {alarm.id: alarm for alarm in alarms if alarm.cleared_s is None or self._known(alarm)}
        for known in list(current)[MAX_ALARMS:]:
            del current[known]
            self.held_back["bound"] += 1
        for gone in self._alarms.keys() - current.keys():
            if self._owed(gone):
                current[gone] = _ended(self._alarms[gone], now_s)
        self._alarms = current
        self._groups = self.memberships.of(current.values())
        known_ids = current.keys() | {group.id for group in self._groups}
        self.told = {key: event for key, event in self.told.items() if key[1] in known_ids}
        self._held = {key for key in self._held if key[1] in known_ids}

    def due(self, now_s: float) -> list[Notice]:
        """Return what is to be said now; it counts as said."""
        notices = []
        for receiver in self._receivers:
            by_model: dict[str, list[tuple[str, Group]]] = defaultdict(list)
            for event, group in self._candidates(receiver, now_s):
                by_model[group.first.key.model].append((event, group))
            self._forget_waits(receiver.name, by_model.keys())
            for model, groups in by_model.items():
                since_s = self._waiting_s.setdefault((receiver.name, model), now_s)
                # A clock that was set back must not hold messages back.
                if not 0 <= now_s - since_s < self._settings.group_wait:
                    notices.append(self._say(receiver, groups[:MAX_TOLD], now_s))
                    del self._waiting_s[receiver.name, model]
        longest_s = max((r.cooldown_s for r in self._receivers), default=0.0)
        self.last_s = {topic: at_s for topic, at_s in self.last_s.items() if now_s - at_s < longest_s}
        return notices

    def _say(self, receiver: _Receiver, groups: list[tuple[str, Group]], now_s: float) -> Notice:
        said = []
        for event, group in groups:
            self.told[receiver.name, group.id] = event
            for alarm in group.standing or group.alarms:
                said.append((event, alarm))
                if event == RAISED:
                    self.last_s[receiver.name, receiver.topic(alarm)] = now_s
        said.sort(key=lambda one: severity_order(one[1]))
        return notice(receiver.name, said, self._settings.pages_url, now_s)

    def _candidates(self, receiver: _Receiver, now_s: float) -> Iterator[tuple[str, Group]]:
        alone = receiver.name == RETRAINING
        groups = [Group(a.id, a.raised_s, (a,)) for a in self._alarms.values()] if alone else self._groups
        for group in groups:
            if not concerns(receiver.about, group.first):
                continue
            event = self._next(receiver, group, now_s)
            if event and not self._is_held(receiver, group, event, now_s):
                yield event, group

    def _next(self, receiver: _Receiver, group: Group, now_s: float) -> str:
        said = self.told.get((receiver.name, group.id))
        if group.cleared_s is not None:
            return CLEARED if said == RAISED and receiver.cleared else ""
        young = 0 <= now_s - group.opened_s < receiver.stands_s
        return RAISED if said is None and not young else ""

    def _is_held(self, receiver: _Receiver, group: Group, event: str, now_s: float) -> bool:
        why = ""
        if silenced(self._settings.silences, group.first, now_s):
            why = "silence"
        elif event == RAISED and all(self._cools(receiver, alarm, now_s) for alarm in group.standing):
            why = "cooldown"
        if why and (receiver.name, group.id, why) not in self._held:
            self._held.add((receiver.name, group.id, why))
            self.held_back[why] += 1
        return bool(why)

    def _cools(self, receiver: _Receiver, alarm: Alarm, now_s: float) -> bool:
        last_s = self.last_s.get((receiver.name, receiver.topic(alarm)))
        return last_s is not None and last_s < now_s < last_s + receiver.cooldown_s

    def _known(self, alarm: Alarm) -> bool:
        return (
            alarm.id in self._alarms
            or alarm.id in self.memberships.members
            or (RETRAINING, alarm.id) in self.told
        )

    def _owed(self, alarm_id: str) -> bool:
        group, _ = self.memberships.members[alarm_id]
        return any(
            self.told.get((receiver.name, group)) == RAISED and receiver.cleared
            for receiver in self._receivers
        )

    def _forget_waits(self, receiver: str, models: Iterable[str]) -> None:
        kept = set(models)
        for key in [key for key in self._waiting_s if key[0] == receiver and key[1] not in kept]:
            del self._waiting_s[key]


def _receivers(settings: AlertSettings) -> Iterator[_Receiver]:
    for hook in settings.webhooks:
        yield _Receiver(hook.name, hook.about, hook.cleared, settings.cooldown, 0.0)
    if (wanted := settings.retraining) is not None:
        yield _Receiver(
            RETRAINING, wanted.about, cleared=False, cooldown_s=wanted.cooldown, stands_s=wanted.stands
        )


def _ended(alarm: Alarm, now_s: float) -> Alarm:
    return alarm if alarm.cleared_s is not None else replace(alarm, cleared_s=now_s)
