"""When a minute has closed, by a wall clock that may jump."""

from __future__ import annotations

from typing import Final

from gateway.monitor.values import PANE_S

JUMP_S: Final = 60.0
"""Wall and monotonic clock part by more than this between two looks: somebody has set the wall clock."""

STEADY_S: Final = 600.0
"""So long after a jump nothing is deleted for its age: the clock may be set right again."""


class Minutes:
    """Tells once of each closed minute (or several at a time); after a jump backwards it begins anew.

    Attributes:
        jumps: of the wall clock, seen so far.
    """

    def __init__(self, settle_s: float) -> None:
        self.jumps = 0
        self._settle_s = settle_s
        self._last: int | None = None
        self._seen: tuple[float, float] | None = None
        self._jumped_s: float | None = None

    def closed(self, now_s: float, monotonic_s: float) -> bool:
        """Return whether a minute has closed and settled since this was last true.

        Args:
            now_s: wall clock, seconds since the epoch.
            monotonic_s: monotonic clock.
        """
        minute = int((now_s - self._settle_s) // PANE_S)
        if self._seen is not None and abs((now_s - self._seen[0]) - (monotonic_s - self._seen[1])) > JUMP_S:
            self.jumps += 1
            self._jumped_s = monotonic_s
            if self._last is not None and minute < self._last:
                self._last = minute
        self._seen = now_s, monotonic_s
        if self._last is None:
            self._last = minute
            return False
        if minute <= self._last:
            return False
        self._last = minute
        return True

    def steady(self, monotonic_s: float) -> bool:
        """Return whether the wall clock has not jumped for STEADY_S."""
        return self._jumped_s is None or monotonic_s - self._jumped_s >= STEADY_S
