"""The protocol's methods over a manager whose models are loaded on first use, by a fake backend."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gateway.api.context import ApiContext
from gateway.api.decoding import DecodePool
from gateway.api.grpc_inference import inference_service
from gateway.api.http_routes import http_routes
from gateway.core.types import InferResponse
from gateway.routing.router import Router
from gateway.testing import FakeLoadedModel, settle
from tests.api.drivers import ROWS, HttpDriver, Repository
from tests.models.lazy_stage import CountingBatcher, LazyStage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.calls import CancelHook, HttpResponse
    from gateway.core.interfaces import LoadedModel
    from gateway.core.options import LoadOptions, ModelSpec
    from gateway.core.pending import Pending
    from gateway.core.statistics import VersionStatistics
    from gateway.core.types import Artifact, InferRequest, ModelSignature, VersionId
    from gateway.models.desired import DesiredVersion


class EchoBatcher(CountingBatcher):
    """Answers each request with its inputs, one turn of the event loop later, unless `held`."""

    held = False

    def submit(self, request: InferRequest) -> Pending:
        pending = super().submit(request)
        if not self.held:
            asyncio.get_running_loop().call_soon(pending.complete, self._answer(request))
        return pending

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        yield self._answer(request)

    def _answer(self, request: InferRequest) -> InferResponse:
        return InferResponse(
            model_name=request.model_name,
            model_version=str(self.version.number),
            request_id=request.request_id,
            outputs=request.inputs,
        )


@dataclass
class ColdStage(LazyStage):
    """Everything a test of cold starts through the protocol may steer or look at.

    Attributes:
        answers: whether models answer.
        signatures: artifact digest -> what its model takes; `x`, rows of two FP32, unless said.
        refusals: what was refused before the service saw it.
    """

    answers: bool = True
    signatures: dict[str, ModelSignature] = field(default_factory=dict)
    refusals: list[tuple[InferRequest, Exception]] = field(default_factory=list)

    def batcher(
        self, version: VersionId, model: LoadedModel, spec: ModelSpec, statistics: VersionStatistics
    ) -> EchoBatcher:
        del spec
        batcher = EchoBatcher(version, model, statistics)
        batcher.held = not self.answers
        self.queues.append(batcher)
        return batcher

    def model(self, artifact: Artifact, options: LoadOptions) -> FakeLoadedModel:
        del options
        return FakeLoadedModel(self.signatures.get(artifact.digest, ROWS), memory_bytes=1)

    @asynccontextmanager
    async def serving(self, *versions: DesiredVersion, gated: bool = True) -> AsyncIterator[ColdStage]:
        """Serve; with `gated`, loads wait for `load`."""
        if gated:
            self.backend.gate = asyncio.Event()
        async with self.running(*versions) as manager, DecodePool() as decode_pool:
            self.catalog = manager
            context = ApiContext(
                service=self.router,
                catalog=manager,
                repository=Repository(),
                clock=self.clock,
                decode_pool=decode_pool,
                cold_starts=self.cold,
                refused=lambda request, error: self.refusals.append((request, error)),
                max_stream_inflight=4,
            )
            self._answer_by(context)
            yield self
            self.load()

    def waits_nowhere(self) -> None:
        """Serve from here on without a waiting room."""
        self._answer_by(replace(self._context, service=Router(self.catalog), cold_starts=None))

    def _answer_by(self, context: ApiContext) -> None:
        self._context = context
        self.http = HttpDriver(http_routes(context))
        self.grpc = inference_service(context)

    def load(self) -> None:
        """Let what is being loaded be loaded."""
        if self.backend.gate is not None:
            self.backend.gate.set()

    async def waiting(self, count: int) -> None:
        """Let the event loop run until so many requests wait for a model."""
        await self.until(lambda: self.cold.waiting() == count)
        await settle()

    def asked(self) -> int:
        """Return how many requests have got to a model."""
        return sum(len(queue.pendings) for queue in self.queues)

    def begin(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Exchange:
        """Begin an HTTP exchange that is answered by callback."""
        route, request = self.http.request("POST", path, body, headers)
        assert route.begin is not None
        replies: list[HttpResponse] = []
        return Exchange(route.begin(request, replies.append), replies)


@dataclass
class Exchange:
    """An HTTP exchange under way: what ends it early, and its replies."""

    cancel: CancelHook
    replies: list[HttpResponse]

    def answer(self) -> tuple[int, Any]:
        """Return status and body of the one reply."""
        (reply,) = self.replies
        return reply.status, b"".join(bytes(part) for part in reply.body)
