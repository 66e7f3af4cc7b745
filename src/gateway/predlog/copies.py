"""Rows that are copied as their run ends, so that nothing of requests or batches is kept alive for the log.

Small runs would else be read again when they are cold, one object after the other, and their memory be given
back by another thread. Runs unlike the one that a plan was made from are left to whoever asks.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from gateway.predlog.join_keys import SHADOW_FLOW, arm_of
from gateway.predlog.rows import NO_ARM, Role
from gateway.predlog.sampling import Offered
from gateway.predlog.times import Times, microseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.events import CompletedBatch
    from gateway.core.types import Array, VersionId
    from gateway.predlog.join_keys import Source
    from gateway.predlog.layouts import Layout, PlannedTensor

COPY_ROWS: Final = 512
COPY_BYTES: Final = 1 << 20
"""Rows are encoded together when there are so many, or so many bytes."""

MAX_ROW_BYTES: Final = 4096
"""Larger rows are not copied: to keep them costs less than the event loop's time."""

REQUEST_BYTES: Final = 256
"""What a request is charged for its key and record."""

_RECORD: Final = np.dtype(
    [
        ("done_ns", "<i8"),
        ("done_s", "<f8"),
        ("infer_ns", "<i8"),
        ("queue_ns", "<i8"),
        ("arrived_s", "<f8"),
        ("rows", "<i8"),
    ]
)
_pack: Final = struct.Struct("<qdqqdq").pack


class CopiedTensor(NamedTuple):
    """A tensor of the runs that are copied.

    Attributes:
        name: of the tensor.
        dtype: of its elements.
        row_shape: of one row.
        one_shape: of an array of one row.
    """

    name: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    one_shape: tuple[int, ...]


class CopiedTensors:
    """What the inputs, or the outputs, of runs are like whose rows are copied.

    Attributes:
        logged: tensors whose rows are wanted.
        others: names of the other tensors.
        count: of both.
    """

    __slots__ = ("count", "logged", "others")

    def __init__(self, arrays: Mapping[str, Array], logged: set[str]) -> None:
        self.count = len(arrays)
        self.others = tuple([name for name in arrays if name not in logged])
        self.logged = tuple(
            [
                CopiedTensor(name, array.dtype, array.shape[1:], (1, *array.shape[1:]))
                for name, array in arrays.items()
                if name in logged
            ]
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's values."""
        return sum([tensor.dtype.itemsize * math.prod(tensor.row_shape) for tensor in self.logged])

    def is_like(self, other: CopiedTensors) -> bool:
        """Whether both are the same."""
        return (self.logged, self.others) == (other.logged, other.others)

    def copies(self, arrays: Mapping[str, Array], rows: int) -> list[bytes] | None:
        """Return a copy of each logged tensor's rows; None where these tensors are unlike.

        Args:
            arrays: of a run.
            rows: of its requests; what is beyond is padding.
        """
        if len(arrays) != self.count:
            return None
        copies: list[bytes] = []
        for name, dtype, row_shape, one_shape in self.logged:
            array = arrays.get(name)
            # Types of numbers are nearly always the same object, which costs less to see.
            if array is None or (array.dtype is not dtype and array.dtype != dtype):
                return None
            shape = array.shape
            if rows == 1 and shape == one_shape:
                copies.append(array.tobytes())
            elif shape[1:] != row_shape or shape[0] < rows:
                return None
            else:
                copies.append(array[:rows].tobytes())
        if self.others:
            for name in self.others:
                if name not in arrays:
                    return None
        return copies


class CopyPlan:
    """What the runs of a version are like whose rows are copied.

    Attributes:
        version: that ran.
        layout: of the rows.
        key: where the join key is.
        inputs: all of a run.
        outputs: likewise.
        row_bytes: what a row is charged.
        by_request_id: whether the join key is the request's id.
    """

    __slots__ = ("by_request_id", "inputs", "key", "layout", "outputs", "row_bytes", "version")

    def __init__(
        self, version: VersionId, layout: Layout, key: Source, inputs: CopiedTensors, outputs: CopiedTensors
    ) -> None:
        self.version = version
        self.layout = layout
        self.key = key
        self.inputs = inputs
        self.outputs = outputs
        self.row_bytes = inputs.row_bytes + outputs.row_bytes
        self.by_request_id = key.kind == "request_id"

    def is_like(self, other: CopyPlan) -> bool:
        """Whether both copy the same runs."""
        return (
            self.layout is other.layout
            and self.inputs.is_like(other.inputs)
            and self.outputs.is_like(other.outputs)
        )


def plan_of(batch: CompletedBatch, layout: Layout, key: Source) -> CopyPlan | None:
    """Return the plan for runs like this one; None where they cannot be copied, or should not be.

    Args:
        batch: that ran well.
        layout: of its rows.
        key: where the join key is.
    """
    if batch.inputs is None or batch.outputs is None or not layout.counts_rows:
        return None
    wanted = [*layout.tensors, *[tensor for tensor, _ in layout.watched]]
    inputs = CopiedTensors(batch.inputs, {tensor.name for tensor in wanted if tensor.role is Role.INPUT})
    outputs = CopiedTensors(batch.outputs, {tensor.name for tensor in wanted if tensor.role is Role.OUTPUT})
    plan = CopyPlan(batch.version, layout, key, inputs, outputs)
    has_objects = any(tensor.dtype.hasobject for tensor in inputs.logged + outputs.logged)
    return None if has_objects or plan.row_bytes > MAX_ROW_BYTES else plan


class Copied:
    """Rows of runs of one plan, in the order of their completion.

    The event loop adds; when it does so no more, the encoder reads.

    Attributes:
        plan: what they are like.
        rows: of all runs.
        nbytes: what they are charged.
        now_s: monotonic time of the last.
        arms: of the requests.
    """

    __slots__ = ("_inputs", "_keys", "_outputs", "_records", "arms", "nbytes", "now_s", "plan", "rows")

    def __init__(self, plan: CopyPlan) -> None:
        self.plan = plan
        self.rows = 0
        self.nbytes = 0
        self.now_s = 0.0
        self.arms: list[str] = []
        self._keys: list[str] = []
        self._records = bytearray()
        # One run's tensors after the other's: lists of lists would keep the garbage collector busy.
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    @property
    def version(self) -> VersionId:
        """That ran."""
        return self.plan.version

    @property
    def layout(self) -> Layout | None:
        """Of the rows."""
        return self.plan.layout

    def add(self, batch: CompletedBatch, done_ns: int, done_s: float) -> int:
        """Copy a run's rows; return how many, or 0 where it is unlike the plan and nothing was copied.

        Args:
            batch: that ran, with members.
            done_ns: wall clock.
            done_s: the same moment by the monotonic clock.
        """
        plan, members, inputs, outputs = self.plan, batch.members, batch.inputs, batch.outputs
        if batch.error is not None or inputs is None or outputs is None:
            return 0
        rows = 0
        for member in members:
            if member.start_row != rows or member.error is not None or member.first_row:
                return 0
            rows += member.rows
        taken = plan.inputs.copies(inputs, rows)
        given = None if taken is None else plan.outputs.copies(outputs, rows)
        if taken is None or given is None:
            return 0
        self._inputs += taken
        self._outputs += given
        infer_ns = batch.compute_infer_ns
        for member in members:
            request = member.request
            self._keys.append(request.request_id if plan.by_request_id else plan.key.text(request))
            is_plain = request.assigned is None and request.flow_key != SHADOW_FLOW
            self.arms.append(NO_ARM if is_plain else arm_of(request))
            self._records += _pack(done_ns, done_s, infer_ns, member.queue_ns, request.arrived_s, member.rows)
        self.rows += rows
        self.nbytes += REQUEST_BYTES * len(members) + plan.row_bytes * rows
        self.now_s = done_s
        return rows

    def offered(self) -> Offered:
        """Return the requests."""
        rows = np.frombuffer(self._records, _RECORD)["rows"]
        keys = [key.encode("utf-8", "surrogatepass") for key in self._keys]
        offered = Offered([], rows.tolist())
        offered.keys, offered.arms = keys, self.arms
        return offered

    def times(self, offered: Offered) -> Times:  # noqa: ARG002 - as `Chunk.times`
        """Return when the requests of `offered` came and went."""
        records = np.frombuffer(self._records, _RECORD)
        done_ns, arrived_s = records["done_ns"], records["arrived_s"]
        age_ns = ((records["done_s"] - arrived_s) * 1e9).astype(np.int64)
        age_ns[arrived_s == 0] = 0
        queue_us, infer_us = microseconds(records["queue_ns"]), microseconds(records["infer_ns"])
        return Times(done_ns - age_ns, done_ns, queue_us, infer_us)

    def values(self, tensor: PlannedTensor) -> Array:
        """Return a tensor's rows, `[rows, width]`."""
        is_input = tensor.role is Role.INPUT
        tensors = (self.plan.inputs if is_input else self.plan.outputs).logged
        place = [copied.name for copied in tensors].index(tensor.name)
        data = b"".join((self._inputs if is_input else self._outputs)[place :: len(tensors)])
        return np.frombuffer(data, tensors[place].dtype).reshape(self.rows, -1)
