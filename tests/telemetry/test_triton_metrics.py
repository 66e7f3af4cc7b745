"""Triton's metric names, labels and types."""

import pytest

from gateway.core.statistics import DurationCount, VersionStatistics
from gateway.core.types import CPU, VersionState
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.server_metrics import QueueView, ServerSources
from gateway.telemetry.triton_metrics import failures_by_reason
from gateway.testing import VirtualClock
from tests.telemetry.builders import DIGITS, Catalog, Served, batch, request, samples, status, text_page
from tests.telemetry.test_metrics import Queue

LABELS = {"model": "digits", "version": "1"}

STATISTICS = VersionStatistics(
    inference_count=40,
    execution_count=9,
    success=DurationCount(20, 5_000_999),
    fail=DurationCount(10, 1),
    queue=DurationCount(20, 1_000_000),
    compute_input=DurationCount(20, 2_000_000),
    compute_infer=DurationCount(20, 3_000_000),
    compute_output=DurationCount(20, 4_000_000),
    rejected={"Overloaded": 2, "DeadlineExceeded": 1, "Cancelled": 1, "InvalidRequest": 1},
)

EXPECTED = {
    "nv_inference_request_success": 20,
    "nv_inference_count": 40,
    "nv_inference_exec_count": 9,
    "nv_inference_request_duration_us": 5000,
    "nv_inference_queue_duration_us": 1000,
    "nv_inference_compute_input_duration_us": 2000,
    "nv_inference_compute_infer_duration_us": 3000,
    "nv_inference_compute_output_duration_us": 4000,
    "nv_inference_pending_request_count": 6,
    "nv_model_load_duration_secs": 1.5,
}

COUNTERS = [name for name in EXPECTED if not name.endswith(("pending_request_count", "_secs"))]


@pytest.fixture
def metrics() -> GatewayMetrics:
    made = GatewayMetrics(VirtualClock())
    made.lifecycle.on_transition(status(VersionState.READY))
    made.lifecycle.on_loaded(status(VersionState.READY), 1.5)
    queues = [QueueView(DIGITS, CPU, Queue(4, 4, 0)), QueueView(DIGITS, CPU, Queue(2, 2, 0))]  # type: ignore[arg-type]
    catalog = Catalog([Served(statistics=STATISTICS)])
    made.watch(ServerSources(catalog=catalog, queues=lambda: queues, inflight_bytes=int))
    return made


@pytest.mark.parametrize(("name", "value"), EXPECTED.items())
def test_values_come_from_the_statistics(metrics: GatewayMetrics, name: str, value: float) -> None:
    """Each of Triton's names has exactly the labels model and version and the statistics' value."""
    assert samples(metrics).value(name, **LABELS) == value


def test_failures_are_divided_into_tritons_reasons(metrics: GatewayMetrics) -> None:
    """Cancellation while a batch ran is told apart from failures of the backend."""
    gone = batch([request(), request()])
    gone.members[1].cancelled = True
    metrics.batches.on_batch(gone)
    page = samples(metrics)
    name = "nv_inference_request_failure"
    found = {row["reason"]: page.value(name, **row) for row in page.labels(name)}
    assert found == {"REJECTED": 3, "CANCELED": 2, "BACKEND": 4, "OTHER": 1}
    assert sum(v for v in found.values() if v) == STATISTICS.fail.count


def test_more_cancellations_than_failures_give_no_negative_count() -> None:
    """The reasons never go below zero, whoever counted first."""
    counts = failures_by_reason(VersionStatistics(fail=DurationCount(1, 0)), 5)
    assert counts == {"REJECTED": 0, "CANCELED": 1, "BACKEND": 0, "OTHER": 0}


@pytest.mark.parametrize("name", [*COUNTERS, "nv_inference_request_failure"])
def test_counters_are_declared_as_triton_declares_them(metrics: GatewayMetrics, name: str) -> None:
    """The text page types them counter, under the name without `_total`."""
    text = text_page(metrics).decode()
    assert f"# TYPE {name} counter\n" in text
    assert f"{name}_total" not in text
