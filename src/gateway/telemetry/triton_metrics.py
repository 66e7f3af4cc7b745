"""Triton's `nv_inference_*` names over our statistics, so that dashboards made for it go on working."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.core.interfaces import ServedVersion
    from gateway.core.statistics import VersionStatistics
    from gateway.telemetry.batch_metrics import BatchMetrics
    from gateway.telemetry.lifecycle_metrics import LifecycleMetrics
    from gateway.telemetry.server_metrics import ServerSources

_COUNTERS: Final[Mapping[str, tuple[str, Callable[[VersionStatistics], int]]]] = MappingProxyType(
    {
        "nv_inference_request_success": ("Requests answered well.", lambda s: s.success.count),
        "nv_inference_count": ("Rows inferred.", lambda s: s.inference_count),
        "nv_inference_exec_count": ("Runs of the model.", lambda s: s.execution_count),
        "nv_inference_request_duration_us": (
            "Time of requests, microseconds.",
            lambda s: s.success.ns // 1000,
        ),
        "nv_inference_queue_duration_us": ("Time in queue, microseconds.", lambda s: s.queue.ns // 1000),
        "nv_inference_compute_input_duration_us": (
            "Time preparing inputs, microseconds.",
            lambda s: s.compute_input.ns // 1000,
        ),
        "nv_inference_compute_infer_duration_us": (
            "Time running the model, microseconds.",
            lambda s: s.compute_infer.ns // 1000,
        ),
        "nv_inference_compute_output_duration_us": (
            "Time preparing outputs, microseconds.",
            lambda s: s.compute_output.ns // 1000,
        ),
    }
)

_REJECTED: Final = frozenset(
    {"Overloaded", "DeadlineExceeded", "Unavailable", "NotReady", "Draining", "PermissionDenied"}
)


def failures_by_reason(statistics: VersionStatistics, cancelled_in_batch: int) -> dict[str, int]:
    """Divide a version's failed requests into Triton's four reasons.

    Args:
        statistics: whose `fail` counts them all, and whose `rejected` those that never formed a batch.
        cancelled_in_batch: how many of the rest were cancelled while their batch ran.
    """
    rejected = statistics.rejected
    refused = sum(count for name, count in rejected.items() if name in _REJECTED)
    cancelled = rejected.get("Cancelled", 0)
    other = sum(rejected.values()) - refused - cancelled
    formed = max(0, statistics.fail.count - sum(rejected.values()))
    in_batch = min(cancelled_in_batch, formed)
    return {
        "REJECTED": refused,
        "CANCELED": cancelled + in_batch,
        "BACKEND": formed - in_batch,
        "OTHER": other,
    }


class TritonMetrics(Collector):
    """Triton's counters and gauges, computed when scraped: they cost the hot path nothing.

    As in Triton a version's counters disappear with it.
    """

    def __init__(self, sources: ServerSources, batches: BatchMetrics, lifecycle: LifecycleMetrics) -> None:
        self._sources = sources
        self._batches = batches
        self._lifecycle = lifecycle

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        served = self._sources.catalog.served()
        for name, (help_text, value) in _COUNTERS.items():
            family = plain_counter(name, help_text)
            for version in served:
                family.add_sample(name, _labels(version), value(version.statistics))
            yield family
        yield self._failures(served)
        yield self._pending(served)
        loads = GaugeMetricFamily(
            "nv_model_load_duration_secs", "Time loading took.", labels=("model", "version")
        )
        for labels, seconds in self._lifecycle.last_load_s().items():
            loads.add_metric(labels, seconds)
        yield loads

    def _failures(self, served: Iterable[ServedVersion]) -> Metric:
        name = "nv_inference_request_failure"
        family = plain_counter(name, "Requests that failed.")
        for version in served:
            labels = _labels(version)
            cancelled = self._batches.cancelled(labels["model"], labels["version"])
            for reason, count in failures_by_reason(version.statistics, cancelled).items():
                family.add_sample(name, {**labels, "reason": reason}, count)
        return family

    def _pending(self, served: Iterable[ServedVersion]) -> Metric:
        name = "nv_inference_pending_request_count"
        waiting: Counter[tuple[str, int]] = Counter()
        for version, _, batcher in self._sources.queues():
            waiting[version.model, version.number] += batcher.queued_requests
        family = Metric(name, "Requests waiting for a run.", "gauge")
        for served_version in served:
            model, number, _ = served_version.id
            family.add_sample(name, _labels(served_version), waiting[model, number])
        return family


def plain_counter(name: str, help_text: str) -> Metric:
    """Return a family of a counter whose name lacks `_total`.

    OpenMetrics allows no such counter: there it is of type unknown. The text format's type line is put
    right by `gateway.telemetry.metrics.render_families`.
    """
    return Metric(name, help_text, "unknown")


def _labels(version: ServedVersion) -> dict[str, str]:
    return {"model": version.id.model, "version": str(version.id.number)}
