"""One copy of a request for a shadow: run once, compared or given up, and ended exactly once."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from gateway.core.assigned import Assigned
from gateway.core.errors import Cancelled, DeadlineExceeded, Draining, GatewayError, NotReady, Overloaded
from gateway.core.types import InferRequest
from gateway.routing.shadow_counts import Dropped

if TYPE_CHECKING:
    from gateway.core.interfaces import Lease, ServedVersion
    from gateway.core.pending import Pending
    from gateway.core.types import Tensor
    from gateway.routing.shadow_lanes import Lane

_log = logging.getLogger(__name__)

SHADOW_FLOW: Final = "gateway/shadow"
"""`InferRequest.flow_key` of every copy: they have one turn among the flows of a queue, all together."""

_DROPS: Final[tuple[tuple[type[GatewayError], Dropped], ...]] = (
    (DeadlineExceeded, Dropped.HEADROOM),
    (Overloaded, Dropped.REFUSED),
    (NotReady, Dropped.NOT_READY),
    (Draining, Dropped.NOT_READY),
    (Cancelled, Dropped.SHUTDOWN),
)
"""Errors of a copy that say nothing against the shadow; all others count as its failures."""


class Copies(Protocol):
    """Owns copies: says when they run, and is told when they have ended."""

    def due(self, copy: Copy) -> None:
        """Run a copy whose primary has been answered, when there is room."""

    def look(self) -> None:
        """Look at what is due: the shadow's batcher has no copies any more."""

    def compare(self, copy: Copy, shadow: tuple[Tensor, ...]) -> None:
        """End a copy by comparing its answer with the primary's."""

    def left(self, copy: Copy) -> None:
        """Take note of a copy that has ended."""


class Copy:
    """One copy of one request, until it has ended; each ends once, whatever comes later."""

    __slots__ = (
        "_lease",
        "_owner",
        "_pending",
        "_request",
        "_values",
        "deadline_s",
        "ended",
        "lane",
        "nbytes",
        "outputs",
    )

    def __init__(self, owner: Copies, lane: Lane, request: InferRequest, nbytes: int) -> None:
        self.lane = lane
        self.nbytes = nbytes
        self.deadline_s = 0.0
        self.ended = False
        self.outputs: tuple[Tensor, ...] = ()
        self._owner = owner
        self._request: InferRequest | None = request
        self._values = lane.values(request)
        self._lease: Lease | None = None
        self._pending: Pending | None = None

    def answered(self, primary: Pending) -> None:
        """Go on when the primary has its answer."""
        if self.ended:
            return
        if primary.response is not None:
            self.outputs = primary.response.outputs
            self._owner.due(self)
        elif isinstance(primary.error, Cancelled):
            self.drop(Dropped.CANCELLED)
        else:
            self._fail(alone=False)

    def run(self, lease: Lease) -> None:
        """Submit it, with a lease that is then its own."""
        assert self._request is not None
        try:
            name = self.lane.spec.name
            pending = lease.submit(_copied(self._request, name, lease.version, self.deadline_s))
        except GatewayError as error:
            lease.release()
            self._end_with(error)
            return
        except Exception:  # noqa: BLE001 - logged: it must not reach the event loop, nor the other copies
            lease.release()
            _log.exception("a copy for %s could not be submitted", self.lane.version)
            self._fail(alone=True)
            return
        self._lease, self._pending = lease, pending
        self.lane.load.running += 1
        pending.add_done_callback(self._ran)

    def _ran(self, pending: Pending) -> None:
        lease, self._lease, self._pending = self._lease, None, None
        self.lane.load.running -= 1
        if lease is not None:
            lease.release()
        if not self.lane.load.running:
            self._owner.look()
        if pending.response is not None:
            # Others of the same run are being answered.
            asyncio.get_running_loop().call_soon(self._owner.compare, self, pending.response.outputs)
        elif pending.error is not None:
            self._end_with(pending.error)

    def compared(self, *, agreed: bool) -> None:
        """End with a comparison."""
        if self._leave():
            self.lane.counter.compared(self._values, disagreed=not agreed)

    def compared_aside(self, comparing: asyncio.Future[bool]) -> None:
        """End with a comparison that a thread made."""
        if comparing.cancelled() or comparing.exception() is not None:
            self.incomparable(None if comparing.cancelled() else comparing.exception())
        else:
            self.compared(agreed=comparing.result())

    def incomparable(self, exc: BaseException | None) -> None:
        """End because the answer could not be compared, for want of a thread if there is no exception."""
        if exc is not None:
            _log.error("an answer of %s could not be compared", self.lane.version, exc_info=exc)
        self._fail(alone=exc is not None)

    def drop(self, reason: Dropped) -> None:
        """End without a result."""
        if self._leave():
            self.lane.counter.dropped(reason)

    def give_up(self) -> None:
        """End because everything does; a run under way finishes unseen."""
        pending = self._pending
        self.drop(Dropped.SHUTDOWN)
        if pending is not None:
            pending.cancel()

    def _end_with(self, error: GatewayError) -> None:
        reason = next((reason for kind, reason in _DROPS if isinstance(error, kind)), None)
        if reason is None:
            self._fail(alone=True)
        else:
            self.drop(reason)

    def _fail(self, *, alone: bool) -> None:
        if self._leave():
            self.lane.counter.failed(alone=alone)

    def _leave(self) -> bool:
        """Let go of everything; False if it had ended before."""
        if self.ended:
            return False
        self.ended = True
        self._owner.left(self)
        self._request = None
        self.outputs = ()
        return True


def _copied(request: InferRequest, shadow: str, version: ServedVersion, deadline_s: float) -> InferRequest:
    """Return the copy of a request: the same tensors and headers, last in the version's queue.

    Headers are there for who logs it by one of them; nobody else reads those of a copy.
    """
    primary = request.assigned
    assigned = None
    if primary is not None:
        arm = f"shadow:{shadow}"
        assigned = Assigned(primary.plan, arm, primary.unit, primary.keyed, primary.overridden)
    return InferRequest(
        model_name=request.model_name,
        model_version=str(version.id.number),
        request_id=request.request_id,
        inputs=request.inputs,
        outputs=request.outputs,
        parameters=request.parameters,
        priority=version.spec.batching.priority_levels,
        deadline_s=deadline_s,
        arrived_s=request.arrived_s,
        received_bytes=request.received_bytes,
        flow_key=SHADOW_FLOW,
        served_version=version.id.number,
        kind=request.kind,
        headers=request.headers,
        assigned=assigned,
    )
