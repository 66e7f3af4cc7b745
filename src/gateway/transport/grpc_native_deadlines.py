"""Deadlines of all calls of a server, under one timer."""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Final, Protocol

_COMPACT_FROM: Final = 256
_LONGEST_TIMER_S: Final = 86_400.0  # clients may send any number


class Expiring(Protocol):
    """Something that has a deadline."""

    def expire(self) -> None:
        """Hear that the deadline has passed."""


class DeadlineEntry:
    """One deadline; ordered by time."""

    __slots__ = ("call", "deadline_s")

    def __init__(self, deadline_s: float, call: Expiring) -> None:
        self.deadline_s = deadline_s
        self.call: Expiring | None = call

    def __lt__(self, other: DeadlineEntry) -> bool:
        return self.deadline_s < other.deadline_s


class Deadlines:
    """Tells calls that their deadline has passed; almost none ever does, so adding and removing are cheap.

    Removed entries stay until they are half of all: memory is bounded by twice the calls with deadlines.
    Event loop only.
    """

    __slots__ = ("_dead", "_heap", "_timer", "_timer_s")

    def __init__(self) -> None:
        self._heap: list[DeadlineEntry] = []
        self._dead = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0

    def add(self, deadline_s: float, call: Expiring) -> DeadlineEntry:
        """Call `call.expire` at `deadline_s`, monotonic time, unless the entry is removed before."""
        entry = DeadlineEntry(deadline_s, call)
        heapq.heappush(self._heap, entry)
        if self._timer is None or deadline_s < self._timer_s:
            self._arm()
        return entry

    def remove(self, entry: DeadlineEntry) -> None:
        """Forget an entry."""
        entry.call = None
        self._dead += 1
        if self._dead > _COMPACT_FROM and self._dead * 2 > len(self._heap):
            self._heap = [live for live in self._heap if live.call is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def close(self) -> None:
        """Forget everything."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = self._heap[0].deadline_s
        delay_s = min(max(0.0, self._timer_s - time.monotonic()), _LONGEST_TIMER_S)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        # Those of calls that are over go with the rest: the timer is for the next one that lives.
        while self._heap and (self._heap[0].deadline_s <= now_s or self._heap[0].call is None):
            call = heapq.heappop(self._heap).call
            if call is None:
                self._dead -= 1
            else:
                call.expire()
        if self._heap:
            self._arm()
