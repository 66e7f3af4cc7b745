"""Weighted rates and means with their intervals: what metrics are made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.performance.results import Metric
from gateway.statistics import intervals

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

UNDEFINED: Final = Metric(math.nan, math.nan, math.nan, math.nan, 0.0)


def effective(weights: Floats) -> float:
    """Return how many equally weighted rows say as much: (sum w)^2 / sum w^2."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def rate(events: Bools, among: Bools, weights: Floats, level: float) -> Metric:
    """Return the weighted share of `events` in `among`, with Wilson's interval."""
    part = weights[among]
    rows = effective(part)
    if not rows:
        return UNDEFINED
    value = float(weights[among & events].sum() / part.sum())
    low, high = intervals.wilson(value * rows, rows, level)
    return Metric(value, low, high, math.sqrt(max(value * (1 - value), 0.0) / rows), rows)


def mean(values: Floats, weights: Floats, level: float) -> Metric:
    """Return the weighted mean, with Student's interval."""
    rows = effective(weights)
    if not rows:
        return UNDEFINED
    value = float(np.average(values, weights=weights))
    variance = float(np.average((values - value) ** 2, weights=weights)) * rows / max(rows - 1, 1e-9)
    if rows < 2:
        return Metric(value, math.nan, math.nan, math.nan, rows)
    low, high = intervals.mean(value, variance, rows, level)
    return Metric(value, low, high, math.sqrt(variance / rows), rows)


def linear(value: float, influence: Floats, weights: Floats, level: float) -> Metric:
    """Return a smooth function of means with the interval of its linearisation.

    Args:
        value: the metric.
        influence: of each row on it: what the metric changes by as the row's share grows.
        weights: of the rows.
        level: of confidence.
    """
    at_zero = mean(influence, weights, level)
    if math.isnan(at_zero.error) or math.isnan(value):
        return Metric(value, math.nan, math.nan, math.nan, at_zero.rows)
    half = (at_zero.high - at_zero.low) / 2
    return Metric(value, value - half, value + half, at_zero.error, at_zero.rows)


def at_level(metric: Metric, level: float, *, unit: bool) -> tuple[float, float]:
    """Return a metric's interval at another level, from its error; Wilson's for rates."""
    if math.isnan(metric.error) or math.isnan(metric.value):
        return -math.inf, math.inf
    if unit and 0 <= metric.value <= 1:
        spread = metric.value * (1 - metric.value)
        rows = spread / metric.error**2 if metric.error > 0 and spread > 0 else metric.rows
        return intervals.wilson(metric.value * rows, rows, level)
    return intervals.mean(metric.value, metric.error**2 * metric.rows, metric.rows, level)
