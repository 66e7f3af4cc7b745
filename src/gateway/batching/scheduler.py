"""Shares one device among the batchers of the models on it: a bounded number of runs, in turn by cost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.types import Device

_COST_WEIGHT: Final = 0.2
"""Weight of the newest run in the cost expected of the next."""


class Runner(Protocol):
    """Somebody who starts runs when told that the device has room."""

    def start_run(self) -> bool:
        """Start one run if there is one to start; False if there is none now.

        Synchronous. After False the runner calls `Share.wake` when that may have changed.
        """


class Share:
    """One runner's claim on a device; made by `DeviceScheduler.join`.

    Its virtual time is the seconds of device time it has had, brought up to the others' when it comes back
    from idleness, so that nobody saves up.
    """

    __slots__ = ("_charged_s", "_scheduler", "cost_s", "runner", "virtual_s")

    def __init__(self, scheduler: DeviceScheduler, runner: Runner) -> None:
        self._scheduler = scheduler
        self.runner = runner
        self.virtual_s = 0.0
        self.cost_s = 0.0
        self._charged_s: list[float] = []

    @property
    def running(self) -> int:
        """Runs under way."""
        return len(self._charged_s)

    @property
    def contended(self) -> bool:
        """Whether somebody else waits for the device."""
        return self._scheduler._wanted_by_others(self)  # noqa: SLF001 - the two halves of one thing

    def charge(self) -> None:
        """Charge the expected cost of a run that starts."""
        self._charged_s.append(self.cost_s)
        self.virtual_s += self.cost_s

    def settle(self, seconds: float) -> None:
        """Replace the charge of a run that ended by what it took; which run's does not matter to the sum."""
        self.virtual_s += seconds - self._charged_s.pop()
        self.cost_s += _COST_WEIGHT * (seconds - self.cost_s)

    def wake(self) -> None:
        """Say that there may be something to run. It is looked at on the next turn of the event loop.

        So requests that arrive in one turn share a batch, and nothing is run, let alone answered, before
        the caller has returned.
        """
        self._scheduler._want(self)  # noqa: SLF001 - the two halves of one thing

    def release(self, seconds: float) -> None:
        """Give the room of one run back, with what it took; the next run starts before this returns."""
        self._scheduler._release(self, seconds)  # noqa: SLF001 - likewise

    def retake(self) -> bool:
        """Take room for a run that had given it back; False, changing nothing, if others come first.

        Then `wake`, and go on when told to start a run.
        """
        return self._scheduler._retake(self)  # noqa: SLF001 - likewise


class DeviceScheduler:
    """Decides who runs next on one device, by start-time fair queueing on measured run seconds.

    (Goyal, Vin, Cheng: Start-time Fair Queueing, 1996.) Each runner's start tag is its virtual time; the
    smallest goes first. What a run will cost is known only afterwards, so the expected cost (a moving average
    of the runner's own) is charged at the start and corrected at the end. Between two runners that both have
    work all the time, the device time they get differs by at most about one run of each.

    Everything is synchronous, on the event loop; nothing polls.
    """

    def __init__(self, device: Device, slots: int) -> None:
        """Share `device`, which may have at most `slots` runs under way at once."""
        self.device = device
        self.slots = slots
        self.running = 0
        self._wanting: dict[Share, None] = {}
        self._virtual_s = 0.0
        self._scheduled = False
        self._when_spare: list[Callable[[], object]] = []

    @property
    def spare_slots(self) -> int:
        """Runs that could start now without anybody waiting for it; 0 while somebody waits."""
        return 0 if self._wanting else self.slots - self.running

    def when_spare(self, callback: Callable[[], object]) -> None:
        """Call back once, in a turn of the loop of its own, when runs have ended and a slot is spare."""
        self._when_spare.append(callback)

    def join(self, runner: Runner) -> Share:
        """Admit a runner."""
        return Share(self, runner)

    def _want(self, share: Share) -> None:
        if share not in self._wanting:
            self._wanting[share] = None
            if share.running == 0:
                share.virtual_s = max(share.virtual_s, self._virtual_s)
        if not self._scheduled and self.running < self.slots:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _wanted_by_others(self, share: Share) -> bool:
        return len(self._wanting) > (share in self._wanting)

    def _turn(self) -> None:
        self._scheduled = False
        self._dispatch()

    def _dispatch(self) -> None:
        """Start runs while there is room and somebody wants it; those with nothing to start drop out."""
        while self._wanting and self.running < self.slots:
            share = min(self._wanting, key=_virtual_s)
            start_s = share.virtual_s
            if not share.runner.start_run():
                self._wanting.pop(share, None)
                continue
            self._virtual_s = max(self._virtual_s, start_s)
            self.running += 1
            share.charge()
        if self._when_spare and self.spare_slots:
            callbacks, self._when_spare = self._when_spare, []
            for callback in callbacks:
                asyncio.get_running_loop().call_soon(callback)

    def _retake(self, share: Share) -> bool:
        if self._wanting or self.running >= self.slots:
            return False
        self.running += 1
        share.charge()
        return True

    def _release(self, share: Share, seconds: float) -> None:
        self.running -= 1
        share.settle(seconds)
        self._dispatch()


def _virtual_s(share: Share) -> float:
    return share.virtual_s
