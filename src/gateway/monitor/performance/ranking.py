"""Metrics of rankings, request by request: its rows are the candidates, labels their relevance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.performance.weighted import mean

if TYPE_CHECKING:
    import numpy.typing as npt

    from gateway.monitor.performance.results import Metric

    Floats = npt.NDArray[np.float64]

AT: Final = 10
"""Ranks that NDCG looks at."""


def ranking(
    groups: npt.NDArray[np.int64], scores: Floats, relevance: Floats, weights: Floats, level: float
) -> dict[str, Metric]:
    """Return NDCG of the first AT ranks, gains linear, and the mean reciprocal rank of what is relevant.

    Args:
        groups: `[rows]`, which request each is of.
        scores: higher ones are ranked first, equal ones in the order of the rows.
        relevance: 0 where no label came; below 0 counts as 0.
        weights: a request's is that of its first row.
        level: of confidence.

    Returns:
        `ndcg` and `mrr` over requests with anything relevant; nothing without such a request.
    """
    order = np.lexsort((np.arange(len(groups)), -scores, groups))
    ideal = np.lexsort((-relevance, groups))
    first, counts = _starts(groups[order])
    rank = np.arange(len(groups)) - np.repeat(first, counts)
    discount = np.where(rank < AT, 1 / np.log2(rank + 2.0), 0.0)
    gained = np.add.reduceat(np.maximum(relevance[order], 0) * discount, first)
    most = np.add.reduceat(np.maximum(relevance[ideal], 0) * discount, first)
    reciprocal = np.maximum.reduceat(np.where(relevance[order] > 0, 1 / (rank + 1.0), 0.0), first)
    told = most > 0
    if not told.any():
        return {}
    own = weights[order][first][told]
    return {
        "ndcg": mean(gained[told] / most[told], own, level),
        "mrr": mean(reciprocal[told], own, level),
    }


def _starts(ordered: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    _, first, counts = np.unique(ordered, return_index=True, return_counts=True)
    return first.astype(np.int64), counts.astype(np.int64)
