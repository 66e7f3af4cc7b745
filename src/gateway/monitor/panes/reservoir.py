"""A random sample of a version's rows, kept while there is no profile, for one to be learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.engine_coalescing import concatenated, taken
from gateway.predlog.spool.erasing import chosen

if TYPE_CHECKING:
    import numpy.typing as npt

    from gateway.predlog.rows import RowBatch

_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))
_MIXES: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def uniform(batch: RowBatch) -> npt.NDArray[np.float64]:
    """Return `[rows]` numbers in [0, 1) that follow from each row's key and place, and look random.

    The key's hash itself would not do: sampling went by it. (Finaliser of SplitMix64, Steele et al. 2014.)
    """
    bits = batch.key_hashes + batch.row_indexes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> _SHIFTS[0])) * _MIXES[0]
    bits = (bits ^ (bits >> _SHIFTS[1])) * _MIXES[1]
    bits ^= bits >> _SHIFTS[2]
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


class Reservoir:
    """At most `limit` rows, taken with a chance that grows with their weight (Efraimidis, Spirakis 2006).

    Holds up to twice as many for a while. Rows whose columns are not those of the first ones are left out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._batches: list[RowBatch] = []
        self._rows = 0
        self._worst = np.inf
        self.nbytes = 0

    def add(self, batch: RowBatch, rows: npt.NDArray[np.int64]) -> None:
        """Offer some rows of a batch."""
        if not self._limit or not len(rows) or (self._batches and not _alike(self._batches[0], batch)):
            return
        chosen = rows[_ranks(batch)[rows] < self._worst]
        if len(chosen):
            self._batches.append(taken(batch, chosen))
            self._rows += len(chosen)
            if self._rows >= 2 * self._limit or len(self._batches) > 64:
                self._thin()
            self.nbytes = sum(c.values.nbytes for b in self._batches for c in b.columns) + 128 * self._rows

    def _thin(self) -> None:
        try:
            joined = concatenated(self._batches)
        except ValueError:
            joined = self._batches[0]
        if joined.rows > self._limit:
            ranks = _ranks(joined)
            best = np.sort(np.argpartition(ranks, self._limit)[: self._limit])
            self._worst = float(ranks[best].max())
            joined = taken(joined, best)
        self._batches, self._rows = [joined], joined.rows

    def sample(self) -> RowBatch | None:
        """Return the rows, at most `limit`; None while there are none."""
        if not self._batches:
            return None
        self._thin()
        return self._batches[0]

    def erase(self, subject_hashes: frozenset[int]) -> int:
        """Let rows of these subjects go, with the categories that only they had; return how many."""
        gone = np.array(sorted(subject_hashes), np.uint64)
        kept = []
        for batch in self._batches:
            rows = np.flatnonzero(~np.isin(batch.subject_hashes, gone))
            if len(rows):
                kept.append(chosen(batch, rows))
        erased = self._rows - sum(batch.rows for batch in kept)
        self._batches, self._rows = kept, self._rows - erased
        return erased


def _ranks(batch: RowBatch) -> npt.NDArray[np.float64]:
    return np.asarray(-np.log1p(-uniform(batch)) / batch.weights)


def _alike(one: RowBatch, other: RowBatch) -> bool:
    return [(c.name, c.role, c.kind, c.values.dtype, c.values.shape[1], c.labels) for c in one.columns] == [
        (c.name, c.role, c.kind, c.values.dtype, c.values.shape[1], c.labels) for c in other.columns
    ]
