"""What the server holds at the moment of a scrape: models, their memory and state, queues, bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from gateway.core.interfaces import ModelCatalog, VersionBatcher
    from gateway.core.types import Device, VersionId


class QueueView(NamedTuple):
    """One batcher, with what it serves."""

    version: VersionId
    device: Device
    batcher: VersionBatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSources:
    """Where a scrape looks; every callable is called on the event loop and reads local state only.

    Attributes:
        catalog: what is served.
        queues: every batcher that lives now.
        inflight_bytes: received bytes of the requests admitted and not answered.
    """

    catalog: ModelCatalog
    queues: Callable[[], Iterable[QueueView]]
    inflight_bytes: Callable[[], int]


class ServerMetrics(Collector):
    """Gauges read from their owners when scraped: nothing is counted twice and nothing can go stale.

    Two loads of one version number that overlap are added up: label values must not repeat in a page.
    """

    def __init__(self, sources: ServerSources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        yield from self._models()
        yield from self._queues()
        yield GaugeMetricFamily(
            "gateway_inflight_bytes",
            "Received bytes held by requests that are not answered.",
            value=self._sources.inflight_bytes(),
        )
        yield GaugeMetricFamily(
            "gateway_ready", "1 when every required model is ready.", value=self._sources.catalog.is_ready()
        )

    def _models(self) -> Iterable[Metric]:
        memory: Counter[tuple[str, ...]] = Counter()
        leases: Counter[tuple[str, ...]] = Counter()
        states: Counter[tuple[str, ...]] = Counter()
        for status in self._sources.catalog.index():
            key = (status.id.model, str(status.id.number or ""))
            states[*key, status.state.value] += 1
            memory[key] += status.memory_bytes
            leases[key] += status.inflight
        labels = ("model", "version")
        yield _gauges("gateway_model_memory_bytes", "Memory held by the loaded version.", labels, memory)
        yield _gauges("gateway_model_leases", "Leases held on the version.", labels, leases)
        yield _gauges("gateway_model_state", "Loads of the version in the state.", (*labels, "state"), states)

    def _queues(self) -> Iterable[Metric]:
        waiting: Counter[tuple[str, ...]] = Counter()
        rows: Counter[tuple[str, ...]] = Counter()
        running: Counter[tuple[str, ...]] = Counter()
        for version, device, batcher in self._sources.queues():
            key = (version.model, str(version.number), str(device))
            waiting[key] += batcher.queued_requests
            rows[key] += batcher.queued_rows
            running[key] += batcher.running_rows
        labels = ("model", "version", "device")
        yield _gauges("gateway_queue_requests", "Requests waiting.", labels, waiting)
        yield _gauges("gateway_queue_rows", "Rows waiting.", labels, rows)
        yield _gauges("gateway_running_rows", "Rows the backend runs now.", labels, running)


def _gauges(
    name: str, help_text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], int]
) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family
