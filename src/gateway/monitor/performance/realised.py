"""Performance by labels, of the rows of one stream or segment in one window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gateway.monitor.performance import answers, classification
from gateway.monitor.performance.ranking import ranking
from gateway.monitor.performance.regression import regression
from gateway.monitor.performance.results import Completeness, Realised
from gateway.monitor.profile.reference import TaskKind

if TYPE_CHECKING:
    import numpy.typing as npt

    from gateway.monitor.performance.block import Selection
    from gateway.monitor.performance.results import Metric
    from gateway.monitor.values import StreamKey


def realise(key: StreamKey, window: tuple[float, float], selection: Selection, level: float) -> Realised:
    """Return what the labelled ones of these rows say; metrics are empty while there is none."""
    task = selection.task
    labelled = selection.labels["weight"] > 0
    names = answers.classes(task) if answers.has_classes(task) else ()
    truth = selection.labels["value"][labelled].astype(np.int64)
    predicted = selection.rows["prediction"][labelled].astype(np.int64)
    weights = both_weights(selection)[labelled]
    metrics: dict[str, Metric] = {}
    confusion: tuple[tuple[float, ...], ...] = ()
    scores = selection.rows["scores"][labelled].astype(np.float64)
    if labelled.any():
        metrics = _metrics(selection, labelled, level)
        if names:
            confusion = classification.confusion(truth, predicted, weights, len(names))
    binary = task.kind is TaskKind.BINARY and bool(np.isfinite(scores).all())
    bins = classification.reliability(truth == 1, scores[:, 0], weights, level) if binary else ()
    return Realised(
        key=key, kind=task.kind, start_s=window[0], end_s=window[1], metrics=metrics, classes=names,
        confusion=confusion, reliability=bins, completeness=completeness(selection),
    )  # fmt: skip


def completeness(selection: Selection) -> Completeness:
    """Return how many rows have labels, and how long those took."""
    labelled = selection.labels["weight"] > 0
    joinable = sum(1 for key in selection.keys if key)
    lags = (selection.labels["at_ns"][labelled] - selection.rows["at_ns"][labelled]) / 1e9
    p50, p90 = np.percentile(lags, (50, 90)).tolist() if len(lags) else (math.nan, math.nan)
    return Completeness(len(labelled), joinable, int(labelled.sum()), p50, p90)


def both_weights(selection: Selection) -> npt.NDArray[np.float64]:
    """Return the rows' weights times their labels'; 0 where there is no label."""
    weights: npt.NDArray[np.float64] = selection.weights * selection.labels["weight"].astype(np.float64)
    return weights


def _metrics(selection: Selection, labelled: npt.NDArray[np.bool_], level: float) -> dict[str, Metric]:
    kind = selection.task.kind
    if kind is TaskKind.RANKING:
        return _ranked(selection, level)
    truth = selection.labels["value"][labelled]
    weights = both_weights(selection)[labelled]
    scores = selection.rows["scores"][labelled].astype(np.float64)
    predicted = selection.rows["prediction"][labelled].astype(np.int64)
    if kind is TaskKind.REGRESSION:
        return regression(truth, scores[:, 0], weights, level)
    if kind is TaskKind.MULTICLASS:
        return classification.multiclass(truth.astype(np.int64), predicted, scores, weights, level)
    found = classification.by_class(truth == 1, predicted == 1, weights, level)
    if np.isfinite(scores).all():
        found["roc_auc"] = classification.area(truth == 1, scores[:, 0], weights, level)
        found |= classification.probabilistic(truth == 1, scores[:, 0], weights, level)
    return found


def _ranked(selection: Selection, level: float) -> dict[str, Metric]:
    numbers: dict[bytes, int] = {}
    groups = np.array([numbers.setdefault(key, len(numbers)) if key else -1 for key in selection.keys])
    told = groups >= 0
    if not told.any():
        return {}
    relevance = np.where(selection.labels["weight"] > 0, selection.labels["value"], 0.0)[told]
    scores = selection.rows["scores"][told, 0].astype(np.float64)
    return ranking(groups[told], scores, relevance, selection.weights[told], level)
