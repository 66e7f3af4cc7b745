"""Fakes shipped for tests: a clock that only moves when told, and models, backends and services that obey.

They pass the same contract suites as the real parts.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gateway.core.errors import BackendError, BackendUnavailable, GatewayError, ModelLoadError
from gateway.core.pending import Pending
from gateway.core.types import (
    CPU,
    Array,
    Batch,
    BatchResult,
    Datatype,
    Device,
    InferRequest,
    InferResponse,
    ModelSignature,
    Tensor,
    TensorSpec,
    VersionState,
    VersionStatus,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from gateway.core.events import CompletedBatch
    from gateway.core.options import LoadOptions
    from gateway.core.types import Artifact, VersionId


class _VirtualTimer:
    """A timer of VirtualClock."""

    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Call it off."""
        self.cancelled = True


class VirtualClock:
    """A `Clock` whose time moves only by `advance`; due timers then run in order, each at its own time."""

    def __init__(self, start_s: float = 1000.0) -> None:
        """Start at `start_s` monotonic seconds."""
        self._now_s = start_s
        self._timers: list[tuple[float, int, _VirtualTimer]] = []
        self._order = itertools.count()

    def now_s(self) -> float:
        """Return the virtual time."""
        return self._now_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> _VirtualTimer:
        """Schedule; a time already past runs at the next `advance`, be it by 0."""
        timer = _VirtualTimer(callback)
        heapq.heappush(self._timers, (when_s, next(self._order), timer))
        return timer

    def next_timer_s(self) -> float | None:
        """Return when the earliest live timer is due, or None."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, seconds: float) -> None:
        """Move time forward by `seconds`, running every timer that falls due on the way."""
        until_s = self._now_s + seconds
        while (due_s := self.next_timer_s()) is not None and due_s <= until_s:
            _, _, timer = heapq.heappop(self._timers)
            self._now_s = max(self._now_s, due_s)
            timer.callback()
        self._now_s = until_s


async def settle(turns: int = 20) -> None:
    """Let everything that is ready on the event loop run; no time passes on a VirtualClock."""
    for _ in range(turns):
        await asyncio.sleep(0)


def identity_signature(
    name: str = "x", features: int = 1, datatype: Datatype = Datatype.FP32
) -> ModelSignature:
    """Return the signature of a model `x[rows, features] -> y[rows, features]`."""
    shape = (-1, features)
    return ModelSignature((TensorSpec(name, datatype, shape),), (TensorSpec("y", datatype, shape),))


def infer_request(array: Array, *, model: str = "fake", name: str = "x", **fields: object) -> InferRequest:
    """Return a request with one input; `fields` are further fields of InferRequest."""
    tensor = Tensor(name, Datatype.BYTES if array.dtype == object else _datatype(array), array)
    return InferRequest(model_name=model, inputs=(tensor,), received_bytes=array.nbytes, **fields)  # type: ignore[arg-type]


def _datatype(array: Array) -> Datatype:
    return next(d for d in Datatype if d.dtype == array.dtype)


class FakeLoadedModel:
    """A LoadedModel that answers `y = x` for its first input, under the test's control.

    Args:
        signature: what it claims to take and give; every output is the first input's values.
        instances: runs allowed at once.
        held: True keeps every run waiting until `release`.
        poison: a run fails with BackendError while any row of the first input holds this value.
        device: where it claims to run.
        memory_bytes: what it claims to hold.
        overlaps: as `LoadedModel.overlaps`.
        remote: as `LoadedModel.remote`.

    Attributes:
        batches: every batch it was given, in order.
        running: runs under way.
        most_running: the most runs ever under way at once.
        let_run_s: how long it was to be given the processor, each time.
        broken: set to fail every run with BackendUnavailable.
        closed: `aclose` has been called.
    """

    def __init__(  # noqa: PLR0913 - each is one thing a test may want to steer
        self,
        signature: ModelSignature | None = None,
        *,
        instances: int = 1,
        held: bool = False,
        poison: float | None = None,
        device: Device = CPU,
        memory_bytes: int = 0,
        overlaps: bool = True,
        remote: bool = False,
    ) -> None:
        self.overlaps = overlaps
        self.remote = remote
        self.signature = signature or identity_signature()
        self.instances = instances
        self.device = device
        self.memory_bytes = memory_bytes
        self.batches: list[Batch] = []
        self.running = 0
        self.most_running = 0
        self.let_run_s: list[float] = []
        self.broken = False
        self.closed = False
        self._poison = poison
        self._held = held
        self._gates: deque[asyncio.Future[None]] = deque()

    async def infer(self, batch: Batch) -> BatchResult:
        """Answer the batch with its first input, when allowed to."""
        if self.closed:
            raise AssertionError("infer after aclose")
        self.batches.append(batch)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self._wait()
            return self._answer(batch)
        finally:
            self.running -= 1

    def let_run(self, most_s: float) -> None:
        """Note how often it was given the processor, and come back at once."""
        self.let_run_s.append(most_s)

    async def stream(self, batch: Batch) -> AsyncIterator[BatchResult]:
        """Give one result per row of the first input when the signature is decoupled, else one in all."""
        result = await self.infer(batch)
        if not self.signature.decoupled:
            yield result
            return
        for row in range(batch.rows):
            yield BatchResult({name: array[row : row + 1] for name, array in result.outputs.items()})

    async def aclose(self) -> None:
        """Close; a second close, or one during a run, is a fault of the caller."""
        if self.closed or self.running:
            raise AssertionError("closed twice or while running")
        self.closed = True

    def release(self, runs: int | None = None) -> None:
        """Let the oldest `runs` held runs go on; None lets all go and holds no more."""
        if runs is None:
            self._held = False
            runs = len(self._gates)
        for _ in range(runs):
            gate = self._gates.popleft()
            if not gate.done():
                gate.set_result(None)

    async def _wait(self) -> None:
        if self._held:
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._gates.append(gate)
            await gate
        else:
            await asyncio.sleep(0)

    def _answer(self, batch: Batch) -> BatchResult:
        first = batch.inputs[self.signature.inputs[0].name]
        if self.broken:
            raise BackendUnavailable("the fake device is lost")
        if self._poison is not None and np.any(first == self._poison):
            raise BackendError(f"poison value {self._poison} in the batch")
        return BatchResult({name: first.copy() for name in batch.output_names}, 1, 2, 3)


@dataclass
class FakeBackend:
    """A Backend that loads FakeLoadedModels.

    Attributes:
        signature: what its models claim.
        failures: artifact digest -> reason; loading such an artifact raises ModelLoadError.
        gate: when set, each load waits for it.
        loaded: every model loaded, in order.
        make: builds the model; override to change its behaviour.
    """

    name: str = "fake"
    platform: str = "fake_platform"
    signature: ModelSignature = field(default_factory=identity_signature)
    failures: dict[str, str] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    loaded: list[FakeLoadedModel] = field(default_factory=list)
    make: Callable[[Artifact, LoadOptions], FakeLoadedModel] | None = None

    async def load(self, artifact: Artifact, options: LoadOptions) -> FakeLoadedModel:
        """Load, or fail as told."""
        if self.gate is not None:
            await self.gate.wait()
        if reason := self.failures.get(artifact.digest):
            raise ModelLoadError(reason)
        model = (
            self.make(artifact, options)
            if self.make
            else FakeLoadedModel(
                self.signature, instances=options.instances or 1, device=options.device or CPU
            )
        )
        self.loaded.append(model)
        return model


class EchoService:
    """An InferenceService that answers every request with its inputs, one loop turn later or when told.

    Args:
        held: True keeps requests until `answer`.

    Attributes:
        pendings: every request admitted, in order.
        refuse: when set, `submit` raises it.
    """

    def __init__(self, *, held: bool = False, version: str = "1") -> None:
        self.pendings: list[Pending] = []
        self.refuse: GatewayError | None = None
        self._held = held
        self._version = version

    def submit(self, request: InferRequest) -> Pending:
        """Admit."""
        if self.refuse is not None:
            raise self.refuse
        pending = Pending(request)
        self.pendings.append(pending)
        if not self._held:
            asyncio.get_running_loop().call_soon(self.answer, pending)
        return pending

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Answer once per row of the first input, as a decoupled model; once without inputs."""
        if self.refuse is not None:
            raise self.refuse
        if not request.inputs:
            yield self._response(request, ())
            return
        rows = request.inputs[0].array
        for index in range(len(rows)):
            await asyncio.sleep(0)
            outputs = tuple(Tensor(t.name, t.datatype, t.array[index : index + 1]) for t in request.inputs)
            yield self._response(request, outputs, final=index == len(rows) - 1)

    def answer(self, pending: Pending, error: GatewayError | None = None) -> None:
        """Complete one request with its inputs, or with `error`."""
        if error is not None:
            pending.fail(error)
        else:
            pending.complete(self._response(pending.request, pending.request.inputs))

    def _response(
        self, request: InferRequest, outputs: tuple[Tensor, ...], *, final: bool = True
    ) -> InferResponse:
        return InferResponse(
            model_name=request.model_name,
            model_version=self._version,
            request_id=request.request_id,
            outputs=outputs,
            final=final,
        )


class RecordingObserver:
    """A BatchObserver and LifecycleObserver that keeps what it was told."""

    def __init__(self) -> None:
        self.batches: list[CompletedBatch] = []
        self.rejected: list[tuple[VersionId, InferRequest, GatewayError]] = []
        self.transitions: list[tuple[VersionId, VersionState]] = []
        self.loads: list[tuple[VersionId, float]] = []

    def on_batch(self, batch: CompletedBatch) -> None:
        """Keep it."""
        self.batches.append(batch)

    def on_rejected(self, version: VersionId, request: InferRequest, error: GatewayError) -> None:
        """Keep it."""
        self.rejected.append((version, request, error))

    def on_transition(self, status: VersionStatus) -> None:
        """Keep it."""
        self.transitions.append((status.id, status.state))

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Keep it."""
        self.loads.append((status.id, seconds))


async def gather_results(pendings: Sequence[Pending]) -> Mapping[int, InferResponse | GatewayError]:
    """Wait for all; return index -> response or error."""
    results: dict[int, InferResponse | GatewayError] = {}
    for index, pending in enumerate(pendings):
        try:
            results[index] = await pending
        except GatewayError as error:
            results[index] = error
    return results
