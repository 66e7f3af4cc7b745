"""Metrics of a binary classifier from counts: by predicted class, and by distinct score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Weighted rows by prediction and truth; expected ones need not be whole. Ratios over nothing are NaN."""

    tp: float = 0.0
    fp: float = 0.0
    tn: float = 0.0
    fn: float = 0.0

    @property
    def rows(self) -> float:
        """All of them."""
        return self.tp + self.fp + self.tn + self.fn

    @property
    def accuracy(self) -> float:
        """Share that was predicted right."""
        return _ratio(self.tp + self.tn, self.rows)

    @property
    def precision(self) -> float:
        """Share of predicted positives that are."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of positives that were predicted so."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """Share of negatives that were predicted so."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


METRICS = ("accuracy", "precision", "recall", "specificity", "f1")
"""Properties of `Confusion`."""


def confusion(predicted: npt.NDArray[np.bool_], positives: Floats, negatives: Floats) -> Confusion:
    """Add up bins, `[bins]` each: its prediction, weighted rows of the positive and negative class."""
    return Confusion(
        tp=float(positives[predicted].sum()),
        fp=float(negatives[predicted].sum()),
        tn=float(negatives[~predicted].sum()),
        fn=float(positives[~predicted].sum()),
    )


def auc(scores: Floats, positives: Floats, negatives: Floats) -> float:
    """Return the area under the ROC curve, exact for rows that lie on these scores; NaN without both classes.

    Args:
        scores: `[bins]`, need not be sorted or distinct: equal ones count half.
        positives: `[bins]`, weighted rows of the positive class.
        negatives: likewise of the negative class.
    """
    above, below = _by_score(scores, positives, negatives)
    total = float(above.sum()) * float(below.sum())
    if not total > 0:
        return float("nan")
    return float((above * (np.cumsum(below) - below / 2)).sum()) / total


def auc_variance(scores: Floats, positives: Floats, negatives: Floats, sizes: tuple[float, float]) -> float:
    """Return the variance of `auc` (DeLong, DeLong and Clarke-Pearson 1988), from counts.

    Args:
        scores: `[bins]`.
        positives: `[bins]`, weighted rows.
        negatives: likewise.
        sizes: effective rows of the positive and of the negative class.
    """
    above, below = _by_score(scores, positives, negatives)
    p, n = above.sum(), below.sum()
    if not (p > 0 and n > 0 and min(sizes) > 1):
        return float("nan")
    placed = (np.cumsum(below) - below / 2) / n
    placed_below = 1 - (np.cumsum(above) - above / 2) / p
    area = float((above * placed).sum() / p)
    within = float((above * (placed - area) ** 2).sum() / p) / (sizes[0] - 1)
    return within + float((below * (placed_below - area) ** 2).sum() / n) / (sizes[1] - 1)


def average_precision(scores: Floats, positives: Floats, negatives: Floats) -> float:
    """Return the area under the precision-recall steps, the highest score first; NaN without positives."""
    above, below = _by_score(scores, positives, negatives)
    above, below = above[::-1], below[::-1]
    if not above.sum() > 0:
        return float("nan")
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(np.cumsum(above) / np.cumsum(above + below))
    return float((precision * above).sum() / above.sum())


def _by_score(scores: Floats, positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    _, index = np.unique(scores, return_inverse=True)
    above: Floats = np.bincount(index, positives).astype(float)
    below: Floats = np.bincount(index, negatives).astype(float)
    return above, below


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
