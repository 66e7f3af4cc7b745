"""Metrics of predicted numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gateway.monitor.performance.results import Metric
from gateway.monitor.performance.weighted import linear, mean
from gateway.statistics import intervals

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def regression(truth: Floats, scores: Floats, weights: Floats, level: float) -> dict[str, Metric]:
    """Return MAE, RMSE, R2 and bias (mean of predicted less true)."""
    errors = scores - truth
    square = mean(errors**2, weights, level)
    root = math.sqrt(square.value)
    low, high = intervals.root((square.low, square.high))
    deviation = square.error / (2 * root) if root else square.error
    spread = (truth - np.average(truth, weights=weights)) ** 2
    variance = float(np.average(spread, weights=weights))
    found = {
        "mae": mean(np.abs(errors), weights, level),
        "rmse": Metric(root, low, high, deviation, square.rows),
        "bias": mean(errors, weights, level),
    }
    if variance > 0:
        influence = (square.value / variance * spread - errors**2) / variance
        found["r2"] = linear(1 - square.value / variance, influence, weights, level)
    return found
