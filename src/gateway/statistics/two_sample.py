"""Tests of whether a window's histogram comes from the reference's distribution.

The statistics of `distances` with the nulls of `nulls`, for all signals at once. Each takes weighted counts
`[signals, bins]` and effective rows; none looks at a value itself, so counts of many gateways may be added
first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.special import ndtri  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.statistics import distances, nulls

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

BINS: Final = 10
"""Bins that PSI, Jensen-Shannon and chi-square compare numbers by: what their usual bounds are for, and more
make a shift harder to see among the noise."""
LEAST_EXPECTED: Final = 5.0
"""Rows that a bin is expected to hold at least (Cochran's rule for chi-square, 1954)."""

_GOLDEN: Final = (5**0.5 - 1) / 2

RARE: Final = 20.0
"""Rows of the reference below which a category is not looked at by itself."""

LEAST_ROWS: Final[dict[str, int]] = {
    "psi": 50,
    "js": 50,
    "ks": 30,
    "wasserstein": 50,
    "chi2": 30,
    "mmd": 50,
    "missing": 1,
    "type": 1,
    "range": 1,
    "novel": 1,
}
"""Effective rows of both samples from which on each test keeps its level: with fewer, do not test."""

FLOORS: Final[dict[str, float]] = {
    "psi": 0.1,
    "js": 0.1,
    "ks": 0.1,
    "wasserstein": 0.1,
    "chi2": 0.1,
    "mmd": 0.01,
    "missing": 0.01,
    "type": 0.0,
    "range": 0.01,
    "novel": 0.01,
}
"""Default effects that are too small to be called drift, however certain: distances as they are,
`wasserstein` in deviations of the reference, `chi2` as Cohen's w, `mmd` squared, rates as their increase."""


@dataclass(frozen=True, slots=True)
class Tested:
    """One statistic of every signal; arrays are `[signals]`.

    Attributes:
        value: of the statistic; NaN where a sample is empty.
        p_value: chance of at least that without any change; NaN likewise.
        critical: value that is exceeded with chance alpha.
        effect: what is held against the floor: mostly `value` itself.
    """

    value: Floats
    p_value: Floats
    critical: Floats
    effect: Floats


@dataclass(frozen=True, slots=True)
class Sizes:
    """Effective rows of both samples, `[signals]` each."""

    rows: Floats
    reference_rows: Floats


def psi(reference: Floats, current: Floats, sizes: Sizes, alpha: float, bins: int = BINS) -> Tested:
    """Test by the population stability index over at most `bins` bins.

    Args:
        reference: `[signals, bins]`, weighted counts.
        current: likewise.
        sizes: effective rows.
        alpha: of `critical`.
        bins: to compare by.
    """
    old, new = _coarse(reference, current, sizes, bins)
    used = distances.bins(old, new)
    value = distances.psi(old, new)
    p_value = nulls.psi_p_value(value, used, sizes.rows, sizes.reference_rows)
    critical = nulls.psi_critical(alpha, used, sizes.rows, sizes.reference_rows)
    return Tested(value, p_value, critical, value)


def jensen_shannon(
    reference: Floats, current: Floats, sizes: Sizes, alpha: float, bins: int = BINS
) -> Tested:
    """Test by the Jensen-Shannon distance over at most `bins` bins; arguments as for `psi`."""
    old, new = _coarse(reference, current, sizes, bins)
    used = distances.bins(old, new)
    value = distances.jensen_shannon(old, new)
    p_value = nulls.jensen_shannon_p_value(value, used, sizes.rows, sizes.reference_rows)
    critical = nulls.jensen_shannon_critical(alpha, used, sizes.rows, sizes.reference_rows)
    return Tested(value, p_value, critical, value)


def chi_square(reference: Floats, current: Floats, sizes: Sizes, alpha: float, bins: int = BINS) -> Tested:
    """Test by Pearson's chi-square of the 2 x bins table; arguments as for `psi`; 256 bins for categories."""
    old, new = _coarse(reference, current, sizes, bins)
    moments = nulls.chi_square_moments(old, new)
    value = distances.chi_square(old, new)
    p_value = np.where(np.isnan(value), np.nan, nulls.chi_square_p_value(value, moments))
    effect = distances.cohens_w(value, sizes.rows, sizes.reference_rows)
    return Tested(value, p_value, nulls.chi_square_critical(alpha, moments), effect)


def ks(reference: Floats, current: Floats, sizes: Sizes, alpha: float, error: Floats | float = 0.0) -> Tested:
    """Test by the greatest difference of the distribution functions over all bins.

    Args:
        reference: `[signals, bins]`, weighted counts.
        current: likewise.
        sizes: effective rows.
        alpha: of `critical`.
        error: rank error of sketches that the counts were read from, of both together; 0 for real counts.
    """
    value = distances.ks_grid(reference, current)
    p_value = nulls.ks_p_value(value, sizes.rows, sizes.reference_rows, error)
    critical = nulls.ks_critical(alpha, sizes.rows, sizes.reference_rows, error)
    return Tested(value, p_value, critical, value)


def wasserstein(gaps: Floats, reference: Floats, current: Floats, sizes: Sizes, alpha: float) -> Tested:
    """Test by the earth mover's distance over all bins.

    Args:
        gaps: `[signals, bins - 1]` of `distances.widths`, over the reference's deviation: the value is in it.
        reference: `[signals, bins]`, weighted counts.
        current: likewise.
        sizes: effective rows.
        alpha: of `critical`.
    """
    old = distances.effective(reference, sizes.reference_rows)
    new = distances.effective(current, sizes.rows)
    value = distances.wasserstein_grid(gaps, old, new)
    moments = nulls.wasserstein_moments(gaps, old + new)
    p_value = nulls.wasserstein_p_value(value, moments, sizes.rows, sizes.reference_rows)
    critical = nulls.wasserstein_critical(alpha, moments, sizes.rows, sizes.reference_rows)
    return Tested(value, p_value, critical, value)


def mixed(reference: Floats, current: Floats) -> tuple[Floats, Floats]:
    """Put categories, the most frequent first, in an order in which neighbours may be merged.

    A reference counts its frequent categories a little too high and those it hardly saw too low, unseen ones
    the most (Good 1953): bins of neighbours by frequency would differ from any other sample. Categories below
    `RARE` rows are counted with the unseen ones, which leaves of that bias what `RARE` rows times the number
    of categories of just so many make; the others are strewn.

    Args:
        reference: `[signals, categories + 1]`, the last of all others.
        current: likewise.
    """
    known = reference.shape[-1] - 1
    order = np.argsort(np.arange(known) * _GOLDEN % 1.0)
    rare = reference[..., :-1] < RARE
    made = []
    for counts in (reference, current):
        kept = np.where(rare, 0.0, counts[..., :-1])[..., order]
        others = counts[..., -1] + np.where(rare, counts[..., :-1], 0.0).sum(axis=-1)
        made.append(np.concatenate([kept, others[..., None]], axis=-1))
    return made[0], made[1]


def unseen(reference: Floats) -> Floats:
    """Return how many reference rows stand for categories not seen so far, rounded up by a deviation.

    Each category seen once would have been unseen without its row (Good 1953): it counts with those outside
    the dictionary, or a window's share of values new to everybody would look like a rise from nothing.

    Args:
        reference: `[signals, categories + 1]`, the last of those outside the dictionary.
    """
    once = (reference[..., :-1] == 1).sum(axis=-1)
    result: Floats = reference[..., -1] + np.ceil(once + np.sqrt(2 * once))
    return result


def rate(events: Floats, reference_events: Floats, sizes: Sizes, alpha: float) -> Tested:
    """Test whether a rate of bad values (missing, novel, of another type, out of range) has gone up.

    Args:
        events: `[signals]`, effective rows of the window that were bad.
        reference_events: likewise of the reference.
        sizes: effective rows, bad ones included.
        alpha: of `critical`, a rate.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        value = events / sizes.rows
        before = reference_events / sizes.reference_rows
    p_value = nulls.rate_p_value(events, sizes.rows, reference_events, sizes.reference_rows)
    spread = np.sqrt(np.maximum(before * (1 - before), 1e-12) * nulls.noise(sizes.rows, sizes.reference_rows))
    critical = np.minimum(before + spread * -float(ndtri(alpha)), 1.0)
    return Tested(value, p_value, critical, value - before)


def _coarse(reference: Floats, current: Floats, sizes: Sizes, bins: int) -> tuple[Floats, Floats]:
    old = distances.effective(reference, sizes.reference_rows)
    new = distances.effective(current, sizes.rows)
    smaller = np.minimum(sizes.rows, sizes.reference_rows)
    return distances.coarsened(old, new, smaller, least=LEAST_EXPECTED, most=bins)
