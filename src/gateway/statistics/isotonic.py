"""Calibration of scores: the monotone map from score to probability, from counts by distinct score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import isotonic_regression  # type: ignore[import-untyped]  # SciPy ships no types

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def fit(scores: Floats, positives: Floats, weights: Floats) -> Floats:
    """Return the calibration, `[2, k]`: scores, ascending and distinct, and the probability at each.

    Least squares under monotonicity, by pooling adjacent violators. Between its scores the map is linear and
    beyond them constant; inner scores of a flat part are left out, so k is at most twice the number of steps.

    Args:
        scores: `[bins]`; need not be sorted or distinct.
        positives: `[bins]`, weighted rows of the positive class.
        weights: `[bins]`, weighted rows; bins without any are left out.

    Raises:
        ValueError: There is no row.
    """
    some = weights > 0
    if not some.any():
        raise ValueError("a calibration needs at least one row with a label")
    distinct, index = np.unique(scores[some], return_inverse=True)
    total = np.bincount(index, weights[some])
    share = np.bincount(index, positives[some]) / total
    level = np.clip(isotonic_regression(share, weights=total, increasing=True).x, 0.0, 1.0)
    keep = np.ones(len(level), bool)
    keep[1:-1] = (level[1:-1] != level[:-2]) | (level[1:-1] != level[2:])
    return np.stack([distinct[keep], level[keep]])


def apply(calibration: Floats, scores: Floats) -> Floats:
    """Return calibrated probabilities of scores of any shape."""
    result: Floats = np.interp(scores, calibration[0], calibration[1])
    return result


def expected_calibration_error(scores: Floats, positives: Floats, weights: Floats, bins: int = 10) -> float:
    """Return the mean distance of score and observed rate over bins of equal width, weighted by rows.

    (Naeini et al. 2015.) NaN without any row.

    Args:
        scores: `[k]`, probabilities.
        positives: `[k]`, weighted rows of the positive class.
        weights: `[k]`, weighted rows.
        bins: over 0 to 1.
    """
    total = weights.sum()
    if not total > 0:
        return float("nan")
    index = np.clip((scores * bins).astype(int), 0, bins - 1)
    gap = np.bincount(index, weights * scores, bins) - np.bincount(index, positives, bins)
    return float(np.abs(gap).sum() / total)
