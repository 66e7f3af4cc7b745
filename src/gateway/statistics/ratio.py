"""Evidence about the ratio of two rates of bad events: is the canary's more than `most` times stable's?

Given that an event happened, it is the canary's with probability share * m / (share * m + 1 - share) when its
rate is m times stable's, whatever stable's rate is and however it changes from window to window; `share` is
the canary's part of the units in the window. (The conditional binomial test; for rates of Poisson processes
see Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022.)

It holds for independent units exactly, not only where bad events are rare. With n canary and N stable units,
and factors f and g for a bad event of either,
    E[factor] = (1 + p (f - 1))^n (1 + q (g - 1))^N <= exp(n p (f - 1) + N q (g - 1)),
and the exponent is 0 at p = m q by the choice of f and g, and below 0 for p < m q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.statistics.mixture import ABOVE, BELOW, observe

if TYPE_CHECKING:
    from gateway.statistics.mixture import EProcess


@dataclass(frozen=True, slots=True)
class Window:
    """What two arms did in the same time.

    Attributes:
        canary_units: units that the canary served.
        canary_events: of those, bad ones.
        stable_units: units that stable served.
        stable_events: of those, bad ones.
    """

    canary_units: float = 0
    canary_events: float = 0
    stable_units: float = 0
    stable_events: float = 0


def above(process: EProcess, window: Window, most: float, together: float = 1.0) -> EProcess:
    """Add a window to the evidence that the canary's rate is more than `most` times stable's.

    A window in which either arm served nothing says nothing. When a window ends must not depend on its
    events; it may depend on the units.
    """
    return _add(process, window, (most, ABOVE), together)


def below(process: EProcess, window: Window, least: float, together: float = 1.0) -> EProcess:
    """Add a window to the evidence that the canary's rate is less than `least` times stable's."""
    return _add(process, window, (least, BELOW), together)


def share(window: Window, ratio: float) -> float:
    """Return the probability that a bad event is the canary's when its rate is `ratio` times stable's."""
    canary = window.canary_units * ratio
    return canary / (canary + window.stable_units)


def _add(
    process: EProcess, window: Window, null: tuple[float, tuple[float, ...]], together: float
) -> EProcess:
    edge, ratios = null
    if window.canary_units <= 0 or window.stable_units <= 0:
        return process
    outcomes = (window.canary_events, window.stable_events)
    return observe(process, outcomes, share(window, edge), ratios, together)
