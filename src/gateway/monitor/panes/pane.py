"""One pane: what the rows of a stream came to in some time."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.panes.layout import FLAGS, LATENCY_BINS, SCORE_BINS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from gateway.monitor.panes.layout import Layout

    Floats = npt.NDArray[np.float64]

STATUSES: Final = 64
"""Error classes told apart in a pane; the rest is OTHER_STATUS."""

OTHER_STATUS: Final = "other"

_VERSION: Final = 1
_HEAD: Final = struct.Struct("<4sBxxxII")
_MAGIC: Final = b"pane"


class Pane:
    """Sums over rows; two of one layout are merged by adding, so any order and grouping gives the same.

    All are weighted, a row counting for as many as it stands for, unless said otherwise. Every array is a
    view of `sums`; treat the arrays of a pane that you were given as read-only. With S numeric signals, C
    categories, E embeddings of `layout`, in its order:

    Attributes:
        layout: which signals there are.
        sums: `[layout.size]`, everything below but extremes and statuses.
        extremes: `[2, S]`, smallest and largest finite value; +inf and -inf where there was none.
        statuses: error class -> weight; "" for rows answered well.
    """

    __slots__ = ("extremes", "layout", "statuses", "sums")

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.sums: Floats = np.zeros(layout.size)
        self.extremes: Floats = np.empty((2, len(layout.numeric)))
        self.extremes[0], self.extremes[1] = np.inf, -np.inf
        self.statuses: dict[str, float] = {}

    def _section(self, name: str, *shape: int) -> Floats:
        return self.sums[self.layout.offsets[name]].reshape(shape)

    @property
    def rows(self) -> float:
        """Rows, each counted as one."""
        return float(self.sums[0])

    @property
    def weight(self) -> float:
        """Sum of weights: rows that were served."""
        return float(self.sums[1])

    @property
    def weight_squared(self) -> float:
        """Sum of squared weights."""
        return float(self.sums[2])

    @property
    def answered(self) -> float:
        """Weight of the rows of status "": only these are looked at for missing columns."""
        return float(self.sums[3])

    @property
    def effective_rows(self) -> float:
        """Rows that an unweighted sample of the same precision would have: (sum w)^2 / sum w^2."""
        return self.weight**2 / self.weight_squared if self.weight_squared else 0.0

    @property
    def design(self) -> float:
        """Factor that turns a weighted count into an effective number of rows: sum w / sum w^2."""
        return self.weight / self.weight_squared if self.weight_squared else 1.0

    @property
    def counts(self) -> Floats:
        """`[S, layout.bins]`: finite values by bin; signals of fewer bins have zeros at the end."""
        return self._section("counts", len(self.layout.numeric), self.layout.bins)

    @property
    def moments(self) -> Floats:
        """`[S, 3]`: weight of finite values, sum of x - c, sum of (x - c)^2; c the reference's mean."""
        return self._section("moments", len(self.layout.numeric), 3)

    @property
    def flags(self) -> Floats:
        """`[S, 5]`: values by flag, in the order of `layout.FLAGS`."""
        return self._section("flags", len(self.layout.numeric), len(FLAGS))

    @property
    def category_flags(self) -> Floats:
        """`[C, 2]`: missing; of the wrong type."""
        return self._section("category_flags", len(self.layout.categories), 2)

    def category(self, index: int) -> Floats:
        """Return `[len(values) + 1]`: counts of category `index` by value, OTHER last, missing left out."""
        start = self.layout.offsets["category_counts"].start
        begin, end = self.layout.category_starts[index : index + 2]
        return self.sums[start + begin : start + end]

    @property
    def embedding_weights(self) -> Floats:
        """`[E, 2]`: sums of weights and of their squares, of the rows in `embedding(i)`."""
        return self._section("embedding_weights", len(self.layout.embeddings), 2)

    def embedding(self, index: int) -> Floats:
        """Return `[features]`: the sum of weighted Fourier features, of embedding `index`."""
        start = self.layout.offsets["embedding_sums"].start
        begin, end = self.layout.embedding_starts[index : index + 2]
        return self.sums[start + begin : start + end]

    @property
    def scores(self) -> Floats:
        """`[classes, 2 (not predicted, predicted), SCORE_BINS]`: scores of each class by bin.

        BINARY: one class, the positive one.
        """
        return self._section("scores", self.layout.score_classes, 2, 2, SCORE_BINS)[:, :, 0]

    @property
    def score_sums(self) -> Floats:
        """As `scores`: the sum of the scores themselves, so that score_sums / scores is each bin's mean."""
        return self._section("scores", self.layout.score_classes, 2, 2, SCORE_BINS)[:, :, 1]

    @property
    def latency(self) -> Floats:
        """`[2 (queue, infer), LATENCY_BINS]`: rows by duration, see `layout.LATENCY_BINS`."""
        return self._section("latency", 2, LATENCY_BINS)

    def means(self) -> Floats:
        """Return `[S]`: means of finite values; NaN where there was none."""
        moments, centre = self.moments, np.array([n.mean for n in self.layout.numeric])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(centre + moments[:, 1] / moments[:, 0])

    def variances(self) -> Floats:
        """Return `[S]`: variances of finite values; NaN where there was none."""
        moments = self.moments
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = moments[:, 1] / moments[:, 0]
            return np.asarray(np.maximum(moments[:, 2] / moments[:, 0] - shift**2, 0.0))

    def count_status(self, status: str, weight: float) -> None:
        """Add rows of a status; beyond STATUSES names they are counted as OTHER_STATUS."""
        if status not in self.statuses and len(self.statuses) >= STATUSES:
            status = OTHER_STATUS
        self.statuses[status] = self.statuses.get(status, 0.0) + weight

    def merge(self, other: Pane) -> None:
        """Add another pane's rows to this one.

        Raises:
            ValueError: its layout is another.
        """
        if other.layout.id != self.layout.id:
            raise ValueError(f"panes of layout {other.layout.id} cannot be added to {self.layout.id}")
        self.sums += other.sums
        np.minimum(self.extremes[0], other.extremes[0], out=self.extremes[0])
        np.maximum(self.extremes[1], other.extremes[1], out=self.extremes[1])
        for status, weight in other.statuses.items():
            self.count_status(status, weight)

    def to_bytes(self) -> bytes:
        """Return it compressed, with version and CRC; the layout is not in it."""
        statuses = "\n".join(f"{weight.hex()} {status}" for status, weight in self.statuses.items()).encode()
        payload = b"".join([self.sums.tobytes(), self.extremes.tobytes(), statuses])
        packed = zlib.compress(payload, 1)
        return _HEAD.pack(_MAGIC, _VERSION, zlib.crc32(packed), len(payload)) + packed


def merged(layout: Layout, panes: Iterable[Pane]) -> Pane:
    """Return the sum of panes of one layout."""
    total = Pane(layout)
    for pane in panes:
        total.merge(pane)
    return total


def from_bytes(layout: Layout, data: bytes) -> Pane:
    """Return what `Pane.to_bytes` wrote.

    Raises:
        ValueError: it is damaged, of another layout or of an unknown version.
    """
    if len(data) < _HEAD.size:
        raise ValueError("a pane cut short")
    magic, version, crc, size = _HEAD.unpack_from(data)
    packed = data[_HEAD.size :]
    if magic != _MAGIC or version != _VERSION or zlib.crc32(packed) != crc:
        raise ValueError("no pane, of an unknown version, or damaged")
    payload = zlib.decompress(packed)
    pane = Pane(layout)
    sums, extremes = pane.sums.nbytes, pane.extremes.nbytes
    if len(payload) != size or size < sums + extremes:
        raise ValueError("a pane of another layout")
    pane.sums[:] = np.frombuffer(payload, np.float64, layout.size)
    pane.extremes[:] = np.frombuffer(payload, np.float64, pane.extremes.size, sums).reshape(2, -1)
    for line in payload[sums + extremes :].decode().split("\n"):
        if line:
            weight, _, status = line.partition(" ")
            pane.statuses[status] = float.fromhex(weight)
    return pane
