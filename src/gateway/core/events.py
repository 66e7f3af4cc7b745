"""What the batcher tells observers: batches that finished and requests that never formed one."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.errors import GatewayError
    from gateway.core.types import Array, Device, InferRequest, VersionId


class CloseReason(enum.Enum):
    """Why a batch was closed: which rule let it go."""

    FULL = "full"
    """It reached the most rows, the most bytes, or a preferred size."""
    DELAY = "delay"
    """The oldest request had waited the declared delay."""
    IDLE = "idle"
    """No delay is declared and an instance was free."""
    DEADLINE = "deadline"
    """Waiting longer would have let a request expire."""
    SINGLE = "single"
    """The model is not batched."""


class BatchMember:
    """One request's part of a batch.

    Attributes:
        request: the request.
        start_row: its first row in the batch.
        rows: how many.
        queue_ns: its time in queue.
        error: why it failed, or None.
        cancelled: its client had gone before the batch finished.
        first_row: of the request's rows, where it was cut into several batches.
    """

    __slots__ = (
        "cancelled",
        "error",
        "first_row",
        "queue_ns",
        "request",
        "rows",
        "start_row",
    )

    def __init__(
        self,
        request: InferRequest,
        start_row: int,
        rows: int,
        queue_ns: int,
        error: GatewayError | None = None,
        cancelled: bool = False,
        first_row: int = 0,
    ) -> None:
        self.request = request
        self.start_row = start_row
        self.rows = rows
        self.queue_ns = queue_ns
        self.error = error
        self.cancelled = cancelled
        self.first_row = first_row


class CompletedBatch:
    """One run of the backend, after its members were answered.

    Attributes:
        version: the model version that ran.
        device: where.
        members: the requests that it was the end of, in row order: all it held, unless it failed and others
            of them are run again in parts; those are members of the part that answers them.
        rows: rows of requests.
        padded_rows: rows run, zero-row padding included.
        inputs: name -> batch input as run; None when the batch was never assembled.
        outputs: name -> batch output; None when the run failed.
        close_reason: why it was closed.
        started_s: monotonic time when it was formed.
        compute_input_ns: assembling and handing to the device.
        compute_infer_ns: the run.
        compute_output_ns: fetching and splitting.
        pad_elements: elements added by padding variable axes and rows.
        elements: elements run in total.
        error: the failure of the whole run, or None.
        bisection: it was a part of a failed batch, run to find the poison request.
    """

    __slots__ = (
        "bisection",
        "close_reason",
        "compute_infer_ns",
        "compute_input_ns",
        "compute_output_ns",
        "device",
        "elements",
        "error",
        "inputs",
        "members",
        "outputs",
        "pad_elements",
        "padded_rows",
        "rows",
        "started_s",
        "version",
    )

    def __init__(
        self,
        version: VersionId,
        device: Device,
        members: list[BatchMember],
        rows: int,
        padded_rows: int,
        inputs: Mapping[str, Array] | None,
        outputs: Mapping[str, Array] | None,
        close_reason: CloseReason,
        started_s: float,
        compute_input_ns: int = 0,
        compute_infer_ns: int = 0,
        compute_output_ns: int = 0,
        pad_elements: int = 0,
        elements: int = 0,
        error: GatewayError | None = None,
        bisection: bool = False,
    ) -> None:
        self.version = version
        self.device = device
        self.members = members
        self.rows = rows
        self.padded_rows = padded_rows
        self.inputs = inputs
        self.outputs = outputs
        self.close_reason = close_reason
        self.started_s = started_s
        self.compute_input_ns = compute_input_ns
        self.compute_infer_ns = compute_infer_ns
        self.compute_output_ns = compute_output_ns
        self.pad_elements = pad_elements
        self.elements = elements
        self.error = error
        self.bisection = bisection
