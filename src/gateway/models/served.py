"""One READY version: its leases, and the choice among its batchers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.interfaces import LoadedModel, VersionBatcher
from gateway.core.options import ModelSpec
from gateway.core.statistics import VersionStatistics
from gateway.core.types import ModelSignature, VersionId
from gateway.models.validation import RequestValidator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.interfaces import ServedVersion
    from gateway.core.pending import Pending
    from gateway.core.types import Device, InferRequest, InferResponse


@dataclass(frozen=True)
class Replica:
    """A version on one device: the loaded model, and the batcher that feeds it."""

    model: LoadedModel
    batcher: VersionBatcher

    @property
    def load_rows(self) -> int:
        """Rows it has waiting and running now."""
        return self.batcher.queued_rows + self.batcher.running_rows


@dataclass(kw_only=True, eq=False)
class VersionParts:
    """What a LoadedVersion is made of.

    Attributes:
        id: the version.
        spec: how it is served, completed by the signature.
        signature: what it takes and gives.
        platform: as its backend reports it.
        statistics: counters, shared by its batchers; new with every load, as Triton's.
        replicas: one per instance group; never empty.
        validator: compiled for the signature.
        label: the version's name in its registry; empty for a local repository.
    """

    id: VersionId
    spec: ModelSpec
    signature: ModelSignature
    platform: str
    statistics: VersionStatistics
    replicas: Sequence[Replica]
    validator: RequestValidator
    label: str = ""


class LoadedVersion:
    """A ServedVersion with its leases. Event loop only.

    Invariant: nothing is closed while a lease is held, unless `abandon` was called. Statistics start from
    zero with every load, a reload of the same number included: its content is another, and Triton does so.
    """

    __slots__ = (
        "_abandoned",
        "_idle",
        "_leases",
        "_only",
        "_replicas",
        "devices",
        "id",
        "label",
        "platform",
        "signature",
        "spec",
        "statistics",
        "validator",
    )

    def __init__(self, parts: VersionParts) -> None:
        self.id: VersionId = parts.id
        self.label: str = parts.label
        self.spec: ModelSpec = parts.spec
        self.signature: ModelSignature = parts.signature
        self.platform: str = parts.platform
        self.statistics: VersionStatistics = parts.statistics
        self.devices: Sequence[tuple[Device, int]] = tuple(
            (r.model.device, r.model.instances) for r in parts.replicas
        )
        self.validator = parts.validator
        self._replicas = tuple(parts.replicas)
        self._only = self._replicas[0].batcher if len(self._replicas) == 1 else None
        self._leases = 0
        self._idle: asyncio.Event | None = None
        self._abandoned = False

    @property
    def leases(self) -> int:
        """Leases held now."""
        return self._leases

    @property
    def memory_bytes(self) -> int:
        """What its loaded models hold together."""
        return sum(r.model.memory_bytes for r in self._replicas)

    @property
    def memory(self) -> Sequence[tuple[Device, int]]:
        """As `ServedVersion.memory`; several models on one device count together."""
        totals: defaultdict[Device, int] = defaultdict(int)
        for replica in self._replicas:
            totals[replica.model.device] += replica.model.memory_bytes
        return tuple((device, total) for device, total in totals.items() if total)

    def take(self) -> VersionLease:
        """Return a new lease."""
        self._leases += 1
        return VersionLease(self)

    def give_back(self) -> None:
        """End one lease; called by the lease alone."""
        self._leases -= 1
        if self._leases == 0 and self._idle is not None:
            self._wake()

    def batcher(self) -> VersionBatcher:
        """Return the batcher with the fewest rows queued and running; the first of equals."""
        return self._only or min(self._replicas, key=lambda r: r.load_rows).batcher

    async def released(self) -> None:
        """Wait until no lease is held, or `abandon`. Cancelling the wait changes nothing."""
        while self._leases and not self._abandoned:
            if self._idle is None:
                self._idle = asyncio.Event()
            await self._idle.wait()

    def abandon(self) -> None:
        """Let `released` return whatever leases are held: the process is going."""
        self._abandoned = True
        self._wake()

    def _wake(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.set()

    async def aclose(self) -> None:
        """Close every batcher, then its model. Called once; what still waits fails with Draining.

        One that fails to close, or a cancellation, keeps none of the others from it; the last failure is
        raised when all were tried.
        """
        async with AsyncExitStack() as last_first:
            for replica in reversed(self._replicas):
                last_first.push_async_callback(replica.model.aclose)
                last_first.push_async_callback(replica.batcher.aclose)


class VersionLease:
    """A Lease: keeps its version loaded until `release`."""

    __slots__ = ("_loaded", "version")

    def __init__(self, loaded: LoadedVersion) -> None:
        self.version: ServedVersion = loaded
        self._loaded: LoadedVersion | None = loaded

    def submit(self, request: InferRequest) -> Pending:
        """Check the request and hand it to the least loaded batcher; as `InferenceService.submit`.

        Raises:
            InvalidRequest: it does not fit the signature.
            GatewayError: as the batcher's `submit`.
        """
        loaded = self._held()
        loaded.validator.check(request)
        return loaded.batcher().submit(request)

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """As `InferenceService.stream`; an unfit request is refused at once, by this call."""
        loaded = self._held()
        loaded.validator.check(request)
        return loaded.batcher().stream(request)

    def release(self) -> None:
        """Give the version back.

        Raises:
            RuntimeError: released before.
        """
        loaded = self._held()
        self._loaded = None
        loaded.give_back()

    def _held(self) -> LoadedVersion:
        if self._loaded is None:
            raise RuntimeError(f"the lease on {self.version.id} was released before")
        return self._loaded
