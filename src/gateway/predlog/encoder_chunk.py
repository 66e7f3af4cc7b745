"""Entries of the ring that are encoded together, so that small batches cost little each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.predlog.ring import Ran, Rejected
from gateway.predlog.rows import Role
from gateway.predlog.sampling import Offered
from gateway.predlog.times import Times, microseconds

if TYPE_CHECKING:
    from gateway.core.errors import GatewayError
    from gateway.core.events import CompletedBatch
    from gateway.core.types import Array, VersionId
    from gateway.predlog.layouts import Layout, PlannedTensor

CHUNK_REQUESTS: Final = 256
CHUNK_BYTES: Final = 1 << 20
"""A chunk is closed at so many requests or bytes: larger ones save nothing and hold the lock longer."""


class Chunk:
    """Entries of one version and one layout: all of them runs, or all of them rejected requests.

    Attributes:
        version: whose.
        layout: of their rows; None where nothing of them may leave.
        entries: in the order of their completion.
        runs: of the entries; none where they are rejected requests.
        rows: of all.
        now_s: monotonic time of the last.
    """

    __slots__ = ("_nbytes", "_requests", "entries", "layout", "now_s", "rows", "runs", "version")

    def __init__(self, version: VersionId, layout: Layout | None) -> None:
        self.version = version
        self.layout = layout
        self.entries: list[Ran | Rejected] = []
        self.runs: list[CompletedBatch] = []
        self.rows = 0
        self.now_s = 0.0
        self._requests = 0
        self._nbytes = 0

    def add(self, entries: list[Ran | Rejected]) -> bool:
        """Add entries of its kind; return whether the chunk is to be encoded now."""
        self.entries += entries
        self.rows += sum([entry.rows for entry in entries])
        self.now_s = entries[-1].done_s
        self._nbytes += sum([entry.nbytes for entry in entries])
        if isinstance(entries[0], Ran):
            runs = [entry.batch for entry in entries if isinstance(entry, Ran)]
            self.runs += runs
            self._requests += sum([len(batch.members) for batch in runs])
        else:
            self._requests += len(entries)
        return self._requests >= CHUNK_REQUESTS or self._nbytes >= CHUNK_BYTES

    def offered(self) -> Offered:
        """Return the requests of all entries."""
        runs = self.runs
        if not runs:
            rejected = [entry for entry in self.entries if isinstance(entry, Rejected)]
            refusals: list[GatewayError | None] = [entry.error for entry in rejected]
            return Offered([entry.request for entry in rejected], [1] * len(rejected), refusals)
        members = [member for batch in runs for member in batch.members]
        errors = [member.error for member in members]
        if any(batch.error for batch in runs):
            failures = [batch.error for batch in runs for _ in batch.members]
            errors = [error or failure for error, failure in zip(errors, failures, strict=True)]
        first_rows = [member.first_row for member in members]
        return Offered(
            [member.request for member in members],
            [member.rows for member in members],
            errors if any(errors) else None,
            first_rows if any(first_rows) else None,
        )

    def times(self, offered: Offered) -> Times:
        """Return when the requests of `offered` came and went."""
        requests, entries, runs = offered.requests, self.entries, self.runs
        done_ns = np.array([entry.done_ns for entry in entries], np.int64)
        done_s = np.array([entry.done_s for entry in entries])
        infer_ns = np.array([batch.compute_infer_ns for batch in runs], np.int64)
        if len(requests) != len(entries):
            counts = np.array([len(batch.members) for batch in runs])
            done_ns, done_s, infer_ns = (each.repeat(counts) for each in (done_ns, done_s, infer_ns))
        arrived_s = np.array([request.arrived_s for request in requests])
        age_ns = ((done_s - arrived_s) * 1e9).astype(np.int64)
        age_ns[arrived_s == 0] = 0
        if not runs:
            nothing = np.zeros(len(requests), np.uint32)
            return Times(done_ns - age_ns, done_ns, nothing, nothing)
        queue_ns = np.array([m.queue_ns for batch in runs for m in batch.members], np.int64)
        return Times(done_ns - age_ns, done_ns, microseconds(queue_ns), microseconds(infer_ns))

    def values(self, tensor: PlannedTensor) -> Array:
        """Return a tensor's rows of all entries, `[rows, width]`: a view where there is one entry."""
        name, runs, rows = tensor.name, self.runs, [entry.rows for entry in self.entries]
        held = [batch.inputs for batch in runs] if tensor.role is Role.INPUT else [b.outputs for b in runs]
        arrays: list[Array] = [each[name] for each in held if each is not None]
        # Members' rows are distinct: as many as an array has are all of its rows, in order.
        if tensor.axis != 0 or [array.shape[0] for array in arrays] != rows:
            whole = zip(runs, rows, arrays, strict=True)
            arrays = [_flat(_values(batch, count, tensor, array)) for batch, count, array in whole]
        return _flat(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))


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
