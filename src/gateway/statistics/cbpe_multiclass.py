"""Performance without labels over several classes: CBPE of each class against the rest, averaged.

The scores of each class are calibrated by themselves and then divided by their sum, so that a row's
probabilities say how likely each class is (NannyML's multiclass CBPE; `cbpe` names the paper). A class's
expected ROC curve goes by the model's own score of it: after the division the probability no longer rises
with it. Rows of one score count half against each other, in whatever order they come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.statistics import isotonic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

METRICS: Final = ("accuracy", "precision", "recall", "specificity", "f1", "roc_auc")
"""Means over classes, each with the same say, but for the accuracy."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected performance of the rows of a window.

    Attributes:
        values: by metric, all `METRICS`; NaN where the rows do not define it.
        errors: by metric, standard deviation of the realised value about the estimate if the calibration
            holds, to first order.
        rows: effective rows.
    """

    values: Mapping[str, float]
    errors: Mapping[str, float]
    rows: float

    def value(self, metric: str) -> float:
        """Return one of `METRICS`."""
        return self.values[metric]

    def interval(self, metric: str, deviations: float = 3.0) -> tuple[float, float]:
        """Return the estimate less and plus so many standard deviations, within 0 to 1."""
        value, error = self.values[metric], self.errors[metric] * deviations
        return max(value - error, 0.0), min(value + error, 1.0)


def fit(scores: Floats, truth: Ints, weights: Floats) -> tuple[Floats, ...]:
    """Return the calibration of each class against the rest (`isotonic.fit`).

    Args:
        scores: `[rows, classes]`.
        truth: `[rows]`, class indexes.
        weights: `[rows]`.

    Raises:
        ValueError: There is no row.
    """
    return tuple(isotonic.fit(scores[:, c], weights * (truth == c), weights) for c in range(scores.shape[1]))


def probabilities(calibrations: Sequence[Floats], scores: Floats) -> Floats:
    """Return how likely each class is, `[rows, classes]`; all alike where no class is likely at all.

    Args:
        calibrations: of each class (`fit`).
        scores: `[rows, classes]`.
    """
    each = np.stack([isotonic.apply(calibrations[c], scores[:, c]) for c in range(len(calibrations))], axis=1)
    total = each.sum(axis=1, keepdims=True)
    alike = np.full_like(each, 1 / each.shape[1])
    result: Floats = np.divide(each, total, out=alike, where=total > 0)
    return result


def estimate(
    scores: Floats, probabilities: Floats, predicted: Ints, weights: Floats, rows: float = 0.0
) -> Estimate:
    """Estimate from rows, or from bins of equal ones.

    Args:
        scores: `[rows, classes]`, the model's own.
        probabilities: `[rows, classes]`, of sum 1 each (`probabilities`).
        predicted: `[rows]`, class indexes; -1: none of them.
        weights: `[rows]`.
        rows: effective rows; 0: the sum of weights.
    """
    total = float(weights.sum())
    effective = rows or total
    weights = weights * (effective / total) if total else weights
    chosen = predicted[:, None] == np.arange(scores.shape[1])
    counted = _Counts.of(probabilities, chosen, weights)
    values, errors = {}, {}
    for metric in METRICS[:-1]:
        values[metric], by_hit, by_truth = counted.metric(metric)
        errors[metric] = _spread(probabilities, by_truth + chosen * by_hit, weights)
    values["roc_auc"], influence = _areas(scores, probabilities, weights)
    errors["roc_auc"] = _spread(probabilities, influence, weights)
    return Estimate(values, errors, effective)


@dataclass(frozen=True, slots=True)
class _Counts:
    """Expected rows by class, `[classes]` each: predicted and so, predicted, and so; and all rows."""

    hit: Floats
    called: Floats
    true: Floats
    rows: float

    @classmethod
    def of(cls, probabilities: Floats, chosen: npt.NDArray[np.bool_], weights: Floats) -> _Counts:
        hit = (probabilities * chosen * weights[:, None]).sum(axis=0)
        called, true = weights @ chosen, weights @ probabilities
        return cls(hit, called, true, float(weights.sum()))

    def metric(self, name: str) -> tuple[float, Floats, Floats]:
        """Return a metric, and its slopes, `[classes]`: by `hit` and by `true`."""
        if name == "accuracy":
            slope = 1 / self.rows if self.rows else math.nan
            return float(self.hit.sum()) * slope, np.full_like(self.hit, slope), np.zeros_like(self.hit)
        top, bottom, by_hit, by_true = self._parts(name)
        some = (self.called > 0) | (self.true > 0)
        count = int(some.sum())
        if not count:
            return math.nan, np.full_like(self.hit, math.nan), np.full_like(self.hit, math.nan)
        # As the realised metrics have it: 0 over 0 is 0, and classes that nobody expects do not count.
        over = np.where(some & (bottom > 0), bottom, np.inf)
        value = top / over
        return (
            float(value.sum()) / count,
            by_hit / over / count,
            (by_true[0] - value * by_true[1]) / over / count,
        )

    def _parts(self, name: str) -> tuple[Floats, Floats, Floats, tuple[float, float]]:
        """Return a ratio's parts by class, the upper one's slope by `hit`, and both parts' by `true`."""
        ones = np.ones_like(self.hit)
        match name:
            case "precision":
                return self.hit, self.called, ones, (0.0, 0.0)
            case "recall":
                return self.hit, self.true, ones, (0.0, 1.0)
            case "f1":
                return 2 * self.hit, self.called + self.true, 2 * ones, (0.0, 1.0)
        false = self.rows - self.true
        return false - self.called + self.hit, false, ones, (-1.0, -1.0)


def _areas(scores: Floats, probabilities: Floats, weights: Floats) -> tuple[float, Floats]:
    """Return the mean area under the classes' ROC curves, and what it gains per row and true class."""
    found = [_area(scores[:, c], probabilities[:, c], weights) for c in range(scores.shape[1])]
    defined = [area for area, _ in found if not math.isnan(area)]
    if not defined:
        return math.nan, np.full_like(scores, math.nan)
    influence = np.stack([gain for _, gain in found], axis=1) / len(defined)
    return math.fsum(defined) / len(defined), influence


def _area(scores: Floats, probabilities: Floats, weights: Floats) -> tuple[float, Floats]:
    """Return one class's area, NaN if it is or the rest are not expected, and what a row of it adds."""
    _, place = np.unique(scores, return_inverse=True)
    above = np.bincount(place, weights * probabilities)
    below = np.bincount(place, weights * (1 - probabilities))
    positives, negatives = float(above.sum()), float(below.sum())
    if not (positives > 0 and negatives > 0):
        return math.nan, np.zeros_like(scores)
    under = (np.cumsum(below) - below / 2) / negatives
    over = 1 - (np.cumsum(above) - above / 2) / positives
    area = float((above * under).sum()) / positives
    gain: Floats = ((under - area) / positives - (over - area) / negatives)[place]
    return area, gain


def _spread(probabilities: Floats, gains: Floats, weights: Floats) -> float:
    """Return the deviation of a sum to which each row adds its true class's gain, `[rows, classes]`."""
    mean = (probabilities * gains).sum(axis=1)
    variance = (probabilities * gains**2).sum(axis=1) - mean**2
    return math.sqrt(max(float(weights @ variance), 0.0))
