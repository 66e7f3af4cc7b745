"""ADWIN: a window over a stream that grows while its mean is steady and is cut where it changed.

Bifet and Gavalda, "Learning from time-changing data with adaptive windowing" (SDM 2007), with the bound on
means by the window's variance (their section 5), as the MOA and River implementations apply it: values are
kept in buckets of 1, 2, 4, ... of them, at most `max_buckets` of a size, so memory is logarithmic in the
window's length. Same alarms as River's on the same stream, which tests hold it to.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settings:
    """What a window is tuned by.

    Attributes:
        delta: bound on the chance of a false cut; of any one look, as implementations have it.
        clock: values between looks.
        max_buckets: buckets of one size; more are finer and slower.
        min_window: values that a side of a cut needs.
        grace: values before the first look.
        restarts: a found change ends the window, as River has it; else what the cut left goes on, as in the
            paper.
    """

    delta: float = 0.002
    clock: int = 32
    max_buckets: int = 5
    min_window: int = 5
    grace: int = 10
    restarts: bool = True


@dataclass(slots=True)
class Adwin:
    """A window of unknown length. Not thread-safe; numbers that are not finite must be kept away from it.

    Attributes:
        settings: fixed.
        width: values in the window.
        total: their sum.
        spread: sum of squared differences from their mean.
        seen: values since the last change.
        cuts: changes ever found.
        changed: the last update found one; the next starts a new window where `restarts` is set.
        rows: by power of two, buckets (sum, spread) of that many values, the oldest first.
    """

    settings: Settings = field(default_factory=Settings)
    width: int = 0
    total: float = 0.0
    spread: float = 0.0
    seen: int = 0
    cuts: int = 0
    changed: bool = False
    rows: list[deque[tuple[float, float]]] = field(default_factory=lambda: [deque()])

    @property
    def mean(self) -> float:
        """Mean of the window; 0 when it is empty."""
        return self.total / self.width if self.width else 0.0

    def update(self, value: float) -> bool:
        """Add a value; return whether the mean has changed, and the window was cut therefore."""
        if self.changed and self.settings.restarts:
            self._restart()
        self.changed = False
        self.seen += 1
        if self.width:
            about = value - self.mean
            self.spread += self.width * about * about / (self.width + 1)
        self.width += 1
        self.total += value
        self.rows[0].append((value, 0.0))
        self._compress()
        if self.seen % self.settings.clock or self.width <= self.settings.grace:
            return False
        return self._cut()

    def _restart(self) -> None:
        self.width = self.seen = 0
        self.total = self.spread = 0.0
        self.rows = [deque()]
        self.changed = False

    def _compress(self) -> None:
        """Merge the two oldest buckets of every size that has too many."""
        for power, row in enumerate(self.rows):
            if len(row) <= self.settings.max_buckets:
                return
            if power + 1 == len(self.rows):
                self.rows.append(deque())
            (a, spread_a), (b, spread_b) = row.popleft(), row.popleft()
            about = (a - b) / 2**power
            self.rows[power + 1].append((a + b, spread_a + spread_b + 2**power * about * about / 2))

    def _cut(self) -> bool:
        """Drop the oldest bucket as long as the window falls into two parts with different means."""
        while self._differs():
            self.changed = True
            self._drop()
        self.cuts += self.changed
        return self.changed

    def _differs(self) -> bool:
        old, old_total = 0, 0.0
        new, new_total = self.width, self.total
        for power in range(len(self.rows) - 1, -1, -1):
            for index, (total, _) in enumerate(self.rows[power]):
                if power == 0 and index == len(self.rows[0]) - 1:
                    return False
                old, old_total = old + 2**power, old_total + total
                new, new_total = new - 2**power, new_total - total
                least = self.settings.min_window
                if (
                    old >= least
                    and new >= least
                    and self._exceeds(old, new, old_total / old - new_total / new)
                ):
                    return True
        return False

    def _exceeds(self, old: int, new: int, difference: float) -> bool:
        least = self.settings.min_window
        log = math.log(2 * math.log(self.width) / self.settings.delta)
        inverse = 1 / (old - least + 1) + 1 / (new - least + 1)
        variance = self.spread / self.width
        return abs(difference) > math.sqrt(2 * inverse * variance * log) + 2 / 3 * log * inverse

    def _drop(self) -> None:
        total, spread = self.rows[-1].popleft()
        count = 2 ** (len(self.rows) - 1)
        self.width -= count
        self.total -= total
        if self.width:
            about = total / count - self.total / self.width
            self.spread -= spread + count * self.width * about * about / (count + self.width)
            self.spread = max(self.spread, 0.0)
        else:
            self.total = self.spread = 0.0
        while len(self.rows) > 1 and not self.rows[-1]:
            self.rows.pop()
