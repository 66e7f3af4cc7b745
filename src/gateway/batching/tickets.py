"""One admitted request on its way through the batcher, and the parts a large one is cut into."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

from gateway.batching.lanes import QueueItem
from gateway.core.errors import BackendError
from gateway.core.pending import Pending
from gateway.core.types import InferResponse, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.batching.grouping import Layout
    from gateway.core.pending import DoneCallback
    from gateway.core.types import InferRequest, RequestTiming


class Ticket(Pending):
    """The answer to come for a request, with its parts in the queue.

    Attributes:
        layout: what its inputs look like.
        enqueued_s: when it was admitted, monotonic.
        jobs: its parts; one unless it is cut up.
        answers: outputs of the parts that have run, by first row; None for an uncut request.
        formed: whether any part of it has left the queue to be run.
        counted: whether the statistics have it.
    """

    __slots__ = ("answers", "counted", "enqueued_s", "formed", "jobs", "layout")

    def __init__(
        self, request: InferRequest, layout: Layout, enqueued_s: float, on_cancel: DoneCallback
    ) -> None:
        super().__init__(request, on_cancel)
        self.layout = layout
        self.enqueued_s = enqueued_s
        self.jobs: tuple[Job, ...] = ()
        self.answers: dict[int, tuple[Tensor, ...]] | None = None
        self.formed = False
        self.counted = False


class Admission:
    """What the parts of one request have in common in the queue; as the fields of `QueueItem`."""

    __slots__ = (
        "deadline_s",
        "flow",
        "group",
        "level",
        "nbytes",
    )

    def __init__(
        self,
        group: Hashable,
        level: int,
        flow: str,
        deadline_s: float | None,
        nbytes: int,
    ) -> None:
        self.group = group
        self.level = level
        self.flow = flow
        self.deadline_s = deadline_s
        self.nbytes = nbytes


class Job(QueueItem):
    """Rows `start` to `start + size` of a request, waiting or running.

    Attributes:
        ticket: the request.
        start: its first row in the request.
        size: how many rows, 0 included (`rows` counts at least 1).
        whole: whether it is the whole request.
        queue_ns: its time in queue, once taken.
    """

    __slots__ = ("queue_ns", "size", "start", "ticket", "whole")

    def __init__(self, ticket: Ticket, start: int, size: int, admission: Admission) -> None:
        super().__init__(
            size or 1,
            admission.group,
            ticket.enqueued_s,
            ticket.layout.row_bytes,
            admission.nbytes,
            admission.level,
            admission.flow,
            admission.deadline_s,
        )
        self.ticket = ticket
        self.start = start
        self.size = size
        self.whole = size == ticket.layout.rows
        self.queue_ns = 0


def cut(ticket: Ticket, admission: Admission, most_rows: int) -> tuple[Job, ...]:
    """Return the jobs of a request: one, or as many as it needs with `most_rows` rows each.

    The bytes it keeps alive are charged to the last part: they are free when no part waits.
    """
    rows = ticket.layout.rows
    if rows <= most_rows:
        return (Job(ticket, 0, rows, admission),)
    free = Admission(admission.group, admission.level, admission.flow, admission.deadline_s, 0)
    starts = range(0, rows, most_rows)
    ticket.answers = {}
    return tuple(
        Job(ticket, start, min(most_rows, rows - start), admission if start == starts[-1] else free)
        for start in starts
    )


def join(ticket: Ticket, axes: Mapping[str, int | None]) -> tuple[Tensor, ...]:
    """Return the outputs of a cut-up request from its parts, joined along each output's batch axis.

    Raises:
        BackendError: the parts' outputs differ in more than their rows.
    """
    assert ticket.answers is not None
    parts = [ticket.answers[start] for start in sorted(ticket.answers)]
    return tuple(
        _join_output(ticket.request, tensors, axes[tensors[0].name]) for tensors in zip(*parts, strict=True)
    )


def _join_output(request: InferRequest, tensors: tuple[Tensor, ...], axis: int | None) -> Tensor:
    try:
        array = np.concatenate([tensor.array for tensor in tensors], axis=axis or 0)
    except ValueError as exc:
        shapes = ", ".join(str(list(tensor.array.shape)) for tensor in tensors)
        raise BackendError(
            f"output '{tensors[0].name}' of model '{request.model_name}' has shapes {shapes} for parts of "
            "one request: expected shapes that differ along the batch axis only"
        ) from exc
    return Tensor(tensors[0].name, tensors[0].datatype, array)


def respond(
    request: InferRequest,
    version: str,
    outputs: tuple[Tensor, ...],
    timing: RequestTiming,
    *,
    final: bool = True,
) -> InferResponse:
    """Return the response to a request."""
    return InferResponse(
        model_name=request.model_name,
        model_version=version,
        request_id=request.request_id,
        outputs=outputs,
        timing=timing,
        final=final,
    )
