"""Intervals of metrics from counts. All are for one look; for looking again and again see `sequences`."""

from __future__ import annotations

import math

from scipy import special  # type: ignore[import-untyped]  # SciPy ships no types

Interval = tuple[float, float]
"""Lower and upper end."""

NOTHING: Interval = (math.nan, math.nan)


def wilson(events: float, rows: float, level: float = 0.95) -> Interval:
    """Return Wilson's score interval (1927) of a rate: accuracy, precision, recall, a group's rate.

    Args:
        events: effective ones, 0 to `rows`.
        rows: effective rows; without any the interval is 0 to 1.
        level: of confidence.
    """
    if rows <= 0:
        return 0.0, 1.0
    z = _quantile(level)
    share, square = events / rows, z * z / rows
    centre = (share + square / 2) / (1 + square)
    half = z * math.sqrt(max(share * (1 - share), 0.0) / rows + square / (4 * rows)) / (1 + square)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def f1(tp: float, fp: float, fn: float, level: float = 0.95) -> Interval:
    """Return an interval of F1: Wilson's of tp / (tp + fp + fn), of which F1 is a monotone function."""
    low, high = wilson(tp, tp + fp + fn, level)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def area(value: float, variance: float, level: float = 0.95) -> Interval:
    """Return an interval of a ROC area from its variance (`binary.auc_variance`), on the logit scale."""
    if math.isnan(value) or math.isnan(variance):
        return NOTHING
    if not 0 < value < 1:
        return value, value
    half = _quantile(level) * math.sqrt(variance) / (value * (1 - value))
    middle = math.log(value / (1 - value))
    return float(special.expit(middle - half)), float(special.expit(middle + half))


def mean(value: float, variance: float, rows: float, level: float = 0.95) -> Interval:
    """Return Student's interval of a mean: regression errors, ranking gains.

    Args:
        value: the mean.
        variance: of a single value.
        rows: effective rows; fewer than 2 say nothing.
        level: of confidence.
    """
    if rows < 2:
        return -math.inf, math.inf
    half = float(special.stdtrit(rows - 1, (1 + level) / 2)) * math.sqrt(max(variance, 0.0) / rows)
    return value - half, value + half


def root(interval: Interval) -> Interval:
    """Return the interval of a root (RMSE) from that of the mean square."""
    return math.sqrt(max(interval[0], 0.0)), math.sqrt(max(interval[1], 0.0))


def difference(first: tuple[float, float], second: tuple[float, float], level: float = 0.95) -> Interval:
    """Return Newcombe's interval (1998) of first rate less second: gaps between groups.

    Args:
        first: effective events and rows.
        second: likewise.
        level: of confidence.
    """
    if first[1] <= 0 or second[1] <= 0:
        return -1.0, 1.0
    p, q = first[0] / first[1], second[0] / second[1]
    (low, high), (other_low, other_high) = wilson(*first, level), wilson(*second, level)
    return (
        p - q - math.hypot(p - low, other_high - q),
        p - q + math.hypot(high - p, q - other_low),
    )


def _quantile(level: float) -> float:
    return float(special.ndtri((1 + level) / 2))
