"""Kept predictions of one stream in columns, with their labels beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.values import ALL

if TYPE_CHECKING:
    import numpy.typing as npt

    from gateway.core.types import Array
    from gateway.monitor.profile.reference import Task
    from gateway.monitor.values import StreamKey

CAPACITY: Final = 8192
"""Rows of a block."""

LABEL: Final = np.dtype([("value", "<f8"), ("revision", "<i8"), ("at_ns", "<i8"), ("weight", "<f4")])
"""A row's label: class index or number; weight 0 where there is none yet."""

MAX_VALUES: Final = 64
"""Values of a segment column that a block tells apart; the rest is `other`."""

_FIRST: Final = 64
_STEP: Final = 0x9E3779B97F4A7C15 - (1 << 64)


def row_dtype(scores: int, segments: int) -> np.dtype[np.void]:
    """Return the layout of a prediction: one score in full precision, several in single."""
    return np.dtype([
        ("at_ns", "<i8"),
        ("subject", "<u8"),
        ("row", "<u4"),
        ("weight", "<f4"),
        ("prediction", "<i4"),
        ("scores", "<f8" if scores == 1 else "<f4", (scores,)),
        ("segments", "<i2", (segments,)),
    ])  # fmt: skip


def hashes(keys: list[bytes], rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Return a hash of each (key, row), keyed anew in each process, so that nobody can aim at collisions."""
    found = np.fromiter(map(hash, keys), np.int64, len(keys))
    return found ^ (rows.astype(np.int64) * np.int64(_STEP))


@dataclass(slots=True)
class Extract:
    """Rows of one arm of a batch, ready to be kept.

    Attributes:
        rows: `row_dtype(...)`; segment codes are into `segments`.
        keys: join keys, `b""` where there is none.
        columns: segment columns, in the order of the codes.
        segments: by column the values that its codes mean; -1 is missing.
    """

    rows: Array
    keys: list[bytes]
    columns: tuple[str, ...]
    segments: tuple[tuple[str, ...], ...]


@dataclass(slots=True)
class Selection:
    """Rows of a stream in a window, of one task.

    Attributes:
        task: what they predict.
        rows: `row_dtype`.
        labels: LABEL.
        keys: join keys.
        columns: segment columns, each with the rows' values as codes into its names; -1 is missing.
    """

    task: Task
    rows: Array
    labels: Array
    keys: list[bytes]
    columns: dict[str, tuple[list[str], npt.NDArray[np.int64]]]

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """Weights of the rows: how many each stands for."""
        weights: npt.NDArray[np.float64] = self.rows["weight"].astype(np.float64)
        return weights


@dataclass(slots=True)
class Block:
    """Rows of a stream from one stretch of time, CAPACITY at most. `generation` grows with each change.

    Attributes:
        id: unique for ever; later blocks have greater ones.
        key: the stream.
        task: what its rows predict.
        columns: segment columns.
        values: by column the values that codes mean.
        keys: join keys.
        count: rows in use.
    """

    id: int
    key: StreamKey
    task: Task
    columns: tuple[str, ...]
    rows: Array
    labels: Array
    keys: list[bytes] = field(default_factory=list)
    values: list[list[str]] = field(default_factory=list)
    count: int = 0
    generation: int = 0
    rows_dirty: bool = True
    labels_dirty: bool = True
    low_ns: int = 1 << 62
    high_ns: int = -(1 << 62)
    _index: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None

    @classmethod
    def empty(cls, number: int, key: StreamKey, task: Task, like: Extract) -> Block:
        """Return a block for rows that look like these."""
        rows = np.zeros(_FIRST, like.rows.dtype)
        values: list[list[str]] = [[] for _ in like.columns]
        return cls(number, key, task, like.columns, rows, np.zeros(_FIRST, LABEL), values=values)

    def append(self, part: Extract, start: int) -> tuple[int, int]:
        """Take rows of `part` from `start` on as far as they fit; return where they lie now."""
        taken = min(len(part.keys) - start, CAPACITY - self.count)
        begin, end = self.count, self.count + taken
        self._grow(end)
        self.rows[begin:end] = part.rows[start : start + taken]
        self.labels[begin:end] = np.zeros(1, LABEL)[0]
        self._recode(part, begin, end)
        self.keys += part.keys[start : start + taken]
        self.count = end
        times = self.rows["at_ns"][begin:end]
        self.low_ns = min(self.low_ns, int(times.min()))
        self.high_ns = max(self.high_ns, int(times.max()))
        self.rows_dirty = True
        self.changed()
        self._index = None
        return begin, end

    def changed(self) -> None:
        """Note that answers that were computed from this block no longer hold."""
        self.labels_dirty = True
        self.generation += 1

    def fits(self, task: Task, part: Extract) -> bool:
        """Tell whether rows of `part` may go on in this block."""
        same = self.task == task and self.columns == part.columns and self.rows.dtype == part.rows.dtype
        return same and self.count < CAPACITY

    def find(self, wanted: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        """Return (index into `wanted`, row) for each row whose hash is wanted; the key is to be compared.

        Fast where `wanted` ascends.
        """
        order, ordered = self._indexed()
        left = np.searchsorted(ordered, wanted, "left")
        hits = np.flatnonzero(ordered[np.minimum(left, len(ordered) - 1)] == wanted)
        right = np.searchsorted(ordered, wanted[hits], "right")
        ends = zip(hits.tolist(), left[hits].tolist(), right.tolist(), strict=True)
        return [(index, int(order[at])) for index, begin, end in ends for at in range(begin, end)]

    def keep(self, mask: npt.NDArray[np.bool_]) -> int:
        """Drop the rows where `mask` is false; return how many."""
        gone = self.count - int(mask.sum())
        if gone:
            self.rows = self.rows[: self.count][mask]
            self.labels = self.labels[: self.count][mask]
            self.keys = [key for key, kept in zip(self.keys, mask.tolist(), strict=True) if kept]
            self.count -= gone
            self.rows_dirty = True
            self.changed()
            self._index = None
            if self.count:
                self.low_ns, self.high_ns = int(self.rows["at_ns"].min()), int(self.rows["at_ns"].max())
        return gone

    def mask(self, start_ns: int, end_ns: int, segment: str) -> npt.NDArray[np.bool_]:
        """Tell which rows lie in [start, end) and in the segment."""
        times = self.rows["at_ns"][: self.count]
        found: npt.NDArray[np.bool_] = (times >= start_ns) & (times < end_ns)
        if segment != ALL:
            column, _, value = segment.partition("=")
            if column not in self.columns:
                return np.zeros(self.count, np.bool_)
            at = self.columns.index(column)
            code = self.values[at].index(value) if value in self.values[at] else -2
            found &= self.rows["segments"][: self.count, at] == code
        return found

    def _grow(self, size: int) -> None:
        if size <= len(self.rows):
            return
        capacity = min(CAPACITY, max(size, 2 * len(self.rows)))
        for name in ("rows", "labels"):
            old = getattr(self, name)
            grown = np.zeros(capacity, old.dtype)
            grown[: self.count] = old[: self.count]
            setattr(self, name, grown)

    def _recode(self, part: Extract, begin: int, end: int) -> None:
        for at, names in enumerate(part.segments):
            mine = self.values[at]
            table = np.full(len(names) + 1, -1, np.int16)
            for code, name in enumerate(names):
                table[code] = _code(mine, name)
            codes = self.rows["segments"][begin:end, at]
            codes[:] = table[codes]

    def _indexed(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        if self._index is None:
            found = hashes(self.keys, self.rows["row"][: self.count])
            order = np.argsort(found, kind="stable").astype(np.int64)
            self._index = order, found[order]
        return self._index


OTHER: Final = "other"


def _code(values: list[str], name: str) -> int:
    if name in values:
        return values.index(name)
    if len(values) >= MAX_VALUES:
        name = OTHER
        if name in values:
            return values.index(name)
    values.append(name)
    return len(values) - 1
