"""Which segments a batch's rows are in: values of segment columns, a bounded number of each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.predlog.rows import ColumnKind, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from gateway.predlog.rows import Column, RowBatch

OTHER: Final = "other"

MAX_COLUMNS: Final = 8
"""Segment columns of one version, the first that came."""

MAX_VALUE: Final = 64
"""Characters of a segment's value."""

MAX_DISTINCT: Final = 4096
"""Distinct numbers of a batch's column up to which it is taken for a segment's."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Segmenting:
    """The segments of one version: the first `limit` values of each column that came, then `other`.

    Attributes:
        coarsened: rows that were put into `other`, or left out for want of columns.
    """

    def __init__(self, limit: int) -> None:
        self.coarsened = 0
        self._limit = limit
        self._values: dict[str, dict[str, int]] = {}

    def restore(self, segment: str) -> None:
        """Know a segment that there are panes of."""
        column, _, value = segment.partition("=")
        if value != OTHER:
            values = self._values.setdefault(column, {})
            values.setdefault(value, len(values))

    def split(
        self, batch: RowBatch, rows: slice, extra: tuple[str, ...]
    ) -> Iterator[tuple[list[str], npt.NDArray[np.int64]]]:
        """Yield, by segment column, the segments' names and each row's place among them, -1 where missing.

        Args:
            batch: what was logged.
            rows: of it, those that are looked at.
            extra: names of further columns that segments are made of.
        """
        for column in batch.columns:
            if column.values.shape[1] == 1 and (column.role is Role.SEGMENT or column.name in extra):
                name = _CONTROL.sub(" ", column.name)[:MAX_VALUE].replace("=", "_")
                if name not in self._values and len(self._values) >= MAX_COLUMNS:
                    self.coarsened += rows.stop - rows.start
                    continue
                found = _texts(column, rows)
                if found is not None:
                    yield self._placed(name, *found)

    def _placed(
        self, name: str, texts: list[str], codes: npt.NDArray[np.int64]
    ) -> tuple[list[str], npt.NDArray[np.int64]]:
        values = self._values.setdefault(name, {})
        there = np.bincount(codes[codes >= 0], minlength=len(texts))
        table = np.full(len(texts) + 1, -1, np.int64)
        for code in np.flatnonzero(there).tolist():
            text = texts[code]
            if text not in values and len(values) >= self._limit:
                table[code] = self._limit
                self.coarsened += int(there[code])
            else:
                table[code] = values.setdefault(text, len(values))
        names = [f"{name}={text}" for text in values]
        names += [f"{name}={OTHER}"] * (self._limit + 1 - len(names))
        return names, table[codes]


def _texts(column: Column, rows: slice) -> tuple[list[str], npt.NDArray[np.int64]] | None:
    """Return the distinct values of a column as text, and each row's place among them."""
    if column.kind is ColumnKind.CATEGORY:
        texts = [
            _CONTROL.sub(" ", value.decode("utf-8", "replace"))[:MAX_VALUE] for value in column.dictionary
        ]
        return [text if text != OTHER else "other (value)" for text in texts], column.values[rows, 0].astype(
            np.int64
        )
    if column.kind is not ColumnKind.NUMERIC:
        return None
    numbers = column.values[rows, 0].astype(np.float64)
    distinct, places = np.unique(numbers, return_inverse=True)
    if len(distinct) > MAX_DISTINCT:
        return None
    known = np.append(np.isfinite(distinct), False)
    return [f"{number:g}" for number in distinct], np.where(known[places], places, -1)
