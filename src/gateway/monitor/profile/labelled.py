"""Scores with their truth: the reference's calibration and how good the model was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.monitor.profile.reference import TaskKind
from gateway.statistics import binary, cbpe_multiclass, isotonic

if TYPE_CHECKING:
    import numpy.typing as npt

    from gateway.monitor.panes.filling import Filling
    from gateway.monitor.panes.layout import Layout
    from gateway.monitor.profile.reference import Task

    Floats = npt.NDArray[np.float64]

MAX_ROWS: Final = 2_000_000
"""Labelled rows that are kept; later ones are left out."""
LEAST_ROWS: Final = 50
"""Labelled rows below which nothing is said."""
MAX_POINTS: Final = 20_000
"""Points of a calibration; a finer one is thinned."""


class Labelled:
    """Collects scores and labels of a task."""

    def __init__(self, task: Task | None, layout: Layout) -> None:
        self._task = task
        names = [] if task is None else [n.name for n in layout.numeric]
        self._signals: list[int] = []
        if task is not None and task.score in names:
            self._signals = [names.index(task.score)]
        elif task is not None:
            self._signals = [i for i, name in enumerate(names) if name.startswith(f"{task.score}[")]
        self._scores: list[Floats] = []
        self._truths: list[Floats] = []
        self._rows = 0

    def add(self, filling: Filling, labels: npt.NDArray[Any] | None) -> None:
        """Take rows with labels; those whose score or label is unknown are left out."""
        if labels is None or not self._signals or self._rows >= MAX_ROWS:
            return
        scores = filling.values[self._signals].T
        truths = self._numbers(labels)
        known = np.isfinite(scores).all(axis=1) & np.isfinite(truths)
        self._scores.append(scores[known])
        self._truths.append(truths[known])
        self._rows += int(known.sum())

    def calibration(self) -> Floats | None:
        """Return score and calibrated probability, `[2, k]`; None without labels of both classes."""
        found = self._binary()
        if found is None:
            return None
        scores, positives, weights = found
        if not 0 < positives.sum() < weights.sum():
            return None
        return _thinned(isotonic.fit(scores, positives, weights), MAX_POINTS)

    def class_calibrations(self) -> tuple[Floats, ...]:
        """Return the calibration of each class of a MULTICLASS task; empty unless all of them have labels."""
        if self._task is None or self._task.kind is not TaskKind.MULTICLASS or self._rows < LEAST_ROWS:
            return ()
        scores, truths = np.concatenate(self._scores), np.concatenate(self._truths).astype(np.int64)
        classes = scores.shape[1]
        if classes < 2 or len(np.unique(truths)) != classes or truths.max() >= classes:
            return ()
        fitted = cbpe_multiclass.fit(scores, truths, np.ones(len(truths)))
        return tuple(_thinned(each, MAX_POINTS // classes) for each in fitted)

    def performance(self) -> dict[str, float]:
        """Return metrics of the reference by name; those that it does not define are left out."""
        if self._task is None or self._rows < LEAST_ROWS:
            return {}
        kind = self._task.kind
        if kind is TaskKind.BINARY:
            metrics = self._of_binary()
        elif kind is TaskKind.REGRESSION:
            metrics = self._of_regression()
        elif kind is TaskKind.MULTICLASS:
            metrics = self._of_multiclass()
        else:
            metrics = {}
        return {name: value for name, value in metrics.items() if np.isfinite(value)}

    def _binary(self) -> tuple[Floats, Floats, Floats] | None:
        """Return distinct scores, positives and rows of each."""
        if self._task is None or self._task.kind is not TaskKind.BINARY or self._rows < LEAST_ROWS:
            return None
        scores, truths = np.concatenate(self._scores)[:, 0], np.concatenate(self._truths)
        distinct, place = np.unique(scores, return_inverse=True)
        rows = np.bincount(place).astype(np.float64)
        return distinct, np.bincount(place, truths).astype(np.float64), rows

    def _of_binary(self) -> dict[str, float]:
        found = self._binary()
        if found is None or self._task is None:
            return {}
        scores, positives, rows = found
        negatives = rows - positives
        counted = binary.confusion(scores >= self._task.threshold, positives, negatives)
        metrics = {name: float(getattr(counted, name)) for name in binary.METRICS}
        metrics["roc_auc"] = float(binary.auc(scores, positives, negatives))
        if scores.min() >= 0 and scores.max() <= 1:
            squares = positives * (1 - scores) ** 2 + negatives * scores**2
            metrics["brier"] = float(squares.sum() / rows.sum())
            metrics["ece"] = float(isotonic.expected_calibration_error(scores, positives, rows))
            sure = np.clip(scores, 1e-15, 1 - 1e-15)
            loss = positives * np.log(sure) + negatives * np.log1p(-sure)
            metrics["log_loss"] = float(-loss.sum() / rows.sum())
        return metrics

    def _of_multiclass(self) -> dict[str, float]:
        scores, truths = np.concatenate(self._scores), np.concatenate(self._truths).astype(np.int64)
        predicted, classes = scores.argmax(axis=1), max(scores.shape[1], int(truths.max()) + 1)
        if classes > scores.shape[1]:
            return {"accuracy": float((predicted == truths).mean())}
        # Where the class is certain, what is expected is what was.
        certain = np.eye(classes)[truths]
        return dict(cbpe_multiclass.estimate(scores, certain, predicted, np.ones(len(truths))).values)

    def _of_regression(self) -> dict[str, float]:
        predicted, truths = np.concatenate(self._scores)[:, 0], np.concatenate(self._truths)
        errors = predicted - truths
        spread = float(((truths - truths.mean()) ** 2).mean())
        square = float((errors**2).mean())
        return {
            "mae": float(np.abs(errors).mean()),
            "rmse": square**0.5,
            "bias": float(errors.mean()),
            "r2": 1 - square / spread if spread > 0 else float("nan"),
        }

    def _numbers(self, labels: npt.NDArray[Any]) -> Floats:
        """Return labels as numbers: values, or places in `classes`; NaN where unknown."""
        assert self._task is not None
        if self._task.kind not in (TaskKind.BINARY, TaskKind.MULTICLASS):
            return _floats(labels)
        classes = self._task.classes or ("0", "1")
        place = {name: float(i) for i, name in enumerate(classes)}
        if labels.dtype == object:
            return np.array([place.get((v or b"").decode(errors="replace"), np.nan) for v in labels])
        distinct, where = np.unique(labels, return_inverse=True)
        known = [place.get(f"{v:g}", place.get(str(v), np.nan)) for v in distinct.tolist()]
        return np.asarray(known, np.float64)[where] if len(distinct) else np.empty(0)


def _thinned(calibration: Floats, most: int) -> Floats:
    step = -(-calibration.shape[1] // most)
    keep = np.unique(np.r_[0 : calibration.shape[1] : step, calibration.shape[1] - 1])
    return np.ascontiguousarray(calibration[:, keep])


def _floats(labels: npt.NDArray[Any]) -> Floats:
    if labels.dtype != object:
        return labels.astype(np.float64)
    return np.full(len(labels), np.nan)
