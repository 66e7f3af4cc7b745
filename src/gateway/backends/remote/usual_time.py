"""How long good answers of an endpoint usually take, and whether an attempt had enough time for one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_QUANTILE: Final = 0.9
_STEP: Final = 0.1
_SHORTEST_S: Final = 1e-6
LEAST: Final = 10
"""Answers before which an endpoint's usual time is not known."""
ENOUGH: Final = 2.0
"""An attempt that had so many times the usual time, and no answer, is a failure."""


class UsualTime:
    """A running 90 % quantile of seconds, by stochastic approximation of its logarithm (Robbins, Monro 1951).

    Follows a change by a factor of e within about a hundred answers down, eleven up.
    """

    __slots__ = ("count", "value_s")

    def __init__(self) -> None:
        self.count = 0
        self.value_s = 0.0

    def note(self, seconds: float) -> None:
        """Take note of an answer, or of an attempt given up so early that it says only "longer"."""
        seconds = max(seconds, _SHORTEST_S)
        self.count += 1
        if self.count == 1:
            self.value_s = seconds
            return
        step = max(_STEP, 1.0 / self.count)
        up = seconds > self.value_s
        self.value_s *= math.exp(step * (_QUANTILE if up else _QUANTILE - 1.0))


def had_enough_time(seconds: float, own: UsualTime, fleet: Iterable[UsualTime]) -> bool:
    """Return whether an attempt given up after `seconds` says something against its endpoint.

    It does if it had at least twice the time in which nine in ten good answers come: from this endpoint or
    from the median endpoint of the fleet, whichever is faster, so that an endpoint that became slow is not
    excused by being slow. Where nothing is known yet, any time is enough.
    """
    known = sorted(usual.value_s for usual in fleet if usual.count >= LEAST)
    if not known:
        return True
    usual_s = known[(len(known) - 1) // 2]
    if own.count >= LEAST:
        usual_s = min(usual_s, own.value_s)
    return seconds >= ENOUGH * usual_s
