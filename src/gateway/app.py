"""The composition root: builds every part from the configuration, and owns their start and their end."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from gateway import wiring, wiring_registries
from gateway.admin.routes import AdminParts, admin_routes
from gateway.api.context import ApiContext
from gateway.api.decoding import DecodePool
from gateway.api.errors import ErrorTranslator
from gateway.api.grpc_services import rpc_services
from gateway.api.http_routes import http_routes
from gateway.api.readiness import ReadinessNotifier
from gateway.api.server_metadata import installed_metadata
from gateway.api.settings import InMemoryLogSettings, InMemoryTraceSettings
from gateway.backends.local import local_backend
from gateway.backends.warm_up import warm_up
from gateway.batchers import Batchers
from gateway.core.calls import HttpRequest, HttpResponse, HttpRoute
from gateway.core.clock import LoopClock
from gateway.core.errors import GatewayError, NotFound
from gateway.layers.stack import build_stack
from gateway.layers.telemetry import RequestTelemetry
from gateway.models.lazy import LazyModels
from gateway.models.manager import ModelManager
from gateway.models.memory import MemoryBudget
from gateway.models.parts import ManagerParts
from gateway.models.repository import ControlOptions, RepositoryController, RepositoryMode
from gateway.prediction_logging import PredictionLogging
from gateway.registries import Registries
from gateway.registry.filesystem import FileSystemSource, SourceOptions
from gateway.rolling_out import Rollouts
from gateway.routing.cold_starts import ColdStarts
from gateway.routing.router import Router
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.batch_tracer import BatchTracer
from gateway.telemetry.logging import Logging
from gateway.telemetry.memory_metrics import MemorySources
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.prediction_log_metrics import PredictionLogMetrics
from gateway.telemetry.registry_metrics import RegistrySources
from gateway.telemetry.server_metrics import ServerSources
from gateway.telemetry.trace_sampler import TraceSampler
from gateway.telemetry.tracing import Timeline, TracePipeline, Tracing, otlp_exporter
from gateway.transport.grpc_aio import GrpcAioServer
from gateway.transport.grpc_native import GrpcNativeServer
from gateway.transport.http import HttpServer
from gateway.transport.http2.limits import Limit
from gateway.triton_fleets import TritonFleets, remote_apart

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from gateway.config.schema import GatewayConfig
    from gateway.core.interfaces import BatchObserver, LifecycleObserver, ModelCatalog
    from gateway.core.types import ModelSignature, VersionId

_log = logging.getLogger(__name__)

COPY_THREADS = 2
"""Threads that copy large tensors into batches and out of them: one alone can fill half a memory bus."""

REFUSAL_S = 0.25
"""Time for which new work is refused in words before connections close. A request that meets a connection
as it closes is lost without an answer (HTTP) or CANCELLED by grpcio, and its client cannot know that it may
be sent again; a refusal says so, and a client that heard it sends no more."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The TCP ports bound."""

    http: int
    grpc: int
    metrics: int
    admin: int


class Gateway:
    """The whole server on the running event loop.

    Entering it binds the ports and begins to load; `settled` waits for the loads of the start; `serve` runs
    until `stop`, then drains; leaving it frees everything.

    Args:
        config: what to serve and where.
        observers: told of the models' lifecycle, after our own parts.
    """

    def __init__(self, config: GatewayConfig, observers: Sequence[LifecycleObserver] = ()) -> None:
        self._config = config
        self._observers = tuple(observers)
        self._stopping = asyncio.Event()
        self._resources = AsyncExitStack()
        self._clock = LoopClock()
        self._metrics = GatewayMetrics(self._clock)
        self._readiness = ReadinessNotifier()
        self._logging = Logging(wiring.log_options(config))

    @property
    def ports(self) -> Ports:
        """The ports bound; valid once entered."""
        return self._ports

    @property
    def catalog(self) -> ModelCatalog:
        """What is served; valid once entered."""
        return self._manager

    async def __aenter__(self) -> Self:
        """Build the parts, bind the ports, begin to load.

        Raises:
            ConfigError: a port cannot be bound, a repository cannot be read, an extra is missing.
        """
        try:
            await self._start()
        except BaseException:
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free everything; work still under way is abandoned (see `serve` for the graceful end)."""
        await self._resources.aclose()

    async def settled(self) -> None:
        """Wait until every model wanted now is READY or FAILED."""
        await self._manager.wait_settled()

    async def serve(self) -> None:
        """Serve until `stop`, then drain: not ready first, lame-duck wait, work finished within the grace.

        Load balancers see NOT_SERVING at once; new work is taken until the lame-duck time is over, then
        refused with Draining while accepted work finishes, for at most the grace period. Connections stay
        open for `REFUSAL_S` of it, so that clients hear the refusal.
        """
        await self._stopping.wait()
        shutdown = self._config.server.shutdown
        _log.info("draining", extra={"lame_duck_s": shutdown.lame_duck_s, "grace_s": shutdown.grace_s})
        self._readiness.begin_drain()
        self._manager.begin_drain()
        self._http.drain()
        await asyncio.sleep(shutdown.lame_duck_s)
        self._stack.drain.drain()
        self._readiness.close()
        await asyncio.sleep(min(REFUSAL_S, shutdown.grace_s))
        await asyncio.gather(
            self._http.stop(shutdown.grace_s),
            self._grpc.stop(shutdown.grace_s),
            self._drained(shutdown.grace_s),
        )

    def stop(self) -> None:
        """Begin the graceful shutdown; harmless when repeated."""
        self._stopping.set()

    async def _drained(self, grace_s: float) -> None:
        try:
            async with asyncio.timeout(grace_s):
                await self._manager.drained()
        except TimeoutError:
            _log.warning("requests were still running when the grace period ended")

    async def _start(self) -> None:
        enter = self._resources
        enter.enter_context(self._logging)
        enter.enter_context(self._metrics.loop_lag)
        tracing, trace_settings = await self._tracing()
        batch_observers: list[BatchObserver] = [self._metrics.batches]
        if tracing is not None:
            batch_observers.append(BatchTracer(tracing))
        # Left after the batchers have ended: what they run to the last is offered, and delivered.
        predictions = await enter.enter_async_context(PredictionLogging(self._config, self._signature))
        batch_observers.extend(predictions.observers)
        if (logged := predictions.metrics()) is not None:
            self._metrics.registry.register(PredictionLogMetrics(logged))
        # Their own: behind the loads and hashing of the default executor a batch could wait for minutes.
        threads = enter.enter_context(ThreadPoolExecutor(COPY_THREADS, "batch-copy"))
        batchers = Batchers(self._clock, threads, batch_observers)
        self._registries = await enter.enter_async_context(
            Registries(self._config, self._clock, self._metrics.registries)
        )
        # Left after the models are closed, which are asked for until then.
        self._fleets = await enter.enter_async_context(TritonFleets(self._config, self._clock))
        self._metrics.watch_fleets(self._fleets.metrics)
        self._lazy = LazyModels(
            self._clock, wiring_registries.lazy_options(self._config), (self._metrics.lazy,)
        )
        self._budget = MemoryBudget(wiring_registries.memory_options(self._config), self._clock, self._lazy)
        self._rollouts = Rollouts(self._config, self._clock)
        self._manager = await enter.enter_async_context(self._model_manager(batchers))
        enter.callback(self._fleets.leave)
        self._cold_starts = ColdStarts(
            Router(self._manager, table=self._rollouts.table), self._lazy, self._clock
        )
        self._lazy.attach(self._manager, self._cold_starts.changed)
        self._telemetry = RequestTelemetry(
            clock=self._clock,
            metrics=self._metrics.requests,
            tracing=tracing,
            access_log=AccessLog() if self._config.telemetry.log.access else None,
        )
        options = wiring.stack_options(self._config.server)
        router = Router(self._manager, self._cold_starts, self._rollouts.table)
        self._stack = build_stack(router, options, self._telemetry)
        self._metrics.watch(
            ServerSources(
                catalog=self._manager,
                queues=batchers.queues,
                inflight_bytes=lambda: self._stack.admission.inflight_bytes,
            )
        )
        self._metrics.watch_registries(
            RegistrySources(resolutions=self._registries.resolutions, wall_s=time.time)
        )
        self._metrics.watch_memory(
            MemorySources(
                devices=self._budget.devices,
                refusals=lambda: self._budget.refusals,
                requests=self._lazy.requests,
                waited=lambda: self._cold_starts.waited,
                awake=self._lazy.awake,
            )
        )
        described = wiring.source_options(self._config)
        sources = wiring.model_sources(self._config, described)
        repository = self._repository(sources, described)
        # Before requests are taken, and before sources prefer a version that a rollout is to try first.
        await enter.enter_async_context(
            self._rollouts.prepare(
                self._manager,
                [*self._registries.sources, *self._fleets.sources, *sources],
                batchers.slots_of,
            )
        )
        if (scraped := self._rollouts.metrics()) is not None:
            self._metrics.watch_rollouts(scraped)
        # Before the listeners, whose end drops the requests that are being decoded.
        decode_pool = await enter.enter_async_context(
            DecodePool(max_bytes=int(self._config.server.admission.max_inflight_bytes))
        )
        context = self._api_context(repository, trace_settings, decode_pool)
        await self._listen(context)
        await enter.enter_async_context(repository)

    async def _tracing(self) -> tuple[Tracing | None, InMemoryTraceSettings]:
        options = wiring.tracing_options(self._config)
        sampler = TraceSampler(options)
        settings = InMemoryTraceSettings(sampler.start_values(), sampler.changed, self._knows)
        sampler.follow(settings.get)
        if options.endpoint is None:
            return None, settings
        pipeline = TracePipeline(options, otlp_exporter(options))
        await self._resources.enter_async_context(pipeline)
        return Tracing(pipeline.tracer, sampler, Timeline(self._clock)), settings

    def _knows(self, model: str) -> bool:
        """Whether there is such a model, ready or not."""
        try:
            self._manager.ready_versions(model)
        except NotFound:
            return False
        return True

    def _signature(self, version: VersionId) -> ModelSignature | None:
        """Return what a version takes and gives; None where it is not READY any more."""
        try:
            served = self._manager.get(version.model, str(version.number))
        except GatewayError:
            return None
        return served.signature if served.id == version else None

    def _model_manager(self, batchers: Batchers) -> ModelManager:
        backend = local_backend(notice=lambda sentence: _log.warning("%s", sentence))
        return ModelManager(
            ManagerParts(
                backends={backend.name: backend, **self._fleets.backends},
                batcher_factory=batchers.make,
                clock=self._clock,
                warm_up=remote_apart(warm_up, backend.counting(warm_up)),
                observers=(
                    self._metrics.lifecycle,
                    self._metrics.registries,
                    self._readiness,
                    self._budget,
                    self._lazy,
                    *self._registries.sources,
                    self._rollouts,
                    *self._observers,
                ),
                on_change=self._readiness.notify,
                load_concurrency=self._config.server.load_concurrency,
                fetch_concurrency=self._config.cache.fetch_concurrency,
                budget=self._budget,
                retry_pauses_s=wiring.retry_pauses_s(self._config),
            )
        )

    def _repository(
        self, sources: Sequence[FileSystemSource], options: SourceOptions
    ) -> RepositoryController:
        settings = self._config.repository
        return RepositoryController(
            self._manager,
            sources,
            RepositoryMode(settings.mode if settings else "none"),
            private=lambda directory: FileSystemSource("operator", directory, options=options),
            options=ControlOptions(
                load_at_start=settings.load_at_start if settings else (),
                required=wiring.required_models(self._config),
                followed=[*self._registries.sources, *self._fleets.sources],
            ),
        )

    def _api_context(
        self,
        repository: RepositoryController,
        trace_settings: InMemoryTraceSettings,
        decode_pool: DecodePool,
    ) -> ApiContext:
        server = self._config.server
        return ApiContext(
            service=self._stack.service,
            catalog=self._manager,
            repository=repository,
            readiness=self._readiness,
            clock=self._clock,
            trace_settings=trace_settings,
            log_settings=InMemoryLogSettings(self._logging.values(), self._logging.changed),
            limits=wiring.protocol_limits(server),
            profile=wiring.status_profile(server),
            refused=self._telemetry.refused,
            decode_pool=decode_pool,
            cold_starts=self._cold_starts,
            max_stream_inflight=server.grpc.max_stream_inflight,
        )

    async def _listen(self, context: ApiContext) -> None:
        """Bind the four listeners; they are stopped in reverse order, metrics and administration last."""
        server = self._config.server
        admin = HttpServer(self._admin_routes(), wiring.admin_options(server))
        metrics = HttpServer([self._metrics_route()], wiring.metrics_options(server))
        self._grpc = self._grpc_server(context)
        self._http = HttpServer(http_routes(context), wiring.http_options(server))
        for listener in (admin, metrics, self._grpc, self._http):
            await listener.start()
            self._resources.push_async_callback(listener.stop, 0.0)
        self._ports = Ports(self._http.port, self._grpc.port, metrics.port, admin.port)

    def _admin_routes(self) -> list[HttpRoute]:
        return admin_routes(
            AdminParts(
                catalog=self._manager,
                version=installed_metadata().version,
                guard=ErrorTranslator(wiring.status_profile(self._config.server)).http,
                registries=self._registries.sources,
                webhooks=self._registries.webhooks,
                memory=self._budget.devices,
                rollouts=self._rollouts.admin,
                fleets=self._fleets.shown,
            )
        )

    def _grpc_server(self, context: ApiContext) -> GrpcAioServer | GrpcNativeServer:
        server = self._config.server
        services, options = rpc_services(context), wiring.grpc_options(server)
        if server.grpc.transport == "grpcio":
            return GrpcAioServer(services, options)
        self._metrics.transport.expect(Limit)
        return GrpcNativeServer(services, options, self._metrics.transport.limit_fired)

    def _metrics_route(self) -> HttpRoute:
        async def page(request: HttpRequest) -> HttpResponse:
            content_type, body = await self._metrics.render_aside(request.headers.get("accept", ""))
            return HttpResponse(200, (body,), content_type=content_type)

        return HttpRoute("GET", "/metrics", page, operation_id="metrics")
