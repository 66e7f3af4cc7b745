"""Many tests at once and again and again: which of them to believe, and how often an alarm may be false."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

FALSE_DISCOVERIES: Final = 0.01
"""Default share of false ones among what is called drift in a window."""


def adjusted(p_values: Floats) -> Floats:
    """Return Benjamini and Hochberg's adjusted p-values (1995), `[tests]`; NaN is no test and stays NaN.

    The share of false ones among the tests with an adjusted value of at most q is at most q, for tests that
    are independent or depend positively on each other (Benjamini and Yekutieli 2001). Where nothing has
    changed at all, that is the chance of any alarm in the window.
    """
    flat = np.asarray(p_values, float)
    result = np.full(flat.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(flat))
    order = tested[np.argsort(flat[tested], kind="stable")]
    scaled = flat[order] * len(order) / np.arange(1, len(order) + 1)
    result[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return result


def benjamini_hochberg(p_values: Floats, q: float = FALSE_DISCOVERIES) -> npt.NDArray[np.bool_]:
    """Return which tests to reject at false discovery rate q, `[tests]`; never one that is NaN."""
    with np.errstate(invalid="ignore"):
        result: npt.NDArray[np.bool_] = adjusted(p_values) <= q
    return result


@dataclass(frozen=True, slots=True)
class Persistence:
    """An alarm that goes on when m of the last n windows say so, and off when none of the last `calm` does.

    Attributes:
        m: windows that must say so, 1 to n.
        n: windows looked at.
        calm: windows in a row without a finding that end the alarm; at least 1.
    """

    m: int = 2
    n: int = 3
    calm: int = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """What the last windows said.

    Attributes:
        recent: of at most max(n, calm) windows, the latest last.
        on: the alarm stands.
    """

    recent: tuple[bool, ...] = ()
    on: bool = False


def persist(standing: Standing, found: bool, rule: Persistence) -> Standing:
    """Add a window's finding. A window that could not be tested is not added: it says nothing."""
    recent = (*standing.recent, found)[-max(rule.n, rule.calm) :]
    if standing.on:
        calm = len(recent) >= rule.calm and not any(recent[-rule.calm :])
        return Standing(recent, on=not calm)
    return Standing(recent, on=sum(recent[-rule.n :]) >= rule.m)


def false_alarms(alpha: float, rule: Persistence, windows: float) -> float:
    """Return an upper bound of the alarms expected in so many independent windows without any change.

    An alarm begins in a window with a finding that has at least m - 1 others among the n - 1 before it.

    Args:
        alpha: chance of a finding in one window.
        rule: how findings make an alarm.
        windows: how many are looked at.
    """
    others = math.fsum(
        math.comb(rule.n - 1, k) * alpha**k * (1 - alpha) ** (rule.n - 1 - k)
        for k in range(rule.m - 1, rule.n)
    )
    return windows * alpha * others


def level_for_budget(false: float, rule: Persistence, windows: float) -> float:
    """Return the chance of a finding per window at which at most so many false alarms are expected.

    Args:
        false: alarms that may be false in all these windows, as 1 in 90 days.
        rule: how findings make an alarm.
        windows: independent ones in that time: sliding windows that overlap count as often as they are
            disjoint.
    """
    low, high = 1e-12, 1.0
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if false_alarms(middle, rule, windows) <= false else (low, middle)
    return low
