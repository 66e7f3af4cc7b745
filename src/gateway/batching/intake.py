"""Admission to one batcher: whether a request may wait, in how many parts, how long and beside whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.batching.queue import most_rows
from gateway.batching.tickets import Admission, Job, Ticket, cut
from gateway.core.errors import DeadlineExceeded, InvalidRequest

if TYPE_CHECKING:
    from gateway.batching.grouping import Grouper, Layout
    from gateway.batching.queue import BatchQueue
    from gateway.core.options import BatchingOptions
    from gateway.core.pending import DoneCallback
    from gateway.core.types import InferRequest

LONGEST_WAIT_S: Final = 86_400.0
"""No deadline is farther away than this: what a client sends may be any number."""


class Intake:
    """Makes the tickets of one queue; puts nothing in it."""

    def __init__(
        self, name: str, options: BatchingOptions, grouper: Grouper, queue: BatchQueue[Job], *, single: bool
    ) -> None:
        """Prepare; `single` says that requests never share a run, so that they need no grouping key."""
        self._name = name
        self._options = options
        self._grouper = grouper
        self._queue = queue
        self._single = single
        self._most_rows = most_rows(options)
        self._levels = options.priority_levels > 0
        self._times_out = options.default_timeout_s is not None

    def ticket(self, request: InferRequest, now_s: float, on_cancel: DoneCallback) -> Ticket:
        """Return the ticket of a request that the queue has room for, with its jobs.

        Raises:
            GatewayError: as `Batcher.submit`.
        """
        layout = self._grouper.layout(request)
        rows = layout.rows
        if rows > self._most_rows and not self._options.split_large:
            raise InvalidRequest(
                f"request for model '{self._name}' has {rows} rows: expected at most {self._most_rows}"
            )
        admission = self._admission(request, layout, now_s)
        self._queue.check(rows or 1, admission.nbytes, now_s)
        ticket = Ticket(request, layout, now_s, on_cancel)
        ticket.jobs = cut(ticket, admission, self._most_rows)
        return ticket

    def _admission(self, request: InferRequest, layout: Layout, now_s: float) -> Admission:
        return Admission(
            None if self._single else self._grouper.key(request, layout),
            self._queue.level_of(request.priority) if self._levels else 0,
            request.flow_key,
            self._deadline_s(request, now_s) if request.deadline_s is not None or self._times_out else None,
            request.received_bytes or sum([tensor.array.nbytes for tensor in request.inputs]),
        )

    def _deadline_s(self, request: InferRequest, now_s: float) -> float | None:
        """Return when the request must have left the queue."""
        default_s, deadline_s = self._options.default_timeout_s, request.deadline_s
        if deadline_s is None:
            return None if default_s is None else now_s + default_s
        if deadline_s <= now_s:
            raise DeadlineExceeded(f"request for model '{self._name}' arrived after its deadline")
        if default_s is not None and not self._options.allow_timeout_override:
            return min(deadline_s, now_s + default_s)
        return min(deadline_s, now_s + LONGEST_WAIT_S)
