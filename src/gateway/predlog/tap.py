"""Where the request path meets the prediction log: a run is copied or referred to, nothing else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.predlog.join_keys import arm_of
from gateway.predlog.ring import ENTRY_BYTES, Ran, Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.errors import GatewayError
    from gateway.core.events import CompletedBatch
    from gateway.core.types import Array, InferRequest, ModelSignature, VersionId
    from gateway.predlog.accounts import Accounts
    from gateway.predlog.copies import CopyPlan
    from gateway.predlog.policy import Policies
    from gateway.predlog.ring import Ring

_log = logging.getLogger(__name__)

MAX_VERSIONS: Final = 4096
"""Signatures remembered."""


class Clocks(NamedTuple):
    """What time it is.

    Attributes:
        wall_ns: nanoseconds since the epoch.
        now_s: the monotonic clock of `InferRequest.arrived_s`.
    """

    wall_ns: Callable[[], int]
    now_s: Callable[[], float]


CLOCKS: Final = Clocks(time.time_ns, time.monotonic)


class PredictionTap:
    """A BatchObserver. Event loop only; never suspends, blocks or raises, and keeps nothing by request.

    What does not fit into the ring is counted as dropped, `ring_full`, by the stream that it is of.

    Args:
        ring: takes what was served.
        accounts: the producer's books.
        policies: which models are logged.
        signature_of: what a version takes and gives; None where nobody knows any more.
        clocks: what time it is.

    Attributes:
        signatures: of the versions that ran.
        plans: of those whose runs are copied; whoever reads the ring knows them.
    """

    def __init__(
        self,
        ring: Ring,
        accounts: Accounts,
        policies: Policies,
        signature_of: Callable[[VersionId], ModelSignature | None],
        clocks: Clocks = CLOCKS,
    ) -> None:
        self._ring = ring
        self._accounts = accounts
        self._policies = policies
        self._signature_of = signature_of
        self._wall_ns, self._now_s = clocks
        self._closed = False
        self._logged: dict[VersionId, bool] = {}
        self.signatures: dict[VersionId, ModelSignature | None] = {}
        self.plans: Mapping[VersionId, CopyPlan] = {}

    def close(self) -> None:
        """Take no more; what is offered from now on is counted as dropped, `shutdown`."""
        self._closed = True

    def on_batch(self, batch: CompletedBatch) -> None:
        """Take note of a batch: its rows are copied, or it is kept with its buffers until encoded."""
        version, members = batch.version, batch.members
        plan = self.plans.get(version)
        if plan is not None and members and not self._closed:
            rows = self._ring.copy(plan, batch, self._wall_ns(), self._now_s())
            if rows:
                self._accounts.offered(rows)
                return
        logged = self._logged.get(version)
        if logged is None:
            logged = self._meet(version)
        if not logged or not members:
            return
        rows, nbytes = 0, ENTRY_BYTES
        for member in members:
            rows += member.rows
            nbytes += member.request.received_bytes
        if batch.inputs is not None:
            nbytes += _held_bytes(batch.inputs)
        if batch.outputs is not None:
            nbytes += _held_bytes(batch.outputs)
        self._accounts.offered(rows)
        entry = Ran(batch, self._wall_ns(), self._now_s(), rows, nbytes)
        if self._closed or not self._ring.offer(entry):
            for member in members:
                self._drop(version, member.request, member.rows)

    def on_rejected(self, version: VersionId, request: InferRequest, error: GatewayError) -> None:
        """Take note of a request that never ran: one row without columns."""
        if not self._policies.logs(version.model):
            return
        self._accounts.offered(1)
        nbytes = ENTRY_BYTES + request.received_bytes
        entry = Rejected(version, request, error, self._wall_ns(), self._now_s(), nbytes)
        if self._closed or not self._ring.offer(entry):
            self._drop(version, request, 1)

    def _drop(self, version: VersionId, request: InferRequest, rows: int) -> None:
        self._accounts.produced(version.model, version.number, arm_of(request), rows)
        self._accounts.dropped("shutdown" if self._closed else "ring_full", rows)

    def _meet(self, version: VersionId) -> bool:
        """Take note of a version that was not seen before; return whether it is logged."""
        if len(self._logged) >= MAX_VERSIONS:
            self._logged.clear()
            self.signatures.clear()
        logged = self._logged[version] = self._policies.logs(version.model)
        if not logged or version in self.signatures:
            return logged
        try:
            self.signatures[version] = self._signature_of(version)
        except Exception:  # noqa: BLE001 - logged: a version that is going must not cost a request
            _log.exception("the signature of %s is not to be had", version)
            self.signatures[version] = None
        return True


def _held_bytes(arrays: Mapping[str, Array]) -> int:
    """Return the bytes of the whole buffers that arrays keep alive."""
    total = 0
    for array in arrays.values():
        nbytes: int = array.nbytes
        if (base := array.base) is not None:
            nbytes = max(nbytes, int(getattr(base, "nbytes", 0)))
        total += nbytes
    return total
