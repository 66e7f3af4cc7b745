"""Performance without labels, from calibrated scores (`statistics.cbpe`, `statistics.cbpe_multiclass`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import special  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.monitor.performance.results import Estimated, Metric
from gateway.monitor.performance.weighted import effective
from gateway.monitor.profile.reference import TaskKind
from gateway.statistics import cbpe, cbpe_multiclass, isotonic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from gateway.monitor.performance.block import Selection
    from gateway.monitor.profile.reference import Profile
    from gateway.monitor.values import StreamKey

    Floats = npt.NDArray[np.float64]


class _Estimate(Protocol):
    """What both estimators return."""

    @property
    def errors(self) -> Mapping[str, float]: ...
    @property
    def rows(self) -> float: ...
    def value(self, metric: str) -> float: ...
    def interval(self, metric: str, deviations: float) -> tuple[float, float]: ...


def estimate(
    key: StreamKey, window: tuple[float, float], selection: Selection, profile: Profile, level: float
) -> Estimated | None:
    """Return what rows of classes are expected to come to; None without scores or calibration."""
    scores = selection.rows["scores"].astype(np.float64)
    found = _estimate(selection, profile, scores) if np.isfinite(scores).all() else None
    if found is None:
        return None
    deviations = float(special.ndtri((1 + level) / 2))
    metrics = {
        name: Metric(found.value(name), *found.interval(name, deviations), error, found.rows)
        for name, error in found.errors.items()
    }
    return Estimated(key=key, start_s=window[0], end_s=window[1], metrics=metrics, rows=len(scores))


def _estimate(selection: Selection, profile: Profile, scores: Floats) -> _Estimate | None:
    kind = selection.task.kind
    if kind is TaskKind.BINARY and profile.calibration is not None:
        return _binary(selection, profile.calibration, scores[:, 0])
    if kind is TaskKind.MULTICLASS and len(profile.class_calibrations) == scores.shape[1]:
        return _multiclass(selection, profile.class_calibrations, scores)
    return None


def _binary(selection: Selection, calibration: Floats, scores: Floats) -> _Estimate:
    predicted, weights = selection.rows["prediction"] == 1, selection.weights
    distinct, bins = np.unique(np.stack([scores, predicted.astype(np.float64)]), axis=1, return_inverse=True)
    return cbpe.estimate(
        distinct[0],
        isotonic.apply(calibration, distinct[0]),
        distinct[1] > 0,
        np.bincount(bins.reshape(-1), weights).astype(np.float64),
        effective(weights),
    )


def _multiclass(selection: Selection, calibrations: Sequence[Floats], scores: Floats) -> _Estimate:
    likely = cbpe_multiclass.probabilities(calibrations, scores)
    predicted, weights = selection.rows["prediction"].astype(np.int64), selection.weights
    return cbpe_multiclass.estimate(scores, likely, predicted, weights, effective(weights))
