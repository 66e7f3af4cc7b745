"""How far two histograms are apart: one value per signal, from counts alone.

Every function takes counts of two samples over the same bins, `[signals, bins]` or `[bins]`, float64, and
gives `[signals]` (0-d for one signal). Counts may be weighted; scale them to the effective number of rows
first (`effective`), for where a count is smoothed its size matters. Signals with fewer bins than the widest
are padded with zeros at the end: a bin that is empty in both samples is no bin. A sample without any row is
at distance NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

SMOOTHING: Final = 0.5
"""Rows added to every bin where a logarithm is taken: its bias is then of second order (Haldane 1956)."""


def effective(counts: Floats, rows: Floats | float) -> Floats:
    """Scale weighted counts to an effective number of rows.

    Args:
        counts: `[..., bins]`, sums of weights.
        rows: `[...]`, (sum of weights)^2 / sum of squared weights, by which tests must go.
    """
    total = counts.sum(axis=-1, keepdims=True)
    scale = np.divide(np.asarray(rows, float)[..., None], total, out=np.zeros_like(total), where=total > 0)
    result: Floats = counts * scale
    return result


def shares(counts: Floats) -> Floats:
    """Return counts over their sum along the last axis; NaN where that is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = counts / counts.sum(axis=-1, keepdims=True)
    return result


def psi(reference: Floats, current: Floats) -> Floats:
    """Return the population stability index, sum of (q - p) ln(q / p): Jeffreys' divergence, in nats.

    Both samples are smoothed by `SMOOTHING` rows per bin. 0.1 and 0.25 are credit scoring's conventional
    bounds for 10 bins (Siddiqi, "Credit Risk Scorecards", 2006); they know nothing of the number of rows.
    """
    p, q = _smoothed(reference, current)
    return _where_rows(reference, current, ((q - p) * (np.log(q) - np.log(p))).sum(axis=-1))


def jensen_shannon(reference: Floats, current: Floats) -> Floats:
    """Return the Jensen-Shannon distance: the root of the divergence in bits, 0 to 1. Not smoothed.

    A metric (Endres and Schindelin, "A new metric for probability distributions", 2003), the same number as
    `scipy.spatial.distance.jensenshannon(p, q, base=2)`.
    """
    p, q = shares(reference), shares(current)
    middle = (p + q) / 2
    divergence = (_relative(p, middle) + _relative(q, middle)) / (2 * np.log(2))
    result: Floats = np.sqrt(np.maximum(divergence, 0.0))
    return result


def hellinger(reference: Floats, current: Floats) -> Floats:
    """Return the Hellinger distance, 0 to 1. Not smoothed."""
    overlap = np.sqrt(shares(reference) * shares(current)).sum(axis=-1)
    result: Floats = np.sqrt(np.maximum(1 - overlap, 0.0))
    return result


def ks_grid(reference: Floats, current: Floats) -> Floats:
    """Return the greatest difference of the two distribution functions at the bins' upper edges.

    At most Kolmogorov and Smirnov's statistic of the values themselves, and below it by no more than the
    greatest share of a bin.
    """
    difference = np.cumsum(shares(reference) - shares(current), axis=-1)
    result: Floats = np.abs(difference).max(axis=-1)
    return result


def widths(edges: Floats, low: Floats, high: Floats) -> Floats:
    """Return the distance that stands between each bin and the next, for `wasserstein_grid`.

    A row is taken to lie in the middle of its bin; those of the open bins between the outermost edge and
    `low` or `high`. What lies beyond these is the tails' business, which are counted.

    Args:
        edges: `[signals, bins - 1]`, ascending; padded by repeating the last (its bins are empty).
        low: `[signals]`, where the first bin is taken to begin.
        high: `[signals]`, where the last one is taken to end.

    Returns:
        `[signals, bins - 1]`, at least 0.
    """
    first = np.minimum(low, edges[..., 0])[..., None]
    last = np.maximum(high, edges[..., -1])[..., None]
    bounds = np.concatenate([first, edges, last], axis=-1)
    middles = (bounds[..., 1:] + bounds[..., :-1]) / 2
    result: Floats = np.maximum(np.diff(middles, axis=-1), 0.0)
    return result


def wasserstein_grid(gaps: Floats, reference: Floats, current: Floats) -> Floats:
    """Return the earth mover's distance of order 1, in the unit of `gaps`.

    Args:
        gaps: `[signals, bins - 1]` of `widths`; ones for ranks.
        reference: counts.
        current: counts.
    """
    difference = np.cumsum(shares(reference) - shares(current), axis=-1)[..., :-1]
    result: Floats = (np.abs(difference) * gaps).sum(axis=-1)
    return result


def chi_square(reference: Floats, current: Floats) -> Floats:
    """Return Pearson's statistic of the 2 x bins table: both have noise. NaN where either is empty."""
    n, m = current.sum(axis=-1, keepdims=True), reference.sum(axis=-1, keepdims=True)
    pooled = reference + current
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = np.where(pooled > 0, (current * m - reference * n) ** 2 / pooled, 0.0)
        result: Floats = terms.sum(axis=-1) / (n * m)[..., 0]
    return result


def cohens_w(statistic: Floats, rows: Floats, reference_rows: Floats) -> Floats:
    """Return the effect that a `chi_square` statistic of two samples stands for, whatever their sizes.

    The root of chi-square times (1/n + 1/m); 0.1 is called small, 0.3 medium, 0.5 large (Cohen 1988).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.sqrt(statistic * (1 / rows + 1 / reference_rows))
    return result


def total_variation(reference: Floats, current: Floats) -> Floats:
    """Return half the sum of the absolute differences of shares: the part of the rows that moved, 0 to 1."""
    result: Floats = np.abs(shares(reference) - shares(current)).sum(axis=-1) / 2
    return result


def coarsened(
    reference: Floats, current: Floats, rows: Floats | float, *, least: float, most: int
) -> tuple[Floats, Floats]:
    """Merge neighbouring bins until each is expected to hold enough rows.

    Which bins are merged depends on the reference and the number of rows, never on where the current rows
    lie: the level of a test afterwards is not changed by it.

    Args:
        reference: `[signals, bins]`.
        current: `[signals, bins]`.
        rows: `[signals]` or one number: effective rows of the smaller sample.
        least: expected rows of a bin at least.
        most: bins at most; a bin that holds more than its share takes room from no other.

    Returns:
        Both samples over the same coarser bins, padded with zeros at the end.
    """
    reference, current = np.atleast_2d(reference), np.atleast_2d(current)
    part = np.nan_to_num(shares(reference))
    target = np.maximum(least / np.maximum(np.asarray(rows, float), 1e-9), 1 / most)
    target = np.broadcast_to(target, part.shape[:1])
    group = np.zeros(part.shape, np.intp)
    filled = np.zeros(len(part))
    index = np.zeros(len(part), np.intp)
    for bin_ in range(part.shape[1]):
        group[:, bin_] = index
        filled = filled + part[:, bin_]
        full = filled >= target * (1 - 1e-9)
        index = index + full
        filled = np.where(full, 0.0, filled)
    # What is left over at the end is too little for a bin of its own.
    group = np.minimum(group, np.maximum(index - 1, 0)[:, None])
    signal = np.broadcast_to(np.arange(len(part))[:, None], part.shape)
    shape = (len(part), int(group.max(initial=0)) + 1)
    merged = []
    for counts in (reference, current):
        into = np.zeros(shape)
        np.add.at(into, (signal, group), counts)
        merged.append(into)
    return merged[0], merged[1]


def bins(reference: Floats, current: Floats) -> Floats:
    """Return how many bins are not empty in both samples, `[signals]`."""
    result: Floats = ((reference + current) > 0).sum(axis=-1).astype(float)
    return result


def _smoothed(reference: Floats, current: Floats) -> tuple[Floats, Floats]:
    used = (reference + current) > 0
    p, q = (np.where(used, counts + SMOOTHING, 0.0) for counts in (reference, current))
    tiny = np.finfo(float).tiny
    p, q = (np.where(used, shares(counts), tiny) for counts in (p, q))
    return p, q


def _relative(p: Floats, q: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.where(p > 0, p * np.log(p / q), p).sum(axis=-1)
    return result


def _where_rows(reference: Floats, current: Floats, value: Floats) -> Floats:
    some = (reference.sum(axis=-1) > 0) & (current.sum(axis=-1) > 0)
    return np.where(some, value, np.nan)
