"""Rows of one layout, gathered from run after run until they are worth a batch of the log."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.predlog.redaction import Vocabulary
from gateway.predlog.rows import Column, ColumnKind, RowBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from gateway.core.types import Array, VersionId
    from gateway.predlog.layouts import Layout
    from gateway.predlog.sampling import Offered, Picked
    from gateway.predlog.times import Times

ROW_BYTES: Final = 64
"""Of a row without its key and columns, about."""


class Kept:
    """The requests of one chunk that are kept; one element of each per request.

    Attributes:
        picked: what is known of them.
        requests: the requests.
        rows: of each.
        first_rows: of each within its request; None: 0.
        statuses: error class name of each, or "".
        times: when they came and went.
        total: rows of all.
    """

    __slots__ = ("first_rows", "picked", "requests", "rows", "statuses", "times", "total")

    def __init__(self, offered: Offered, picked: Picked, times: Times) -> None:
        places = picked.places
        self.picked = picked
        self.requests = offered.requests
        self.rows = offered.rows
        self.first_rows = offered.first_rows
        self.times = times
        errors = offered.errors
        if places is not None:
            self.requests = [offered.requests[place] for place in places] if offered.requests else []
            self.rows = [offered.rows[place] for place in places]
            self.times = times.of(places)
            if self.first_rows is not None:
                self.first_rows = [self.first_rows[place] for place in places]
            errors = None if errors is None else [errors[place] for place in places]
        self.total = sum(self.rows)
        self.statuses = [""] * len(self.rows)
        if errors is not None:
            self.statuses = ["" if error is None else type(error).__name__ for error in errors]

    def rows_among(self, offered: list[int]) -> Array | None:
        """Return the places of their rows among those of all requests offered; None where these are all.

        Args:
            offered: rows of each request offered.
        """
        places = self.picked.places
        if places is None:
            return None
        chosen = np.zeros(len(offered), np.bool_)
        chosen[places] = True
        return np.flatnonzero(chosen.repeat(offered))


class Gathered:
    """Rows of one version and one layout. One thread.

    Args:
        version: whose rows.
        policy: identity of the redaction.
        layout: the columns.

    Attributes:
        rows: gathered so far.
        nbytes: about what they take.
        vocabularies: one for each tensor, then one for each segment.
    """

    def __init__(self, version: VersionId, policy: str, layout: Layout) -> None:
        self.rows = 0
        self.nbytes = 0
        self._requests = 0
        self._version = version
        self._policy = policy
        self._layout = layout
        self._specs = layout.specs()
        fixed = [tensor.plan.fixed for tensor in layout.tensors]
        self.vocabularies = [Vocabulary(values) for values in (*fixed, *((),) * len(layout.segments))]
        self._columns: list[list[Array]] = [[] for _ in self._specs]
        self._counts: list[Array] = []
        self._first_rows: list[Array] = []
        self._keys: list[bytes] = []
        self._hashes: list[Array] = []
        self._reasons: list[Array] = []
        self._weights: list[Array] = []
        self._subjects: list[Array] = []
        self._arms: dict[str, int] = {}
        self._arm_codes: list[Array] = []
        self._statuses: dict[str, int] = {}
        self._status_codes: list[Array] = []
        self._arrived_ns: list[Array] = []
        self._done_ns: list[Array] = []
        self._queue_us: list[Array] = []
        self._infer_us: list[Array] = []

    def add(self, kept: Kept, columns: Sequence[Array]) -> None:
        """Add the requests of one chunk that were kept.

        Args:
            kept: the requests.
            columns: `[rows, width]` for each column, in the layout's order; not copied before `build`.
        """
        picked, times, first_rows = kept.picked, kept.times, kept.first_rows
        requests = len(kept.rows)
        # What can fail comes first: rows are gathered whole or not at all.
        counts = np.array(kept.rows, np.int64)
        firsts = np.zeros(requests, np.int64) if first_rows is None else np.array(first_rows, np.int64)
        arm_codes, status_codes = _codes(self._arms, picked.arms), _codes(self._statuses, kept.statuses)
        for gathered, column in zip(self._columns, columns, strict=True):
            gathered.append(column)
        self._requests += requests
        self._counts.append(counts)
        self._first_rows.append(firsts)
        self._arm_codes.append(arm_codes)
        self._status_codes.append(status_codes)
        self._keys += picked.keys
        self._hashes.append(picked.hashes)
        self._reasons.append(picked.reasons)
        self._weights.append(picked.weights)
        self._subjects.append(picked.subjects)
        self._arrived_ns.append(times.arrived_ns)
        self._done_ns.append(times.done_ns)
        self._queue_us.append(times.queue_us)
        self._infer_us.append(times.infer_us)
        self.rows += kept.total
        keys = sum(map(len, picked.keys)) * kept.total // requests
        self.nbytes += keys + kept.total * ROW_BYTES + sum([column.nbytes for column in columns])

    def build(self, breathe: Callable[[], None]) -> RowBatch:
        """Return the batch; its arrays are its own.

        Args:
            breathe: called between pieces of the work, so that others may have the interpreter.
        """
        counts = np.concatenate(self._counts)
        single = self.rows == self._requests

        def joined(parts: list[Array]) -> npt.NDArray[Any]:
            array = np.concatenate(parts)
            breathe()
            return array if single else array.repeat(counts)

        starts = np.cumsum(counts) - counts - np.concatenate(self._first_rows)
        keys = self._keys
        if not single:
            keys = [key for key, count in zip(keys, counts.tolist(), strict=True) for _ in range(count)]
        return RowBatch(
            model=self._version.model,
            version=self._version.number,
            digest=self._version.digest,
            policy=self._policy,
            rows=self.rows,
            keys=tuple(keys),
            key_hashes=joined(self._hashes),
            row_indexes=(np.arange(self.rows) - (starts if single else starts.repeat(counts))).astype(
                np.uint32
            ),
            arrived_ns=joined(self._arrived_ns),
            done_ns=joined(self._done_ns),
            queue_us=joined(self._queue_us),
            infer_us=joined(self._infer_us),
            arms=tuple(self._arms),
            arm_codes=joined(self._arm_codes),
            statuses=tuple(self._statuses),
            status_codes=joined(self._status_codes),
            reasons=joined(self._reasons),
            weights=joined(self._weights),
            columns=tuple(self._built_columns(breathe)),
            subject_hashes=joined(self._subjects),
        )

    def _built_columns(self, breathe: Callable[[], None]) -> Iterator[Column]:
        tensors = [
            vocabulary
            for tensor, vocabulary in zip(self._layout.tensors, self.vocabularies, strict=False)
            for _ in tensor.plan.specs
        ]
        vocabularies = [*tensors, *self.vocabularies[len(self._layout.tensors) :]]
        for spec, parts, vocabulary in zip(self._specs, self._columns, vocabularies, strict=True):
            values = np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts))
            values = values.reshape(len(values), -1)
            if not values.shape[1]:
                continue
            values.flags.writeable = False
            breathe()
            dictionary = vocabulary.values() if spec.kind is ColumnKind.CATEGORY else ()
            yield Column(spec.name, spec.role, spec.kind, values, dictionary, spec.labels)


def _codes(names: dict[str, int], values: list[str]) -> Array:
    """Return the codes of some names, of which most often all are the same; uint8."""
    if values.count(values[0]) == len(values):
        return np.full(len(values), names.setdefault(values[0], len(names)), np.uint8)
    return np.array([names.setdefault(value, len(names)) for value in values], np.uint8)


def split(batch: RowBatch, most_bytes: int, nbytes: int) -> Iterator[RowBatch]:
    """Cut a batch into pieces of at most about `most_bytes`, one row at least.

    Args:
        batch: all rows.
        most_bytes: of a piece.
        nbytes: of all.
    """
    pieces = -(-nbytes // most_bytes)
    if pieces <= 1 or batch.rows == 1:
        yield batch
        return
    step = max(1, batch.rows // pieces)
    for start in range(0, batch.rows, step):
        yield _rows(batch, slice(start, min(start + step, batch.rows)))


def _rows(batch: RowBatch, part: slice) -> RowBatch:
    columns = [replace(column, values=column.values[part]) for column in batch.columns]
    return replace(
        batch,
        rows=part.stop - part.start,
        keys=batch.keys[part],
        key_hashes=batch.key_hashes[part],
        row_indexes=batch.row_indexes[part],
        arrived_ns=batch.arrived_ns[part],
        done_ns=batch.done_ns[part],
        queue_us=batch.queue_us[part],
        infer_us=batch.infer_us[part],
        arm_codes=batch.arm_codes[part],
        status_codes=batch.status_codes[part],
        reasons=batch.reasons[part],
        weights=batch.weights[part],
        columns=tuple(columns),
        subject_hashes=batch.subject_hashes[part],
    )
