"""How much bad events come together: when a batch fails, all of its requests do.

Events that come in groups of k make evidence as if there were k times as many. Pearson's index of dispersion,
the variance of the counts per window over what independent events would have, estimates that, and evidence is
taken to the power 1/index, which for groups of k is that of the groups.

This costs no validity where events are independent (`mixture.log_e`). Where they are not, it is an estimate:
the first groups of a step come when little is known about them. So a window is held against the rate of the
others, not one that its own events have made, and until there are enough others all events of a window count
as one group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PRIOR: Final = 5.0
"""Events whose independence is taken for granted at the beginning."""
WINDOWS: Final = 3.0
"""Windows of equal size from which on each can be held against the others."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Sums over the windows of one arm.

    Attributes:
        units: of all windows.
        events: likewise.
        units_squared: sum of their squares.
        events_squared: likewise.
        products: sum of units times events.
    """

    units: float = 0.0
    events: float = 0.0
    units_squared: float = 0.0
    events_squared: float = 0.0
    products: float = 0.0


def add(spread: Spread, units: float, events: float) -> Spread:
    """Add a window."""
    return Spread(
        spread.units + units,
        spread.events + events,
        spread.units_squared + units * units,
        spread.events_squared + events * events,
        spread.products + units * events,
    )


def index(*arms: Spread) -> float:
    """Return the index of dispersion of the arms together, each about its own rate; at least 1."""
    variance = expected = PRIOR
    for arm in arms:
        variance += _about_the_others(arm)
        expected += arm.events
    return max(variance / expected, 1.0)


def _about_the_others(arm: Spread) -> float:
    """Return the sum over the windows of the squares of their events beyond what the others' rate makes."""
    windows = arm.units**2 / arm.units_squared if arm.units_squared else 0.0
    if windows < WINDOWS:
        return arm.events_squared
    rate = arm.events / arm.units
    about = arm.events_squared - 2 * rate * arm.products + rate * rate * arm.units_squared
    # Exact for windows of equal size. Rounding may leave less than nothing of it.
    return min(max(about, 0.0) * (windows / (windows - 1)) ** 2, arm.events_squared)
