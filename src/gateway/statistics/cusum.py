"""Cumulative sums (Page 1954): small lasting shifts of a mean, with a declared rate of false alarms."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cusum:
    """Both one-sided sums, in deviations of the mean that is watched.

    Attributes:
        above: evidence that it went up, at least 0.
        below: likewise down.
    """

    above: float = 0.0
    below: float = 0.0


def update(cusum: Cusum, z: float, slack: float = 0.5) -> Cusum:
    """Add a standardised mean; `slack` is half of the shift that should be found soonest."""
    return Cusum(max(cusum.above + z - slack, 0.0), max(cusum.below - z - slack, 0.0))


def run_length(height: float, slack: float = 0.5) -> float:
    """Return the mean number of windows between false alarms at this height, both sides together.

    Siegmund's approximation (1985) for independent normal means, within a few per cent.
    """
    edge = 2 * slack * (height + 1.166)
    one_side = (math.expm1(edge) - edge) / (2 * slack * slack)
    return one_side / 2


def height_for(windows: float, slack: float = 0.5) -> float:
    """Return the height at which a false alarm comes once in so many windows on average."""
    low, high = 0.0, 1.0
    while run_length(high, slack) < windows:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if run_length(middle, slack) < windows else (low, middle)
    return high
