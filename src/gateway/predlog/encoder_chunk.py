"""Entries of the ring that are encoded together, so that small batches cost little each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.predlog.ring import Ran
from gateway.predlog.rows import Role
from gateway.predlog.sampling import Offered

if TYPE_CHECKING:
    from gateway.core.errors import GatewayError
    from gateway.core.events import CompletedBatch
    from gateway.core.types import Array, InferRequest, VersionId
    from gateway.predlog.layouts import Layout, PlannedTensor
    from gateway.predlog.ring import Rejected

CHUNK_REQUESTS: Final = 256
CHUNK_BYTES: Final = 1 << 20
"""A chunk is closed at so many requests or bytes: larger ones save nothing and hold the lock longer."""

_MICROSECONDS: Final = (1 << 32) - 1


class Times:
    """When requests came and went; arrays of one element per request.

    Attributes:
        arrived_ns: wall clock.
        done_ns: wall clock.
        queue_us: microseconds in queue.
        infer_us: microseconds of the run.
    """

    __slots__ = ("arrived_ns", "done_ns", "infer_us", "queue_us")

    def __init__(self, arrived_ns: Array, done_ns: Array, queue_us: Array, infer_us: Array) -> None:
        self.arrived_ns = arrived_ns
        self.done_ns = done_ns
        self.queue_us = queue_us
        self.infer_us = infer_us

    def of(self, places: list[int]) -> Times:
        """Return those of some requests."""
        return Times(
            self.arrived_ns[places], self.done_ns[places], self.queue_us[places], self.infer_us[places]
        )


class Chunk:
    """Entries of one version and one layout: all of them runs, or all of them rejected requests.

    Attributes:
        version: whose.
        layout: of their rows; None where nothing of them may leave.
        entries: in the order of their completion.
        rows: of all.
        now_s: monotonic time of the last.
    """

    __slots__ = ("_nbytes", "_requests", "entries", "layout", "now_s", "rows", "version")

    def __init__(self, version: VersionId, layout: Layout | None) -> None:
        self.version = version
        self.layout = layout
        self.entries: list[Ran | Rejected] = []
        self.rows = 0
        self.now_s = 0.0
        self._requests = 0
        self._nbytes = 0

    def add(self, entry: Ran | Rejected) -> bool:
        """Add an entry; return whether the chunk is to be encoded now."""
        self.entries.append(entry)
        self.rows += entry.rows
        self.now_s = entry.done_s
        self._requests += len(entry.batch.members) if isinstance(entry, Ran) else 1
        self._nbytes += entry.nbytes
        return self._requests >= CHUNK_REQUESTS or self._nbytes >= CHUNK_BYTES

    def offered(self) -> Offered:
        """Return the requests of all entries."""
        requests: list[InferRequest] = []
        rows: list[int] = []
        errors: list[GatewayError | None] = []
        first_rows: list[int] = []
        for entry in self.entries:
            if isinstance(entry, Ran):
                members, failure = entry.batch.members, entry.batch.error
                requests += [m.request for m in members]
                rows += [m.rows for m in members]
                errors += [m.error or failure for m in members]
                first_rows += [m.first_row for m in members]
            else:
                requests.append(entry.request)
                rows.append(1)
                errors.append(entry.error)
                first_rows.append(0)
        return Offered(
            requests, rows, errors if any(errors) else None, first_rows if any(first_rows) else None
        )

    def times(self, requests: list[InferRequest]) -> Times:
        """Return when the requests of `offered` came and went."""
        entries = self.entries
        runs = [entry.batch for entry in entries if isinstance(entry, Ran)]
        counts = [len(batch.members) for batch in runs] or [1] * len(entries)
        done_ns = np.array([entry.done_ns for entry in entries], np.int64).repeat(counts)
        done_s = np.array([entry.done_s for entry in entries]).repeat(counts)
        arrived_s = np.array([request.arrived_s for request in requests])
        age_ns = ((done_s - arrived_s) * 1e9).astype(np.int64)
        age_ns[arrived_s == 0] = 0
        if not runs:
            nothing = np.zeros(len(requests), np.uint32)
            return Times(done_ns - age_ns, done_ns, nothing, nothing)
        queue_ns = np.array([m.queue_ns for batch in runs for m in batch.members], np.int64)
        infer_ns = np.array([batch.compute_infer_ns for batch in runs], np.int64).repeat(counts)
        return Times(done_ns - age_ns, done_ns, _microseconds(queue_ns), _microseconds(infer_ns))

    def values(self, tensor: PlannedTensor) -> Array:
        """Return a tensor's rows of all entries, `[rows, width]`: a view where there is one entry."""
        parts: list[Array] = []
        name, axis, is_input = tensor.name, tensor.axis, tensor.role is Role.INPUT
        for entry in self.entries:
            if not isinstance(entry, Ran):
                continue
            batch = entry.batch
            arrays = batch.inputs if is_input else batch.outputs
            assert arrays is not None
            array = arrays[name]
            # Members' rows are distinct: as many as the array has are all of its rows, in order.
            if axis != 0 or array.shape[0] != entry.rows:
                array = _values(batch, entry.rows, tensor, array)
            parts.append(array)
        joined = parts[0] if len(parts) == 1 else np.concatenate([_flat(part) for part in parts])
        return _flat(joined)


def _microseconds(nanoseconds: Array) -> Array:
    return np.asarray(np.clip(nanoseconds // 1000, 0, _MICROSECONDS), np.uint32)


def _flat(array: Array) -> Array:
    """Return an array of rows as `[rows, width]`."""
    return array if array.ndim == 2 else array.reshape(array.shape[0], -1)


def _values(batch: CompletedBatch, rows: int, tensor: PlannedTensor, array: Array) -> Array:
    """Return the rows of a batch's members, which need not be all that it ran."""
    members = batch.members
    first, last = members[0].start_row, members[-1].start_row + members[-1].rows
    values = tensor.rows_of(array, last)
    if last - first == rows:
        return values[first:last]
    return values[[row for m in members for row in range(m.start_row, m.start_row + m.rows)]]
