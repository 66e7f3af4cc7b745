"""From the budget of false pages to the level of one window's tests.

Every `step` of time each window is compared once: one family of tests, over all signals, segments, versions
and arms of the model. Benjamini and Hochberg's procedure at level q rejects anything at all of a family
without drift with probability at most q. An alarm needs a rejection in the newest window and in `needed - 1`
of the `of - 1` before it that do not overlap: at most C(of - 1, needed - 1) q^needed, the windows being
independent. Over the horizon there are N = horizon / step families, so that W windows share the budget when

    W * N * C(of - 1, needed - 1) * q^needed = false_pages,    q = (false_pages / (W N C))^(1 / needed).

By default, 1 page in 90 days, 2 of 3 windows, C = 2:
    5m: a step is 1 min, N = 129,600, q = (1 / (3 * 129,600 * 2))^(1/2) = 0.00113
    1h: 5 min, 25,920, 0.00254;    1d: 1 h, 2,160, 0.00878
Steps of one window overlap, which makes the sum an upper bound. Traffic whose days differ is not independent
noise: for that there are the effect floors and the thresholds by blocks of the reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.monitor.values import PANE_S

if TYPE_CHECKING:
    from gateway.config.monitor_detect import DetectSettings

_PARTS: Final = ((24, 86_400), (12, 3600), (6, 1800), (5, 300), (4, 240), (3, 180), (2, 120))
"""Parts that a window is moved by, and from which length on: finer where waiting for the next is longer."""


@dataclass(frozen=True, slots=True)
class Level:
    """How one window is tested.

    Attributes:
        window: name.
        length_s: of the window.
        step_s: after which it is compared again; divides `length_s`.
        q: level of a family.
        false_page: upper bound of the probability of a false alarm by one family.
        families: expected within the horizon.
    """

    window: str
    length_s: int
    step_s: int
    q: float
    false_page: float
    families: float

    @property
    def stride(self) -> int:
        """Steps from one window to the next that does not overlap."""
        return self.length_s // self.step_s


def levels(settings: DetectSettings) -> tuple[Level, ...]:
    """Return the level of each window, shortest first, by the arithmetic above."""
    ways = math.comb(settings.of - 1, settings.needed - 1)
    found = []
    for name, length_s in sorted(settings.windows.items(), key=lambda item: item[1]):
        step_s = step_of(length_s)
        families = settings.horizon_days * 86_400 / step_s
        each = settings.false_pages / len(settings.windows) / families
        q = min(0.05, (each / ways) ** (1 / settings.needed))
        found.append(Level(name, length_s, step_s, q, ways * q**settings.needed, families))
    return tuple(found)


def step_of(length_s: int) -> int:
    """Return by how much a window is moved: a whole part of it and whole minutes."""
    for parts, least_s in _PARTS:
        if length_s >= least_s and length_s % (parts * PANE_S) == 0:
            return length_s // parts
    return length_s
