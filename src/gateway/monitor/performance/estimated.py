"""Performance without labels, from calibrated scores (`statistics.cbpe`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.monitor.performance.results import Estimated, Metric
from gateway.monitor.performance.weighted import effective
from gateway.monitor.profile.reference import TaskKind
from gateway.statistics import cbpe, isotonic

if TYPE_CHECKING:
    from gateway.monitor.performance.block import Selection
    from gateway.monitor.profile.reference import Profile
    from gateway.monitor.values import StreamKey


def estimate(
    key: StreamKey, window: tuple[float, float], selection: Selection, profile: Profile, level: float
) -> Estimated | None:
    """Return what a BINARY task's rows are expected to come to; None without scores or calibration."""
    if selection.task.kind is not TaskKind.BINARY or profile.calibration is None:
        return None
    scores = selection.rows["scores"][:, 0].astype(np.float64)
    predicted = selection.rows["prediction"] == 1
    if not np.isfinite(scores).all():
        return None
    weights = selection.weights
    distinct, bins = np.unique(np.stack([scores, predicted.astype(np.float64)]), axis=1, return_inverse=True)
    found = cbpe.estimate(
        distinct[0],
        isotonic.apply(profile.calibration, distinct[0]),
        distinct[1] > 0,
        np.bincount(bins.reshape(-1), weights).astype(np.float64),
        effective(weights),
    )
    deviations = float(special.ndtri((1 + level) / 2))
    metrics = {
        name: Metric(found.value(name), *found.interval(name, deviations), found.errors[name], found.rows)
        for name in cbpe.METRICS
    }
    return Estimated(key=key, start_s=window[0], end_s=window[1], metrics=metrics, rows=len(scores))
