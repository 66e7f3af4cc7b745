"""The first look at a reference: which signals there are, their moments, categories, a sample of rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.panes.layout import MAX_WIDTH, signal_names
from gateway.monitor.profile.reference import DICTIONARY
from gateway.predlog.rows import ColumnKind, Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from gateway.predlog.rows import Column, RowBatch

    Floats = npt.NDArray[np.float64]

SAMPLE_ROWS: Final = 100_000
"""Rows that quantiles are taken from, at most."""
SAMPLE_VALUES: Final = 8_000_000
"""Values of that sample in all: 64 MB."""
LEAST_SAMPLE: Final = 5_000
MAX_CATEGORIES: Final = 100_000
"""Categories counted at a time; beyond, the rarer half is forgotten (and found in OTHER later)."""
PROJECTED_ROWS: Final = 4_000
"""Rows of a PROJECTION column in the sample."""


@dataclass(slots=True)
class NumericSurvey:
    """One numeric signal so far; sums are about `centre`, the first chunk's mean."""

    role: Role
    rows: float = 0.0
    missing: float = 0.0
    infinite: float = 0.0
    finite: float = 0.0
    centre: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    least: float = np.inf
    most: float = -np.inf
    integer: bool = True

    def add(self, values: Floats) -> None:
        """Take values in, NaN where missing."""
        self.rows += len(values)
        self.missing += float(np.isnan(values).sum())
        self.infinite += float(np.isinf(values).sum())
        finite = values[np.isfinite(values)]
        if not len(finite):
            return
        if not self.finite:
            self.centre = float(finite.mean())
        about = finite - self.centre
        self.finite += len(finite)
        self.total += float(about.sum())
        self.squares += float(about @ about)
        self.least = min(self.least, float(finite.min()))
        self.most = max(self.most, float(finite.max()))
        self.integer = self.integer and bool((finite == np.rint(finite)).all())

    @property
    def mean(self) -> float:
        """Of finite values; 0 without any."""
        return self.centre + self.total / self.finite if self.finite else 0.0

    @property
    def variance(self) -> float:
        """Of finite values."""
        if not self.finite:
            return 0.0
        return max(self.squares / self.finite - (self.total / self.finite) ** 2, 0.0)


@dataclass(slots=True)
class CategorySurvey:
    """One categorical signal so far."""

    role: Role
    counts: Counter[bytes] = field(default_factory=Counter)

    def add(self, column: Column) -> None:
        """Take a CATEGORY column in."""
        codes = column.values[:, 0]
        found = np.bincount(codes[codes >= 0], minlength=len(column.dictionary))
        for code in np.flatnonzero(found).tolist():
            self.counts[column.dictionary[code]] += int(found[code])
        if len(self.counts) > MAX_CATEGORIES:
            self.counts = Counter(dict(self.counts.most_common(MAX_CATEGORIES // 2)))

    def dictionary(self, least: int = 1) -> tuple[bytes, ...]:
        """Return the most frequent categories of at least so many rows, equally frequent ones by value."""
        known = [(value, count) for value, count in self.counts.items() if count >= least]
        order = sorted(known, key=lambda item: (-item[1], item[0]))
        return tuple(value for value, _ in order[:DICTIONARY])


class Survey:
    """What one pass over the rows gives.

    Attributes:
        rows: how many.
        numeric: by name, in the order of the columns.
        categories: likewise.
        projections: name -> role and width.
        sample: `[k, S]`, rows drawn evenly, by the order of `numeric`; in the order of the data.
        projected: name -> `[k, width]`, likewise.
    """

    def __init__(self, batches: Iterable[RowBatch], seed: int = 1) -> None:
        """Look at all rows once; a signal that a batch lacks is missing there.

        Args:
            batches: the rows; weights are minded by the second pass alone.
            seed: of the sample.
        """
        self.rows = 0
        self.numeric: dict[str, NumericSurvey] = {}
        self.categories: dict[str, CategorySurvey] = {}
        self.projections: dict[str, tuple[Role, int]] = {}
        self.sample: Floats = np.empty((0, 0))
        self.projected: dict[str, Floats] = {}
        self._draw = np.random.Generator(np.random.PCG64(seed))
        self._priority: Floats = np.empty(0)
        self._drawn: list[tuple[Floats, Floats]] = []
        self._pending = 0
        for batch in batches:
            self._add(batch)
        self._choose()

    def _add(self, batch: RowBatch) -> None:
        values: dict[str, Floats] = {}
        for column in batch.columns:
            if column.kind is ColumnKind.CATEGORY and column.values.shape[1] == 1:
                self.categories.setdefault(column.name, CategorySurvey(column.role)).add(column)
            elif column.kind is ColumnKind.NUMERIC and column.values.shape[1] <= MAX_WIDTH:
                for i, name in enumerate(signal_names(column)):
                    values[name] = column.values[:, i].astype(np.float64)
                    if name not in self.numeric:
                        self.numeric[name] = NumericSurvey(column.role, self.rows, self.rows)
            elif column.kind is ColumnKind.PROJECTION:
                self._project(column)
        for name, survey in self.numeric.items():
            survey.add(values.get(name, np.full(batch.rows, np.nan)))
        self._draw_rows(batch.rows, values)
        self.rows += batch.rows

    def _project(self, column: Column) -> None:
        known = self.projections.setdefault(column.name, (column.role, column.values.shape[1]))
        before = self.projected.setdefault(column.name, np.empty((0, known[1])))
        if column.values.shape[1] == known[1] and len(before) < PROJECTED_ROWS:
            room = PROJECTED_ROWS - len(before)
            more = column.values[:room].astype(np.float64)
            self.projected[column.name] = np.concatenate([before, more[np.isfinite(more).all(axis=1)]])

    def _draw_rows(self, rows: int, values: dict[str, Floats]) -> None:
        """Remember rows with a random number each; those of the smallest are the sample."""
        matrix = np.full((rows, len(self.numeric)), np.nan)
        for i, name in enumerate(self.numeric):
            if name in values:
                matrix[:, i] = values[name]
        self._drawn.append((self._draw.random(rows), matrix))
        self._pending += rows
        if self._pending > self._limit():
            self._choose()

    def _choose(self) -> None:
        """Keep the rows of the smallest random numbers, in the order of the data."""
        width = len(self.numeric)
        kept = [(self._priority, self.sample), *self._drawn]
        priority = np.concatenate([numbers for numbers, _ in kept])
        sample = np.full((len(priority), width), np.nan)
        begin = 0
        for _, matrix in kept:
            sample[begin : begin + len(matrix), : matrix.shape[1]] = matrix
            begin += len(matrix)
        limit = self._limit()
        if len(sample) > limit:
            keep = np.sort(np.argpartition(priority, limit)[:limit])
            sample, priority = sample[keep], priority[keep]
        self.sample, self._priority = sample, priority
        self._drawn.clear()
        self._pending = 0

    def _limit(self) -> int:
        return max(LEAST_SAMPLE, min(SAMPLE_ROWS, SAMPLE_VALUES // max(len(self.numeric), 1)))
