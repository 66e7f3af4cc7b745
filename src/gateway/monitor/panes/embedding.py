"""Embeddings of a batch: Fourier features of at most so many rows, the rest stood for by them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from gateway.statistics import fourier

if TYPE_CHECKING:
    import numpy.typing as npt

    from gateway.monitor.panes.layout import EmbeddingSignal

    Floats = npt.NDArray[np.float64]

_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Thinned:
    """Features of some rows of a batch.

    Attributes:
        rows: `[k]`, which.
        features: `[k, features]`.
        weights: `[k]`: how many rows each stands for.
    """

    rows: npt.NDArray[np.int64]
    features: Floats
    weights: Floats

    def add(self, total: Floats, sums: Floats, inside: npt.NDArray[np.bool_]) -> None:
        """Add the rows that are `inside` to a pane's sum of features, and its sums of weights and squares."""
        chosen = inside[self.rows]
        weights = self.weights[chosen]
        total += weights @ self.features[chosen]
        sums += (weights.sum(), weights @ weights)


def embedded(
    signal: EmbeddingSignal,
    values: Floats | None,
    weights: Floats,
    hashes: npt.NDArray[np.uint64],
    limit: int,
) -> Thinned | None:
    """Return the features of a batch's rows; None where it has no such columns.

    Args:
        signal: which embedding.
        values: `[rows, width]`; rows with anything that is not finite are left out.
        weights: `[rows]`.
        hashes: `[rows]`: of the join keys; they choose the rows where there are more than `limit`.
        limit: most rows whose features are computed.
    """
    if values is None:
        return None
    rows = np.flatnonzero(np.isfinite(values).all(axis=1))
    share = 1.0
    if len(rows) > limit:
        share = limit / len(rows)
        # Sampling kept the rows of small hashes: mixed anew, or the choice would follow it.
        mixed = (hashes[rows] * _MIX) ^ (hashes[rows] >> np.uint64(29))
        rows = rows[np.argpartition(mixed, limit)[:limit]]
    standard = (values[rows] - signal.centre) / signal.scale
    features = fourier.features(
        standard, _directions(signal.width, signal.features, signal.gamma, signal.seed)
    )
    return Thinned(rows, features, weights[rows] / share)


@lru_cache(maxsize=256)
def _directions(width: int, features: int, gamma: float, seed: int) -> Floats:
    return fourier.directions(width, features, gamma, seed)
