"""Performance without labels: what a calibrated classifier's scores say of its own errors (CBPE).

A row with calibrated probability p is positive with chance p: summing p and 1 - p by predicted class gives
the expected confusion, and by score the expected ROC curve (Kivimaki et al., "Performance estimation in
binary classification using calibrated confidence", 2025; NannyML's CBPE). It sees no change of the concept
itself: only of the inputs, and only while the calibration holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.statistics import binary

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

METRICS: Final = (*binary.METRICS, "roc_auc")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected performance of the rows of a window.

    Attributes:
        confusion: expected counts.
        roc_auc: of the expected ROC curve; NaN where one class is not expected at all.
        errors: by metric, standard deviation of the realised value about the estimate if the calibration
            holds.
        rows: effective rows.
    """

    confusion: binary.Confusion
    roc_auc: float
    errors: Mapping[str, float]
    rows: float

    def value(self, metric: str) -> float:
        """Return one of `METRICS`."""
        return self.roc_auc if metric == "roc_auc" else float(getattr(self.confusion, metric))

    def interval(self, metric: str, deviations: float = 3.0) -> tuple[float, float]:
        """Return the estimate less and plus so many standard deviations, within 0 to 1."""
        value, error = self.value(metric), self.errors[metric] * deviations
        return max(value - error, 0.0), min(value + error, 1.0)


def estimate(
    scores: Floats,
    probabilities: Floats,
    predicted: npt.NDArray[np.bool_],
    weights: Floats,
    rows: float = 0.0,
) -> Estimate:
    """Estimate from a histogram over distinct scores; exact where rows lie on them.

    Args:
        scores: `[bins]`, the model's own; the ROC curve goes by the probabilities, as calibrated.
        probabilities: `[bins]`, calibrated (`isotonic.apply`), 0 to 1.
        predicted: `[bins]`, the predicted class is the positive one; a score with both predictions is two
            bins.
        weights: `[bins]`, weighted rows.
        rows: effective rows; 0: the sum of weights.
    """
    del scores
    positives, negatives = weights * probabilities, weights * (1 - probabilities)
    expected = binary.confusion(predicted, positives, negatives)
    area = binary.auc(probabilities, positives, negatives)
    effective = rows or float(weights.sum())
    scale = effective / expected.rows if expected.rows else 0.0
    errors = _errors(expected, (probabilities, predicted, weights * scale), scale)
    variance = binary.auc_variance(
        probabilities, positives, negatives, (float(positives.sum()) * scale, float(negatives.sum()) * scale)
    )
    return Estimate(expected, area, {**errors, "roc_auc": math.sqrt(max(variance, 0.0))}, effective)


def _errors(
    expected: binary.Confusion,
    bins: tuple[Floats, npt.NDArray[np.bool_], Floats],
    scale: float,
) -> dict[str, float]:
    """Return the deviation of each metric when each row's class is a coin of its probability."""
    probabilities, predicted, weights = bins
    coin = weights * probabilities * (1 - probabilities)
    hit, missed = float(coin[predicted].sum()), float(coin[~predicted].sum())
    tp, fn = expected.tp * scale, expected.fn * scale
    called, positive = (expected.tp + expected.fp) * scale, (expected.tp + expected.fn) * scale
    rows, negative = expected.rows * scale, (expected.fp + expected.tn) * scale
    tn, both = expected.tn * scale, called + positive
    return {
        "accuracy": _root(hit + missed, rows),
        "precision": _root(hit, called),
        "recall": _root(fn**2 * hit + tp**2 * missed, positive**2),
        "specificity": _root((negative - tn) ** 2 * missed + tn**2 * hit, negative**2),
        "f1": _root((2 * both - 2 * tp) ** 2 * hit + (2 * tp) ** 2 * missed, both**2),
    }


def _root(variance: float, over: float) -> float:
    return math.sqrt(max(variance, 0.0)) / over if over > 0 else math.nan
