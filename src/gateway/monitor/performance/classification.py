"""Metrics of classifiers: by predicted class, by score, and of the score as a probability."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.monitor.performance.results import Bin, Metric
from gateway.monitor.performance.weighted import UNDEFINED, effective, mean, rate
from gateway.statistics import binary, intervals, isotonic

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

BINS: Final = 10
"""Of a reliability diagram, equally wide."""

_LEAST: Final = float(np.finfo(np.float64).eps)
"""Probabilities are kept so far from 0 and 1 before their logarithm is taken."""


def by_class(truth: Bools, predicted: Bools, weights: Floats, level: float) -> dict[str, Metric]:
    """Return accuracy, precision, recall, specificity, balanced accuracy and F1 of the positive class."""
    everything = np.ones(len(truth), np.bool_)
    recall = rate(predicted, truth, weights, level)
    specificity = rate(~predicted, ~truth, weights, level)
    return {
        "accuracy": rate(truth == predicted, everything, weights, level),
        "precision": rate(truth, predicted, weights, level),
        "recall": recall,
        "specificity": specificity,
        "balanced_accuracy": average([recall, specificity], level),
        "f1": f1(truth, predicted, weights, level),
    }


def f1(truth: Bools, predicted: Bools, weights: Floats, level: float) -> Metric:
    """Return F1; its interval is Wilson's of the monotone tp / (tp + fp + fn)."""
    jaccard = rate(truth & predicted, truth | predicted, weights, level)
    if math.isnan(jaccard.value):
        return UNDEFINED
    value, low, high = (2 * x / (1 + x) for x in (jaccard.value, jaccard.low, jaccard.high))
    return Metric(value, low, high, jaccard.error * 2 / (1 + jaccard.value) ** 2, effective(weights))


def area(truth: Bools, scores: Floats, weights: Floats, level: float) -> Metric:
    """Return the area under the ROC curve, with DeLong's variance on the logit scale."""
    above, below = weights * truth, weights * ~truth
    value = binary.auc(scores, above, below)
    sizes = effective(weights[truth]), effective(weights[~truth])
    variance = binary.auc_variance(scores, above, below, sizes)
    low, high = intervals.area(value, variance, level)
    if value in {0.0, 1.0}:
        # No variance is seen there: as certain as a share of the smaller class is.
        low, high = intervals.wilson(value * min(sizes), min(sizes), level)
    return Metric(value, low, high, math.sqrt(variance) if variance >= 0 else math.nan, effective(weights))


def probabilistic(truth: Bools, scores: Floats, weights: Floats, level: float) -> dict[str, Metric]:
    """Return log loss, Brier score and expected calibration error; nothing if a score is no probability."""
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return {}
    clipped = np.clip(scores, _LEAST, 1 - _LEAST)
    losses = -np.where(truth, np.log(clipped), np.log1p(-clipped))
    return {
        "log_loss": mean(losses, weights, level),
        "brier": mean((scores - truth) ** 2, weights, level),
        "ece": calibration_error(truth, scores, weights, level),
    }


def calibration_error(truth: Bools, scores: Floats, weights: Floats, level: float) -> Metric:
    """Return the expected calibration error; its interval holds at least as often as `level` says.

    It is the least and the greatest error that exact intervals of the bins' rates allow (Clopper and Pearson
    1934), all of which hold together (Bonferroni). The value itself is too high by chance where bins have few
    rows, so there is no standard error, and nothing is judged by it.
    """
    value = isotonic.expected_calibration_error(scores, weights * truth, weights, BINS)
    place = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    size = np.bincount(place, weights, BINS)
    used = size > 0
    total, size = float(size.sum()), size[used]
    if not total:
        return UNDEFINED
    score, rate_ = (np.bincount(place, weights * x, BINS)[used] / size for x in (scores, truth))
    rows = size**2 / np.bincount(place, weights**2, BINS)[used]
    tail = (1 - level) / 2 / BINS
    events = np.clip(rate_, 0.0, 1.0) * rows
    lows = np.where(events > 0, special.betaincinv(np.maximum(events, 1e-9), rows - events + 1, tail), 0.0)
    highs = special.betaincinv(events + 1, np.maximum(rows - events, 1e-9), 1 - tail)
    highs = np.where(events < rows, highs, 1.0)
    low = float(size @ np.maximum(np.maximum(lows - score, score - highs), 0.0)) / total
    high = float(size @ np.maximum(highs - score, score - lows)) / total
    return Metric(value, low, high, math.nan, effective(weights))


def reliability(truth: Bools, scores: Floats, weights: Floats, level: float) -> tuple[Bin, ...]:
    """Return the share of positives by tenths of the score; bins without rows are left out."""
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return ()
    place = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    bins = []
    for at in np.unique(place).tolist():
        chosen = place == at
        found = rate(truth, chosen, weights, level)
        score = float(np.average(scores[chosen], weights=weights[chosen]))
        bins.append(Bin(score, found.value, found.low, found.high, float(weights[chosen].sum())))
    return tuple(bins)


def multiclass(
    truth: Ints, predicted: Ints, scores: Floats, weights: Floats, level: float
) -> dict[str, Metric]:
    """Return accuracy, and means over classes of precision, recall, F1 and area (one against the rest).

    Args:
        truth: `[rows]`, class indexes.
        predicted: likewise.
        scores: `[rows, classes]`, NaN where there are none.
        weights: `[rows]`.
        level: of confidence. Intervals of means take the classes' errors as independent.
    """
    everything = np.ones(len(truth), np.bool_)
    present = np.union1d(truth, predicted).tolist()
    each = [by_class(truth == c, predicted == c, weights, level) for c in present if c >= 0]
    found = {"accuracy": rate(truth == predicted, everything, weights, level)}
    for name in ("precision", "recall", "f1"):
        found[name] = average([_zero(one[name]) for one in each], level)
    if np.isfinite(scores).all() and scores.shape[1] > 1:
        areas = [area(truth == c, scores[:, c], weights, level) for c in range(scores.shape[1])]
        found["roc_auc"] = average([a for a in areas if not math.isnan(a.value)], level)
        if scores.min() >= 0 and scores.max() <= 1:
            own = scores[np.arange(len(truth)), truth] / scores.sum(axis=1)
            found["log_loss"] = mean(-np.log(np.clip(own, _LEAST, 1.0)), weights, level)
    return found


def average(metrics: Sequence[Metric], level: float) -> Metric:
    """Return the mean of independent metrics."""
    if not metrics:
        return UNDEFINED
    value = math.fsum(m.value for m in metrics) / len(metrics)
    error = math.sqrt(math.fsum(m.error**2 for m in metrics)) / len(metrics)
    rows = max(m.rows for m in metrics)
    if math.isnan(value) or math.isnan(error):
        return Metric(value, math.nan, math.nan, math.nan, rows)
    low, high = intervals.mean(value, error**2 * rows, rows, level)
    return Metric(value, max(low, 0.0), min(high, 1.0), error, rows)


def confusion(truth: Ints, predicted: Ints, weights: Floats, count: int) -> tuple[tuple[float, ...], ...]:
    """Return sums of weights, `[label][prediction]`."""
    known = predicted >= 0
    cells = np.bincount(truth[known] * count + predicted[known], weights[known], count * count)
    return tuple(tuple(row) for row in cells.reshape(count, count).tolist())


def _zero(metric: Metric) -> Metric:
    return Metric(0.0, 0.0, 0.0, 0.0, metric.rows) if math.isnan(metric.value) else metric
