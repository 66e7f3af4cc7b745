"""One model version on a fleet of Triton servers, run like a model of this process."""

from __future__ import annotations

import dataclasses
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.backends.triton.batching_choice import BatchingChoice
from gateway.backends.triton.call import Call
from gateway.backends.triton.codec import Target
from gateway.backends.triton.connection import Asked
from gateway.backends.triton.failures import ModelFailed
from gateway.backends.triton.options import Batching
from gateway.backends.triton.signature import batching_of
from gateway.core.errors import BackendError, BackendUnavailable
from gateway.core.types import BatchResult

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from gateway.backends.remote.fleet import Fleet
    from gateway.backends.triton.connection import TritonConnection
    from gateway.backends.triton.options import TritonOptions
    from gateway.backends.triton.signature import ModelFacts
    from gateway.backends.triton.versions import Loaded, Versions
    from gateway.core.clock import Clock
    from gateway.core.options import ModelSpec
    from gateway.core.types import Batch, Device, ModelSignature, TraceContext


@dataclass(frozen=True, slots=True)
class TritonFleet:
    """A fleet and what is known of its versions.

    Attributes:
        fleet: where requests go.
        versions: which endpoint has which version ready; kept by the fleet's connections.
        device: what its models are said to run on, and share among them.
    """

    fleet: Fleet[TritonConnection]
    versions: Versions
    device: Device


@dataclass(frozen=True, slots=True)
class Served:
    """What loading found out about a version.

    Attributes:
        name: public name, for messages.
        loaded: the version on Triton.
        facts: what Triton says of it.
        options: how it is run.
    """

    name: str
    loaded: Loaded
    facts: ModelFacts
    options: TritonOptions


class TritonModel:
    """A `LoadedModel` that a fleet runs. Requests go to endpoints that have exactly its version.

    Attributes:
        signature: what it takes and gives.
        device: stands for the fleet.
        memory_bytes: 0: what it holds is elsewhere.
        overlaps: True: a run takes no processor here.
        remote: True.
        platform: as Triton reports it.
        served: what loading found out.
        choice: who forms batches, where that is found out by trying; else None.

    Args:
        fleet: where it runs.
        served: what it is.
        clock: time.
        closed: awaited by `aclose`.
    """

    remote = True
    overlaps = True
    memory_bytes = 0

    def __init__(
        self,
        fleet: TritonFleet,
        served: Served,
        clock: Clock,
        closed: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.signature: ModelSignature = served.facts.signature
        self.device = fleet.device
        self.platform = served.facts.platform
        self.served = served
        tries = served.options.batching is Batching.AUTO and served.facts.whose_batches is Batching.AUTO
        self.choice = BatchingChoice() if tries else None
        self._fleet = fleet.fleet
        self._versions = fleet.versions
        self._clock = clock
        self._closed = closed
        self._target = Target(
            served.loaded.model,
            str(served.loaded.version),
            served.facts.signature,
            sequences=served.facts.sequences,
            priorities=served.facts.priorities,
            timeouts=served.facts.timeouts,
        )
        self._key = f"model '{served.name}'"

    @property
    def instances(self) -> int:
        """How many runs may be under way: what the fleet takes, or few where batches are formed here.

        As many batches as the endpoints run at once, and one more for each, which waits there for its turn
        while the answer before it travels.
        """
        capacity = max(1, self._fleet.capacity)
        if not self._forms_batches():
            return capacity
        endpoints = len(self._versions.having(self.served.loaded))
        return max(1, min(capacity, endpoints * (self.served.facts.instances + 1)))

    def settled(self, spec: ModelSpec) -> ModelSpec:
        """Return `spec` with the labels and the batching that Triton says; see `batching_of`.

        Raises:
            ModelLoadError: the two contradict each other.
        """
        batching = batching_of(spec.batching, self.served.facts, self.served.options.batching)
        labels = {**self.served.facts.labels, **spec.labels}
        return dataclasses.replace(spec, batching=batching, labels=labels)

    async def infer(self, batch: Batch) -> BatchResult:
        """Run one batch on some endpoint; the outputs are read-only and the caller's.

        Cancelling calls it off there too, but for what travels in shared memory.

        Raises:
            InvalidRequest: Triton says so, or a parameter cannot be said.
            BackendError: every endpoint tried says that the model failed.
            BackendUnavailable: no endpoint answered.
            Overloaded: they are full.
            DeadlineExceeded: the batch's deadline is over.
        """
        call = self._call(batch)
        started_ns = time.perf_counter_ns()
        self._began(batch)
        answered = False
        try:
            answer = await self._fleet.call(
                call.run,
                key=self._key,
                deadline_s=batch.deadline_s,
                among=self._versions.having(self.served.loaded),
                affinity=self._affinity(batch),
                repeatable=not self.served.facts.sequences,
            )
            answered = True
        except BackendUnavailable as error:
            raise self._blamed(call, error) from error.__cause__
        finally:
            self._ended(batch, answered=answered)
        return BatchResult(answer.outputs, compute_infer_ns=time.perf_counter_ns() - started_ns)

    def let_run(self, most_s: float) -> None:
        """Nothing to wait for: runs take no processor here."""

    async def stream(self, batch: Batch) -> AsyncGenerator[BatchResult, None]:
        """Run one request of a decoupled model, in order; a plain model gives its one result.

        Raises:
            GatewayError: as `infer`, from any step.
        """
        if not self.signature.decoupled:
            yield await self.infer(batch)
            return
        call = self._call(batch)
        items = self._fleet.stream(
            call.stream,
            key=self._key,
            deadline_s=batch.deadline_s,
            among=self._versions.having(self.served.loaded),
            affinity=self._affinity(batch),
            repeatable=not self.served.facts.sequences,
        )
        try:
            async with aclosing(items):
                async for outputs in items:
                    yield BatchResult(outputs)
        except BackendUnavailable as error:
            raise self._blamed(call, error) from error.__cause__

    async def aclose(self) -> None:
        """Give the version up. The fleet goes on."""
        self._versions.unwatch(self.served.loaded)
        if self._closed is not None:
            await self._closed()

    def _call(self, batch: Batch) -> Call:
        served = self.served
        asked = Asked(served.loaded, served.name, _metadata(batch.trace))
        return Call(batch, self._target, asked, shares_memory=served.options.shared_memory)

    def _forms_batches(self) -> bool:
        if self.choice is not None:
            return self.choice.gateway
        possible, wanted = self.served.facts.whose_batches, self.served.options.batching
        return Batching.PASSTHROUGH not in {possible, wanted}

    def _affinity(self, batch: Batch) -> str | None:
        """Return what keeps the requests of a sequence together: its state is on one endpoint."""
        if not self.served.facts.sequences:
            return None
        sequence: Any = batch.parameters.get("sequence_id", 0)
        return f"{self.served.loaded.model}/{self.served.loaded.version}/{sequence}"

    def _began(self, batch: Batch) -> None:
        if self.choice is not None:
            self.choice.began(batch.rows, self._clock.now_s())

    def _ended(self, batch: Batch, *, answered: bool) -> None:
        if self.choice is not None:
            self.choice.ended(batch.rows, self._clock.now_s(), answered=answered)

    def _blamed(self, call: Call, error: BackendUnavailable) -> BackendError:
        """Return the error to answer: the model's own, where every endpoint tried gave just that."""
        if call.failures and all(isinstance(failure, ModelFailed) for failure in call.failures):
            return BackendError(f"{self._key}: {call.failures[-1]}")
        return error


def _metadata(trace: TraceContext | None) -> tuple[tuple[str, str], ...]:
    """Return a trace context as its headers (W3C Trace Context, level 1)."""
    if trace is None:
        return ()
    parent = ("traceparent", f"00-{trace.trace_id:032x}-{trace.span_id:016x}-{int(trace.sampled):02x}")
    return (parent, ("tracestate", trace.state)) if trace.state else (parent,)
