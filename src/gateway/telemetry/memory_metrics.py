"""Memory that models hold on each device, and lazy models: found loaded, loaded on first use, made to go."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.telemetry.histogram import BucketCounts, histogram_family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from gateway.core.types import Device

COLD_START_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Bounds for cold starts: the load of a small model to that of a large one that is fetched first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySources:
    """Where a scrape looks; every callable is called on the event loop and reads local state only.

    Attributes:
        devices: each device with the bytes held on it, and its limit or None.
        refusals: loads refused for lack of memory, by device.
        requests: requests that loaded lazy models have answered or failed, by model.
        waited: those of them, and of those given up before, that waited for their model to be loaded.
        awake: lazy models that are loaded, or being loaded.
    """

    devices: Callable[[], Iterable[tuple[Device, int, int | None]]]
    refusals: Callable[[], Mapping[Device, int]]
    requests: Callable[[], Mapping[str, int]]
    waited: Callable[[], Mapping[str, int]]
    awake: Callable[[], Iterable[str]]


class LazyMetrics(Collector):
    """A LazyObserver that counts cold starts and evictions. Event loop only."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], BucketCounts] = {}
        self._starts: Counter[Sequence[str]] = Counter()
        self._evictions: Counter[Sequence[str]] = Counter()

    def on_cold_start(self, model: str, seconds: float, *, loaded: bool) -> None:
        """Take note that a load begun by a request ended."""
        outcome = "ok" if loaded else "failed"
        self._starts[model, outcome] += 1
        self._seconds.setdefault((outcome,), BucketCounts(COLD_START_SECONDS)).observe(seconds)

    def on_evicted(self, model: str, why: str) -> None:
        """Take note that a model is unloaded until somebody asks again."""
        self._evictions[model, why] += 1

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        yield histogram_family(
            "gateway_lazy_cold_start_seconds",
            "From the first request for a lazy model to the end of its load.",
            ("outcome",),
            self._seconds,
        )
        yield _counters(
            "gateway_lazy_cold_starts", "Loads begun by a request.", ("model", "outcome"), self._starts
        )
        yield _counters(
            "gateway_lazy_evictions", "Unloads of lazy models.", ("model", "reason"), self._evictions
        )


class MemoryMetrics(Collector):
    """Gauges and counters read from their owners when scraped."""

    def __init__(self, sources: MemorySources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        held = GaugeMetricFamily(
            "gateway_memory_held_bytes",
            "Memory that models hold, loads under way included.",
            labels=["device"],
        )
        limits = GaugeMetricFamily(
            "gateway_memory_limit_bytes", "Most memory that models may hold.", labels=["device"]
        )
        for device, nbytes, limit in self._sources.devices():
            held.add_metric([str(device)], nbytes)
            if limit is not None:
                limits.add_metric([str(device)], limit)
        yield held
        yield limits
        refusals = {str(device): count for device, count in self._sources.refusals().items()}
        yield _counters(
            "gateway_memory_refusals", "Loads refused for lack of memory.", ("device",), _single(refusals)
        )
        yield from self._lazy()

    def _lazy(self) -> Iterable[Metric]:
        requests, waited = self._sources.requests(), self._sources.waited()
        hits = {model: max(0, count - waited.get(model, 0)) for model, count in requests.items()}
        yield _counters(
            "gateway_lazy_hits", "Requests that found their lazy model loaded.", ("model",), _single(hits)
        )
        yield _counters(
            "gateway_lazy_waits", "Requests that waited for their lazy model.", ("model",), _single(waited)
        )
        yield GaugeMetricFamily(
            "gateway_lazy_models_loaded",
            "Lazy models loaded, or being loaded.",
            value=len(frozenset(self._sources.awake())),
        )


def _single(values: Mapping[str, int]) -> Mapping[Sequence[str], int]:
    return {(value,): count for value, count in values.items()}


def _counters(
    name: str, help_text: str, labels: Sequence[str], values: Mapping[Sequence[str], int]
) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family
