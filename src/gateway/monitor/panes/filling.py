"""Rows into panes: what one batch comes to, laid out once and added to each pane that its rows belong to.

Everything is done by signal over all rows together; the groups (arm and minute, segment) only cut the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.panes.embedding import Thinned, embedded
from gateway.monitor.panes.layout import (
    BELOW,
    FLAGS,
    INFINITE,
    LATENCY_BINS,
    MISSING,
    SCORE_BINS,
    TYPE,
    signal_names,
)
from gateway.predlog.rows import ColumnKind, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from gateway.monitor.panes.layout import EmbeddingSignal, Layout, ScoreSignal
    from gateway.monitor.panes.pane import Pane
    from gateway.predlog.rows import Column, RowBatch

    Floats = npt.NDArray[np.float64]
    Indexes = npt.NDArray[np.int64]

ELEMENTS: Final = 1 << 20
"""Values that are laid out at a time: 8 MiB for each array of them."""

STATUS_LENGTH: Final = 64

_ABOVE: Final = BELOW + 1


def chunk_rows(layout: Layout) -> int:
    """Return how many rows of a layout are laid out at a time."""
    return max(256, ELEMENTS // max(1, len(layout.numeric), len(layout.categories)))


@dataclass(frozen=True, slots=True)
class Novel:
    """Categories of one signal that the reference's dictionary lacks.

    Attributes:
        signal: name.
        values: the categories.
        weights: `[len(values)]`.
    """

    signal: str
    values: list[bytes]
    weights: Floats


class Filling:
    """Some rows of a batch laid out as a layout wants them; `add` them to panes as often as needed.

    Attributes:
        values: `[S, rows]` float64, NaN where missing or of the wrong type.
        finite: `[S, rows]`.
        weights: `[rows]`.
    """

    def __init__(self, layout: Layout, batch: RowBatch, rows: slice, embedding_rows: int) -> None:
        self._layout = layout
        self._batch = batch
        self._rows = rows
        self.weights: Floats = batch.weights[rows].astype(np.float64)
        self._answered = _answered(batch, rows)
        self._columns: dict[tuple[Role, str], Column] = {(c.role, c.name): c for c in batch.columns}
        # Segments may be made of an input, which is logged as such.
        for column in batch.columns:
            if column.role is Role.INPUT:
                self._columns.setdefault((Role.SEGMENT, column.name), column)
        # Rows that never ran have no columns: there is nothing to say about their values.
        self._ran = bool(batch.columns)
        self._tables: dict[int, Indexes] = {}
        self.values, self._wrong = self._matrix()
        self.finite = np.isfinite(self.values)
        self._whole = bool(self.finite.all())
        self._bins, self._deviations = self._binned()
        self._events = self._flagged()
        self._codes, self._category_events = self._coded()
        self._scores = self._scored(layout.scores) if layout.scores and self._ran else None
        self._embedded: list[Thinned | None] = []
        if self._ran:
            picks = batch.key_hashes[rows]
            for signal in layout.embeddings:
                self._embedded.append(
                    embedded(signal, self._embedding_rows(signal), self.weights, picks, embedding_rows)
                )

    @property
    def rows(self) -> int:
        """How many rows were laid out."""
        return len(self.weights)

    def _matrix(self) -> tuple[Floats, list[int]]:
        layout, index = self._layout, self._layout.numeric_index
        values = np.full((len(layout.numeric), self.rows), np.nan)
        wrong: list[int] = []
        for column in self._batch.columns:
            if column.kind is ColumnKind.NUMERIC:
                for i, name in enumerate(signal_names(column)):
                    at = index.get(name)
                    if at is not None and layout.numeric[at].role is column.role:
                        values[at] = column.values[self._rows, i]
            elif (at := index.get(column.name)) is not None and layout.numeric[at].role is column.role:
                wrong.append(at)
        return values, wrong

    def _binned(self) -> tuple[Indexes, Floats]:
        """Return each value's place in the flattened counts (non-finite ones beyond them), and x - c."""
        layout = self._layout
        bins = np.empty(self.values.shape, np.int64)
        for i, signal in enumerate(layout.numeric):
            np.add(np.searchsorted(signal.edges, self.values[i]), i * layout.bins, out=bins[i])
        centre = np.array([signal.mean for signal in layout.numeric])
        deviations = self.values - centre[:, None]
        if not self._whole:
            outside = ~self.finite
            bins[outside] = len(layout.numeric) * layout.bins
            deviations[outside] = 0.0
        return bins, deviations

    def _flagged(self) -> tuple[Indexes, Indexes]:
        """Return (place in the flattened flags, row) of every value that has one."""
        values, layout = self.values, self._layout
        low = np.array([signal.low for signal in layout.numeric])[:, None]
        high = np.array([signal.high for signal in layout.numeric])[:, None]
        whole = [i for i, signal in enumerate(layout.numeric) if signal.integer]
        codes = np.full(values.shape, -1, np.int8)
        np.putmask(codes, values < low, BELOW)
        np.putmask(codes, values > high, _ABOVE)
        if whole:
            part = values[whole]
            codes[whole] = np.where(part != np.rint(part), np.int8(TYPE), codes[whole])
        if not self._whole:
            codes[np.isinf(values)] = INFINITE
            codes[np.isnan(values)] = MISSING
        codes[self._wrong] = TYPE
        if not self._ran:
            codes[:] = -1
        elif not self._answered.all():
            codes[(codes == MISSING) & ~self._answered] = -1
        signals, rows = np.nonzero(codes >= 0)
        return signals * len(FLAGS) + codes[signals, rows], rows

    def _coded(self) -> tuple[Indexes, tuple[Indexes, Indexes]]:
        """Return each category's place in the flattened counts, and (place in the flags, row) of others."""
        layout = self._layout
        codes = np.full((len(layout.categories), self.rows), int(layout.category_starts[-1]), np.int64)
        flags = np.full(codes.shape, 0 if self._ran else -1, np.int8)
        for i, signal in enumerate(layout.categories):
            column = self._columns.get((signal.role, signal.name))
            if column is None:
                continue
            if column.kind is not ColumnKind.CATEGORY or column.values.shape[1] != 1:
                flags[i] = 1
                continue
            found = self._table(i, column)[column.values[self._rows, 0]]
            codes[i] = np.where(found < 0, codes[i], found + layout.category_starts[i])
            flags[i] = np.where(found < 0, 0, -1)
        if not self._answered.all():
            flags[(flags == 0) & ~self._answered] = -1
        signals, rows = np.nonzero(flags >= 0)
        return codes, (signals * 2 + flags[signals, rows], rows)

    def _table(self, index: int, column: Column) -> Indexes:
        """Return the reference's code by the column's own; OTHER is the last, -1 stands at the end."""
        table = self._tables.get(index)
        if table is None:
            values = self._layout.categories[index].values
            places = {value: i for i, value in enumerate(values)}
            other = len(values)
            table = np.array([places.get(value, other) for value in column.dictionary] + [-1], np.int64)
            self._tables[index] = table
        return table

    @property
    def signals(self) -> list[str]:
        """Names of the numeric signals, in the order of `values`."""
        return [signal.name for signal in self._layout.numeric]

    def novel(self, rows: Indexes) -> list[Novel]:
        """Return the categories of some rows that the reference lacks, with their weights."""
        found = []
        for i, signal in enumerate(self._layout.categories):
            column = self._columns.get((signal.role, signal.name))
            if column is None or column.kind is not ColumnKind.CATEGORY or column.values.shape[1] != 1:
                continue
            other = np.flatnonzero(self._table(i, column)[:-1] == len(signal.values))
            if not len(other):
                continue
            codes = column.values[self._rows, 0][rows]
            known = codes >= 0
            by_code = np.bincount(codes[known], self.weights[rows][known], len(column.dictionary))
            weights = np.asarray(by_code[other], np.float64)
            there = weights > 0
            values = [column.dictionary[code] for code in other[there].tolist()]
            if values:
                found.append(Novel(signal.name, values, weights[there]))
        return found

    def _scored(self, scores: ScoreSignal) -> tuple[Indexes, Indexes, Floats] | None:
        """Return (place in the flattened scores, row, score) of every score in [0, 1]."""
        places = [self._layout.numeric_index.get(name) for name in scores.signals]
        if None in places:
            return None
        values = self.values[[p for p in places if p is not None]]
        classes = len(values)
        chosen = self._predicted(scores, values)
        predicted = chosen[None, :] == (np.array([[1]]) if classes == 1 else np.arange(classes)[:, None])
        with np.errstate(invalid="ignore"):
            inside = (values >= 0) & (values <= 1)
            bins = np.minimum((np.where(inside, values, 0.0) * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
        which, rows = np.nonzero(inside)
        places_flat = ((which * 2 + predicted[which, rows]) * 2) * SCORE_BINS + bins[which, rows]
        return places_flat, rows, values[which, rows]

    def _predicted(self, scores: ScoreSignal, values: Floats) -> Indexes:
        """Return `[rows]`, the predicted class by its place in `scores.classes`; -1 where it is another."""
        labels = list(scores.classes) or ["0", "1"]
        at = self._layout.category_index.get(scores.prediction) if scores.prediction else None
        if at is not None:
            signal = self._layout.categories[at]
            column = self._columns.get((signal.role, signal.name))
            if column is not None and column.kind is ColumnKind.CATEGORY:
                names = {label.encode(): i for i, label in enumerate(labels)}
                table = np.array([*(names.get(value, -1) for value in column.dictionary), -1], np.int64)
                return np.asarray(table[column.values[self._rows, 0]])
        number = self._layout.numeric_index.get(scores.prediction) if scores.prediction else None
        if number is not None:
            return _label_places(self.values[number], labels)
        if len(values) == 1:
            return np.asarray(values[0] >= scores.threshold, np.int64)
        return np.asarray(np.argmax(np.where(np.isnan(values), -np.inf, values), axis=0))

    def _embedding_rows(self, signal: EmbeddingSignal) -> Floats | None:
        if signal.members:
            places = [self._layout.numeric_index.get(name) for name in signal.members]
            return None if None in places else self.values[[p for p in places if p is not None]].T
        column = self._columns.get((signal.role, signal.name))
        if column is None or column.values.shape[1] != signal.width or column.kind is ColumnKind.CATEGORY:
            return None
        return np.asarray(column.values[self._rows], np.float64)

    def add(self, panes: Sequence[Pane | None], groups: Indexes) -> None:
        """Add the rows to panes, all of one layout: this one, or its `for_segment`.

        Args:
            panes: by group; None: its rows are left out.
            groups: `[rows]`, each row's place in `panes`; -1: left out.
        """
        if len(panes) == 1 and panes[0] is not None and not groups.any():
            self._add(panes[0], None)
            return
        order = np.argsort(groups, kind="stable")
        bounds = np.searchsorted(groups[order], np.arange(len(panes) + 1))
        for i, pane in enumerate(panes):
            if pane is not None and bounds[i] < bounds[i + 1]:
                self._add(pane, order[bounds[i] : bounds[i + 1]])

    def _add(self, pane: Pane, rows: Indexes | None) -> None:
        """Add some rows (None: all) to a pane."""
        everything = rows is None
        weights = self.weights if rows is None else self.weights[rows]
        answered = self._answered if rows is None else self._answered[rows]
        pane.sums[:4] += np.array([len(weights), weights.sum(), weights @ weights, weights[answered].sum()])
        self._add_statuses(pane, rows, weights)
        if not self._ran:
            return
        bins = self._bins if everything else self._bins[:, rows]
        counts = pane.counts
        counts += _counted(bins, weights, counts.size + 1)[:-1].reshape(counts.shape)
        self._add_moments(pane, rows, weights)
        inside = np.ones(self.rows, bool) if rows is None else np.zeros(self.rows, bool)
        inside[rows] = True
        _add_events(pane.flags, self._events, inside, self.weights)
        _add_events(pane.category_flags, self._category_events, inside, self.weights)
        if len(self._codes):
            section = pane.sums[pane.layout.offsets["category_counts"]]
            codes = self._codes if everything else self._codes[:, rows]
            section += _counted(codes, weights, section.size + 1)[:-1]
        if self._scores is not None:
            self._add_scores(pane, self._scores, inside)
        latency = pane.latency
        for row, durations in enumerate((self._batch.queue_us, self._batch.infer_us)):
            chosen = durations[self._rows] if everything else durations[self._rows][rows]
            places = np.minimum(np.log2(np.maximum(chosen, 1)).astype(np.int64), LATENCY_BINS - 1)
            latency[row] += np.bincount(places, weights, LATENCY_BINS)
        for i in range(len(pane.layout.embeddings)):
            thinned = self._embedded[i]
            if thinned is not None:
                thinned.add(pane.embedding(i), pane.embedding_weights[i], inside)

    def _add_statuses(self, pane: Pane, rows: Indexes | None, weights: Floats) -> None:
        codes = self._batch.status_codes[self._rows]
        by_status = np.bincount(codes if rows is None else codes[rows], weights, len(self._batch.statuses))
        for code in np.flatnonzero(by_status).tolist():
            name = " ".join(self._batch.statuses[code].split())[:STATUS_LENGTH]
            pane.count_status(name, float(by_status[code]))

    def _add_moments(self, pane: Pane, rows: Indexes | None, weights: Floats) -> None:
        if not len(self.values):
            return
        deviations = self._deviations if rows is None else self._deviations[:, rows]
        values = self.values if rows is None else self.values[:, rows]
        moments = pane.moments
        if self._whole:
            moments[:, 0] += weights.sum()
            least, most = values, values
        else:
            finite = self.finite if rows is None else self.finite[:, rows]
            moments[:, 0] += finite @ weights
            least, most = np.where(finite, values, np.inf), np.where(finite, values, -np.inf)
        moments[:, 1] += deviations @ weights
        moments[:, 2] += np.einsum("ij,ij,j->i", deviations, deviations, weights)
        np.minimum(pane.extremes[0], least.min(axis=1), out=pane.extremes[0])
        np.maximum(pane.extremes[1], most.max(axis=1), out=pane.extremes[1])

    def _add_scores(
        self, pane: Pane, scored: tuple[Indexes, Indexes, Floats], inside: npt.NDArray[np.bool_]
    ) -> None:
        places, rows, scores = scored
        chosen = inside[rows]
        section = pane.sums[pane.layout.offsets["scores"]]
        weights = self.weights[rows][chosen]
        section += np.bincount(places[chosen], weights, section.size)
        section += np.bincount(places[chosen] + SCORE_BINS, weights * scores[chosen], section.size)


def _answered(batch: RowBatch, rows: slice) -> npt.NDArray[np.bool_]:
    well = np.array([status == "" for status in batch.statuses], bool)
    return np.asarray(well[batch.status_codes[rows]])


def _counted(places: Indexes, weights: Floats, size: int) -> Floats:
    """Return the weights by place, of `[signals, rows]` places."""
    first = weights[0] if len(weights) else 1.0
    if (weights == first).all():
        return np.asarray(np.bincount(places.ravel(), minlength=size) * float(first))
    return np.asarray(
        np.bincount(places.ravel(), np.broadcast_to(weights, places.shape).ravel(), size), np.float64
    )


def _add_events(
    section: Floats, events: tuple[Indexes, Indexes], inside: npt.NDArray[np.bool_], weights: Floats
) -> None:
    places, rows = events
    if len(places):
        chosen = inside[rows]
        section += np.bincount(places[chosen], weights[rows[chosen]], section.size).reshape(section.shape)


def _label_places(values: Floats, labels: list[str]) -> Indexes:
    found = np.full(len(values), -1, np.int64)
    for i, label in enumerate(labels):
        try:
            found[values == float(label)] = i
        except ValueError:
            continue
    return found
