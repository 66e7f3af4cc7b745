"""Our figures of NannyML's two examples of classification, chunk by chunk: what the oracle compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyarrow import csv

from gateway.monitor.performance import classification
from gateway.statistics import cbpe, cbpe_multiclass, isotonic
from loadtests.nannyml_chunkings import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from loadtests.nannyml_chunkings import Chunking

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Figures = dict[str, tuple[float, float]]

CLASSES: Final = ("highstreet_card", "prepaid_card", "upmarket_card")
AS_THEY_ARE: Final = np.array([[0.0, 1.0], [0.0, 1.0]])
"""A calibration that changes nothing."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model said of rows, with the truth.

    Attributes:
        scores: `[rows, classes]`; of two classes `[rows, 1]`, the positive one's.
        predicted: `[rows]`, class indexes.
        truth: likewise.
    """

    scores: Floats
    predicted: Ints
    truth: Ints

    def rows(self, chosen: Ints) -> Predictions:
        """Return some of them."""
        return Predictions(self.scores[chosen], self.predicted[chosen], self.truth[chosen])

    def chunks(self, chunking: Chunking) -> Iterator[Predictions]:
        """Yield them chunk by chunk."""
        return (self.rows(chosen) for chosen in chunking.chunks())


def car_loan(data: Path) -> tuple[Predictions, Predictions]:
    """Return the reference and the analysis period of the example of two classes, from its files' folder."""
    reference = _table(data / "synthetic_car_loan_reference.csv")
    analysis = _table(data / "synthetic_car_loan_analysis.csv")
    labels = _table(data / "synthetic_car_loan_analysis_target.csv")
    return _binary(reference, reference["repaid"]), _binary(analysis, labels["repaid"])


def mc(data: Path) -> tuple[Predictions, Predictions]:
    """Return the reference and the analysis period of the example of three classes, likewise."""
    reference, analysis = _table(data / "mc_reference.csv"), _table(data / "mc_analysis.csv")
    labels = _table(data / "mc_analysis_gt.csv")
    return _several(reference, reference["y_true"]), _several(analysis, labels["y_true"])


def binary_figures(found: Predictions, calibration: Floats) -> Figures:
    """Return each metric of two classes, as estimated and as realised."""
    scores, predicted, truth = found.scores[:, 0], found.predicted == 1, found.truth == 1
    weights = np.ones(len(scores))
    pairs, place = np.unique(np.stack([scores, predicted]), axis=1, return_inverse=True)
    bins = np.bincount(place.reshape(-1)).astype(np.float64)
    estimated = cbpe.estimate(pairs[0], isotonic.apply(calibration, pairs[0]), pairs[1] > 0, bins)
    realised = classification.by_class(truth, predicted, weights, 0.95)
    realised["roc_auc"] = classification.area(truth, scores, weights, 0.95)
    return {name: (estimated.value(name), realised[name].value) for name in METRICS}


def multiclass_figures(found: Predictions, calibrations: Sequence[Floats]) -> Figures:
    """Return each metric of several classes, likewise; the mean over classes but for the accuracy."""
    weights = np.ones(len(found.truth))
    likely = cbpe_multiclass.probabilities(calibrations, found.scores)
    estimated = cbpe_multiclass.estimate(found.scores, likely, found.predicted, weights)
    realised = classification.multiclass(found.truth, found.predicted, found.scores, weights, 0.95)
    each = [
        classification.by_class(found.truth == c, found.predicted == c, weights, 0.95)["specificity"]
        for c in range(len(calibrations))
    ]
    realised["specificity"] = classification.average(each, 0.95)
    return {name: (estimated.values[name], realised[name].value) for name in METRICS}


def _binary(table: Mapping[str, Any], labels: Any) -> Predictions:
    return Predictions(
        table["y_pred_proba"].astype(np.float64)[:, None],
        table["y_pred"].astype(np.int64),
        labels.astype(np.int64),
    )


def _several(table: Mapping[str, Any], labels: Any) -> Predictions:
    scores = np.stack([table[f"y_pred_proba_{name}"] for name in CLASSES], axis=1)
    places = {name: i for i, name in enumerate(CLASSES)}
    predicted, truth = (np.array([places[v] for v in column]) for column in (table["y_pred"], labels))
    return Predictions(scores.astype(np.float64), predicted, truth)


def _table(path: Path) -> Mapping[str, Any]:
    table = csv.read_csv(path)
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
