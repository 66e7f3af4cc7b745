"""One registry of everything measured, and the page a scraper reads."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.telemetry.batch_metrics import BatchMetrics
from gateway.telemetry.lifecycle_metrics import LifecycleMetrics
from gateway.telemetry.loop_lag import LoopLagMonitor
from gateway.telemetry.memory_metrics import LazyMetrics, MemoryMetrics, MemorySources
from gateway.telemetry.registry_metrics import RegistryMetrics, RegistrySources, StalenessMetrics
from gateway.telemetry.request_metrics import RequestMetrics
from gateway.telemetry.rollout_metrics import RolloutMetrics
from gateway.telemetry.server_metrics import ServerMetrics, ServerSources
from gateway.telemetry.transport_metrics import TransportMetrics
from gateway.telemetry.triton_metrics import TritonMetrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.core import Metric

    from gateway.core.clock import Clock
    from gateway.telemetry.remote_metrics import RemoteMetrics
    from gateway.telemetry.rollout_metrics import RolloutSources

_TRITON_COUNTER: Final = re.compile(rb"^(# TYPE nv_\w+) untyped$", re.MULTILINE)


class MetricsPage(NamedTuple):
    """What a scraper is answered with."""

    content_type: str
    body: bytes


class _Collected(Collector):
    """Families already collected, in the shape the encoders take."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render_families(families: Sequence[Metric], accept: str) -> MetricsPage:
    """Write families as OpenMetrics if `accept` asks for it, else as Prometheus text; any thread."""
    encode, content_type = choose_encoder(accept)
    body = encode(_Collected(families))
    # The text encoder adds _total to every counter's name; Triton's have none, so they come as unknown.
    return MetricsPage(content_type, _TRITON_COUNTER.sub(rb"\1 counter", body))


class GatewayMetrics:
    """Owns the registry and the parts that count.

    The parts exist before what they watch: pass `batches` and `lifecycle` as observers, `requests` to the
    telemetry layer, `transport` to the gRPC server, enter `loop_lag`, and call `watch` once the catalog and
    the batchers exist.

    Attributes:
        registry: ours alone; nothing is registered globally.
        requests: for the telemetry layer.
        batches: a BatchObserver.
        lifecycle: a LifecycleObserver.
        lazy: a LazyObserver.
        registries: a PollObserver and LifecycleObserver; told of garbage collections of the cache, too.
        loop_lag: to be entered on the event loop.
        transport: told of limits that clients meet.
    """

    def __init__(self, clock: Clock) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.batches = BatchMetrics()
        self.lifecycle = LifecycleMetrics(self._forget)
        self.requests = RequestMetrics(self.lifecycle.knows)
        self.loop_lag = LoopLagMonitor(clock)
        self.lazy = LazyMetrics()
        self.registries = RegistryMetrics(clock)
        self.transport = TransportMetrics()
        for collector in (
            self.requests,
            self.batches,
            self.lifecycle,
            self.lazy,
            self.registries,
            self.loop_lag,
            self.transport,
        ):
            self.registry.register(collector)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def watch(self, sources: ServerSources) -> None:
        """Add what is read from its owners at each scrape; call once."""
        self.registry.register(ServerMetrics(sources))
        self.registry.register(TritonMetrics(sources, self.batches, self.lifecycle))

    def watch_memory(self, sources: MemorySources) -> None:
        """Add what models hold, and what lazy ones do; likewise."""
        self.registry.register(MemoryMetrics(sources))

    def watch_registries(self, sources: RegistrySources) -> None:
        """Add where models stand with their registries; likewise."""
        self.registry.register(StalenessMetrics(sources))

    def watch_fleets(self, fleets: RemoteMetrics) -> None:
        """Add fleets of remote model servers; likewise."""
        self.registry.register(fleets)

    def watch_rollouts(self, sources: RolloutSources) -> None:
        """Add rollouts and routes; likewise."""
        self.registry.register(RolloutMetrics(sources))

    async def render_aside(self, accept: str = "") -> MetricsPage:
        """Return the page, collected on the loop family by family and written in a thread.

        A page of 50 models takes tens of milliseconds: on the loop they would be felt by every request.
        Cancelling leaves the thread to finish unseen.

        Args:
            accept: the scraper's Accept header.
        """
        families = []
        for family in self.registry.collect():
            families.append(family)
            await asyncio.sleep(0)  # one family per turn of the loop
        return await asyncio.to_thread(render_families, families, accept)

    def _forget(self, model: str, version: str) -> None:
        self.requests.forget(model, version)
        self.batches.forget(model, version)
