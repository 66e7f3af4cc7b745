"""Sketches of an hour: quantiles of every numeric signal, and the categories that the reference lacks."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any, Final

import datasketches  # type: ignore[import-untyped]  # has no stubs
import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from gateway.monitor.panes.filling import Filling

    Floats = npt.NDArray[np.float64]

K: Final = 512
"""Of the KLL sketches (Karnin, Lang, Liberty 2016): rank error 0.53 % at 99 %, about 6 KB each."""

FREQUENT_LG: Final = 8
"""Novel categories: a map of 2^8 entries; weights are off by at most 3.5 / 192 of all novel weight."""

DISTINCT_LG: Final = 11
"""HyperLogLog of 2^11 registers: the count of distinct categories is off by 2.3 % (one standard error)."""

NOVEL_PER_BATCH: Final = 4096
"""Novel categories of one batch that are sketched; an attack with more gets its first ones seen."""

MAX_REPEATS: Final = 64
"""A row stands for at most so many of its hour's lightest."""


class Sketches:
    """Mergeable sketches of one stream and time, for pictures and evidence; thresholds rest on the panes.

    KLL has no weights: rows are taken once for every `unit` rows that they stand for, the remainder by the
    row's hash.

    Attributes:
        unit: weight of a row that is taken once; of the first rows that came.
        dropped: novel categories beyond NOVEL_PER_BATCH.
    """

    def __init__(
        self,
        unit: float = 0.0,
        quantiles: dict[str, Any] | None = None,
        frequent: dict[str, Any] | None = None,
        distinct: dict[str, Any] | None = None,
    ) -> None:
        """Take sketches over, by signal; without any, there are none yet."""
        self.unit = unit
        self.dropped = 0
        self._quantiles = quantiles or {}
        self._frequent = frequent or {}
        self._distinct = distinct or {}

    @property
    def nbytes(self) -> int:
        """About how much memory they take."""
        per_frequent = 64 * (1 << FREQUENT_LG)
        return 12 * K * len(self._quantiles) + (per_frequent + (1 << DISTINCT_LG)) * len(self._frequent)

    def add(self, filling: Filling, names: list[str], rows: npt.NDArray[np.int64], uniform: Floats) -> None:
        """Take rows in.

        Args:
            filling: the batch, laid out.
            names: of the numeric signals, in its order.
            rows: which rows.
            uniform: `[rows]`, in [0, 1): of each of them, from its hash.
        """
        weights = filling.weights[rows]
        if not len(weights):
            return
        if not self.unit:
            self.unit = float(weights.min())
        repeats = np.minimum(np.floor(weights / self.unit + uniform), MAX_REPEATS).astype(np.int64)
        once = bool((repeats == 1).all())
        for i, name in enumerate(names):
            values = filling.values[i, rows].astype(np.float32)
            finite = np.isfinite(values)
            if not finite.all():
                values = values[finite]
            if not once:
                values = np.repeat(values, repeats[finite])
            if len(values):
                sketch = self._quantiles.get(name)
                if sketch is None:
                    sketch = self._quantiles[name] = datasketches.kll_floats_sketch(K)
                sketch.update(values)

    def add_novel(self, filling: Filling, rows: npt.NDArray[np.int64]) -> None:
        """Take the categories of some rows in that the reference lacks."""
        for novel in filling.novel(rows):
            frequent = self._frequent.get(novel.signal)
            if frequent is None:
                frequent = self._frequent[novel.signal] = datasketches.frequent_strings_sketch(FREQUENT_LG)
                self._distinct[novel.signal] = datasketches.hll_sketch(DISTINCT_LG)
            distinct = self._distinct[novel.signal]
            self.dropped += max(0, len(novel.values) - NOVEL_PER_BATCH)
            pairs = zip(novel.values[:NOVEL_PER_BATCH], novel.weights.tolist(), strict=False)
            for value, weight in pairs:
                text = value.decode("latin-1")
                frequent.update(text, max(1, round(weight)))
                distinct.update(text)

    def merge(self, other: Sketches) -> None:
        """Add another one's rows to this one."""
        self.unit = self.unit or other.unit
        for name, sketch in other._quantiles.items():
            ours = self._quantiles.get(name)
            if ours is None:
                ours = self._quantiles[name] = datasketches.kll_floats_sketch(K)
            ours.merge(sketch)
        for name, sketch in other._frequent.items():
            if name not in self._frequent:
                self._frequent[name] = datasketches.frequent_strings_sketch(FREQUENT_LG)
            self._frequent[name].merge(sketch)
            union = datasketches.hll_union(DISTINCT_LG)
            for part in (self._distinct.get(name), other._distinct[name]):
                if part is not None:
                    union.update(part)
            self._distinct[name] = union.get_result()

    def quantiles(self, signal: str, ratios: Floats) -> Floats | None:
        """Return the values at `ratios` (0 to 1) of a numeric signal; None where nothing was sketched.

        Ranks are off by at most `rank_error()` with a confidence of 99 %.
        """
        sketch = self._quantiles.get(signal)
        if sketch is None or sketch.is_empty():
            return None
        return np.asarray(sketch.get_quantiles([float(ratio) for ratio in ratios]), np.float64)

    def rank_error(self) -> float:
        """Return the normalised rank error of `quantiles` at 99 % (0.0053 at k = 512)."""
        return float(datasketches.kll_floats_sketch.get_normalized_rank_error(K, False))

    def novel(self, signal: str, limit: int = 20) -> list[tuple[bytes, float]]:
        """Return the most frequent categories outside of the dictionary and their weights, largest first."""
        sketch = self._frequent.get(signal)
        if sketch is None:
            return []
        items = sketch.get_frequent_items(datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES)
        found = [(text.encode("latin-1"), float(estimate)) for text, estimate, _, _ in items]
        return sorted(found, key=lambda item: (-item[1], item[0]))[:limit]

    def prune(self, least: float) -> bool:
        """Forget categories that were seen less often than this; return whether there were any."""
        found = False
        for signal, sketch in self._frequent.items():
            items = sketch.get_frequent_items(datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES)
            kept = [(text, estimate) for text, estimate, _, _ in items if estimate >= least]
            if len(kept) < sketch.num_active_items:
                found = True
                fresh = self._frequent[signal] = datasketches.frequent_strings_sketch(FREQUENT_LG)
                for text, estimate in kept:
                    fresh.update(text, round(estimate))
        return found

    def novel_distinct(self, signal: str) -> float:
        """Return about how many distinct categories outside of the dictionary there were."""
        sketch = self._distinct.get(signal)
        return 0.0 if sketch is None else float(sketch.get_estimate())

    def to_bytes(self) -> bytes:
        """Return them as compressed JSON."""
        loaded = {
            "unit": self.unit,
            "quantiles": {name: _packed(s.serialize()) for name, s in self._quantiles.items()},
            "frequent": {name: _packed(s.serialize()) for name, s in self._frequent.items()},
            "distinct": {name: _packed(s.serialize_compact()) for name, s in self._distinct.items()},
        }
        return zlib.compress(orjson.dumps(loaded), 1)


def from_bytes(data: bytes) -> Sketches:
    """Return what `Sketches.to_bytes` wrote.

    Raises:
        ValueError: it did not.
    """
    try:
        loaded = orjson.loads(zlib.decompress(data))
        unit = float(loaded["unit"])
        quantiles: dict[str, Any] = {}
        frequent: dict[str, Any] = {}
        distinct: dict[str, Any] = {}
        for name, text in loaded["quantiles"].items():
            quantiles[name] = datasketches.kll_floats_sketch.deserialize(base64.b64decode(text))
        for name, text in loaded["frequent"].items():
            frequent[name] = datasketches.frequent_strings_sketch.deserialize(base64.b64decode(text))
        for name, text in loaded["distinct"].items():
            distinct[name] = datasketches.hll_sketch.deserialize(base64.b64decode(text))
    except (zlib.error, KeyError, TypeError, AttributeError, RuntimeError) as exc:
        raise ValueError("no sketches") from exc
    return Sketches(unit, quantiles, frequent, distinct)


def merged(parts: Iterable[Sketches]) -> Sketches:
    """Return the sum of sketches."""
    total = Sketches()
    for part in parts:
        total.merge(part)
    return total


def _packed(data: bytes) -> str:
    return base64.b64encode(data).decode()
