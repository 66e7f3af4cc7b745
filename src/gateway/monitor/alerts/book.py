"""Who was told what of which alarm, and what is to be said now. Pure: no clock, no I/O."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gateway.monitor.alerts.message import CLEARED, RAISED, RETRAINING, notice
from gateway.monitor.alerts.silence import concerns, silenced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.config.monitor_alerts import AboutSettings, AlertSettings
    from gateway.monitor.alerts.message import Notice
    from gateway.monitor.values import Alarm

MAX_ALARMS: Final = 10_000
"""Alarms remembered; those beyond are told to nobody, and counted."""
MAX_TOLD: Final = 100
"""Alarms of one message; the rest comes with the next one."""


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

    An alarm is told once when it is raised and once when it has cleared, and not at all if it cleared before
    its telling was due. Whoever was told of it as raised is told of its end, cooldown or not.

    Args:
        settings: receivers, silences, cooldown.

    Attributes:
        told: (receiver, alarm's id) -> RAISED or CLEARED, the last that was said.
        last_s: (receiver, topic) -> when it was told of last, seconds since the epoch.
        held_back: counts of what was not said, by `silence` and `cooldown`, once per alarm and receiver.
    """

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings
        self._receivers = tuple(_receivers(settings))
        self._alarms: dict[str, Alarm] = {}
        self._waiting_s: dict[tuple[str, str], float] = {}
        self._held: set[tuple[str, str, str]] = set()
        self.told: dict[tuple[str, str], str] = {}
        self.last_s: dict[tuple[str, str], float] = {}
        self.held_back = {"silence": 0, "cooldown": 0, "bound": 0}

    @property
    def alarms(self) -> Iterable[Alarm]:
        """Alarms that stand or ended a short while ago."""
        return self._alarms.values()

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
        self.told = {key: event for key, event in self.told.items() if key[1] in current}
        self._held = {key for key in self._held if key[1] in current}

    def due(self, now_s: float) -> list[Notice]:
        """Return what is to be said now; it counts as said."""
        notices = []
        for receiver in self._receivers:
            groups: dict[str, list[tuple[str, Alarm]]] = defaultdict(list)
            for event, alarm in self._candidates(receiver, now_s):
                groups[alarm.key.model].append((event, alarm))
            self._forget_waits(receiver.name, groups.keys())
            for model, group in groups.items():
                since_s = self._waiting_s.setdefault((receiver.name, model), now_s)
                # A clock that was set back must not hold messages back.
                if not 0 <= now_s - since_s < self._settings.group_wait:
                    notices.append(self._say(receiver, group[:MAX_TOLD], now_s))
                    del self._waiting_s[receiver.name, model]
        longest_s = max((r.cooldown_s for r in self._receivers), default=0.0)
        self.last_s = {topic: at_s for topic, at_s in self.last_s.items() if now_s - at_s < longest_s}
        return notices

    def _say(self, receiver: _Receiver, group: list[tuple[str, Alarm]], now_s: float) -> Notice:
        for event, alarm in group:
            self.told[receiver.name, alarm.id] = event
            if event == RAISED:
                self.last_s[receiver.name, receiver.topic(alarm)] = now_s
        return notice(receiver.name, group, self._settings.pages_url, now_s)

    def _candidates(self, receiver: _Receiver, now_s: float) -> Iterator[tuple[str, Alarm]]:
        for alarm in self._alarms.values():
            if not concerns(receiver.about, alarm):
                continue
            event = self._next(receiver, alarm, now_s)
            if event and not self._is_held(receiver, alarm, event, now_s):
                yield event, alarm

    def _next(self, receiver: _Receiver, alarm: Alarm, now_s: float) -> str:
        said = self.told.get((receiver.name, alarm.id))
        if alarm.cleared_s is not None:
            return CLEARED if said == RAISED and receiver.cleared else ""
        young = 0 <= now_s - alarm.raised_s < receiver.stands_s
        return RAISED if said is None and not young else ""

    def _is_held(self, receiver: _Receiver, alarm: Alarm, event: str, now_s: float) -> bool:
        why = ""
        if silenced(self._settings.silences, alarm, now_s):
            why = "silence"
        elif event == RAISED:
            last_s = self.last_s.get((receiver.name, receiver.topic(alarm)))
            if last_s is not None and last_s < now_s < last_s + receiver.cooldown_s:
                why = "cooldown"
        if why and (receiver.name, alarm.id, why) not in self._held:
            self._held.add((receiver.name, alarm.id, why))
            self.held_back[why] += 1
        return bool(why)

    def _known(self, alarm: Alarm) -> bool:
        return alarm.id in self._alarms or any(
            r.name for r in self._receivers if (r.name, alarm.id) in self.told
        )

    def _owed(self, alarm_id: str) -> bool:
        return any(
            self.told.get((receiver.name, alarm_id)) == RAISED and receiver.cleared
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
