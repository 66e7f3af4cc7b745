"""How much bad events come together: when a batch fails, all of its requests do.

Events that come in groups of k make evidence as if there were k times as many. Pearson's index of dispersion,
the variance of the counts per window over what independent events would have, estimates that, and evidence is
divided by it: a likelihood ratio to the power 1/k, which for groups of k is that of the groups.

This costs no validity where events are independent: for an index of at least 1 that is known before the
window, E[L ** (1/index)] <= E[L] ** (1/index) <= 1 by Jensen's inequality. The window itself may raise it
where L > 1, since that makes L ** (1/index) smaller still; so the first group, too, counts for little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PRIOR: Final = 5.0
"""Events whose independence is taken for granted at the beginning."""


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
        rate = arm.events / arm.units if arm.units else 0.0
        about = arm.events_squared - 2 * rate * arm.products + rate * rate * arm.units_squared
        variance += max(about, 0.0)
        expected += arm.events
    return max(variance / expected, 1.0)
