"""Values on the metrics page after scripted happenings."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from gateway.core.errors import BackendError, Overloaded
from gateway.core.types import CPU, StepTiming, VersionId, VersionState
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.request_metrics import UNKNOWN_MODEL
from gateway.telemetry.server_metrics import QueueView, ServerSources
from gateway.testing import VirtualClock
from tests.telemetry.builders import DIGITS, Catalog, Samples, Served, batch, request, samples, status

OK = {"model": "digits", "version": "1", "device": "cpu", "outcome": "ok"}


class Queue:
    """A VersionBatcher's counts."""

    def __init__(self, requests: int, rows: int, running: int) -> None:
        self.queued_requests = requests
        self.queued_rows = rows
        self.running_rows = running


@pytest.fixture
def metrics() -> GatewayMetrics:
    made = GatewayMetrics(VirtualClock())
    made.lifecycle.on_transition(status(VersionState.READY))
    return made


def test_a_batch_is_counted_with_its_rows_times_and_reason(metrics: GatewayMetrics) -> None:
    """Every histogram and counter of a batch takes its value in the right unit."""
    metrics.batches.on_batch(batch([request(), request(), request()]))
    page = samples(metrics)
    assert page.value("gateway_batch_rows_sum", **OK) == 3
    assert page.value("gateway_batch_rows_bucket", **OK, le="2.0") == 0
    assert page.value("gateway_batch_rows_bucket", **OK, le="4.0") == 1
    assert page.value("gateway_queue_duration_seconds_count", **OK) == 3
    assert page.value("gateway_queue_duration_seconds_sum", **OK) == pytest.approx(0.006)
    assert page.value("gateway_compute_duration_seconds_sum", **OK) == pytest.approx(0.007)
    assert page.value("gateway_batches_total", **OK, close_reason="full") == 1
    assert page.value("gateway_batch_elements_total", **OK) == 12
    assert page.value("gateway_batch_pad_elements_total", **OK) == 3
    assert page.value("gateway_bisection_runs_total", **OK) == 0


def test_a_failed_batch_and_its_bisection_are_told_apart(metrics: GatewayMetrics) -> None:
    """The parts of a failed batch count as bisection runs, each request's time in queue where it ended."""
    pair = [request(), request()]
    metrics.batches.on_batch(batch([], error=BackendError("poison")))
    metrics.batches.on_batch(batch(pair[:1], bisection=True))
    metrics.batches.on_batch(batch(pair[1:], bisection=True, error=BackendError("poison")))
    page = samples(metrics)
    failed = {**OK, "outcome": "backend_error"}
    assert page.value("gateway_batches_total", **failed, close_reason="full") == 2
    assert page.value("gateway_bisection_runs_total", **failed) == 1
    assert page.value("gateway_bisection_runs_total", **OK) == 1
    assert page.value("gateway_queue_duration_seconds_count", **failed) == 1
    assert page.value("gateway_queue_duration_seconds_count", **OK) == 1


def test_a_request_that_never_formed_a_batch_is_counted_by_outcome(metrics: GatewayMetrics) -> None:
    """Refusals by the queue appear under their outcome."""
    metrics.batches.on_rejected(DIGITS, request(), Overloaded("full"))
    assert (
        samples(metrics).value(
            "gateway_queue_rejected_total", model="digits", version="1", outcome="overloaded"
        )
        == 1
    )


def test_requests_are_counted_and_timed_by_outcome(metrics: GatewayMetrics) -> None:
    """Counter and histogram agree, and in-flight is what it was set to."""
    metrics.requests.inflight = 5
    for seconds in (0.001, 0.2):
        metrics.requests.finished("digits", "1", Outcome.OK, seconds)
    page = samples(metrics)
    labels = {"model": "digits", "version": "1", "outcome": "ok"}
    assert page.value("gateway_requests_total", **labels) == 2
    assert page.value("gateway_request_duration_seconds_sum", **labels) == pytest.approx(0.201)
    assert page.value("gateway_request_duration_seconds_bucket", **labels, le="0.001") == 1
    assert page.value("gateway_inflight_requests") == 5


def test_made_up_names_and_versions_share_one_series(metrics: GatewayMetrics) -> None:
    """However many names clients invent, the page grows by one series."""
    for number in range(50):
        metrics.requests.finished(f"invented-{number}", str(number), Outcome.NOT_FOUND, 0.001)
        metrics.requests.finished("digits", f"9{number}", Outcome.NOT_FOUND, 0.001)
    page = samples(metrics)
    assert page.value("gateway_requests_total", model=UNKNOWN_MODEL, version="", outcome="not_found") == 50
    assert page.value("gateway_requests_total", model="digits", version="", outcome="not_found") == 50
    assert len(list(page.labels("gateway_requests_total"))) == 2


def test_series_of_a_version_go_with_its_last_load(metrics: GatewayMetrics) -> None:
    """Two overlapping loads of one number keep its series until both are unloaded."""
    again = VersionId("digits", 1, "b")
    metrics.requests.finished("digits", "1", Outcome.OK, 0.1)
    metrics.batches.on_batch(batch([request()]))
    metrics.batches.on_rejected(DIGITS, request(), Overloaded("full"))
    metrics.lifecycle.on_transition(status(VersionState.READY, again))
    metrics.lifecycle.on_transition(status(VersionState.UNLOADED))
    assert samples(metrics).value("gateway_batches_total", **OK, close_reason="full") == 1
    metrics.lifecycle.on_transition(status(VersionState.UNLOADED, again))
    page = samples(metrics)
    for name in ("gateway_requests_total", "gateway_batches_total", "gateway_queue_rejected_total"):
        assert name not in page.names()


def test_loads_and_failures_are_counted_by_model(metrics: GatewayMetrics) -> None:
    """A load gives its duration, a failure only a count."""
    metrics.lifecycle.on_loaded(status(VersionState.READY), 3.0)
    metrics.lifecycle.on_transition(status(VersionState.FAILED, VersionId("digits", 2, "c")))
    page = samples(metrics)
    assert page.value("gateway_model_loads_total", model="digits") == 1
    assert page.value("gateway_model_load_failures_total", model="digits") == 1
    assert page.value("gateway_model_load_duration_seconds_bucket", model="digits", le="2.5") == 0
    assert page.value("gateway_model_load_duration_seconds_bucket", model="digits", le="5.0") == 1


def test_steps_of_a_load_are_timed_by_model(metrics: GatewayMetrics) -> None:
    """Each step of a load that ended well counts under its name."""
    steps = [
        StepTiming(state=state, began_s=7.0, seconds=seconds)
        for state, seconds in [
            (VersionState.NEW, 0.0),
            (VersionState.FETCHING, 7.5),
            (VersionState.TESTING, 0.2),
        ]
    ]
    metrics.lifecycle.on_transition(status(VersionState.FAILED, VersionId("digits", 2, "c"), steps=steps))
    metrics.lifecycle.on_loaded(status(VersionState.READY, steps=steps), 0.2)
    page = samples(metrics)
    fetch = {"model": "digits", "step": "fetch"}
    assert page.value("gateway_model_step_seconds_sum", **fetch) == 7.5
    assert page.value("gateway_model_step_seconds_bucket", **fetch, le="1.0") == 0
    assert page.value("gateway_model_step_seconds_bucket", **fetch, le="10.0") == 1
    for step in ("wait", "golden_test"):
        assert page.value("gateway_model_step_seconds_count", model="digits", step=step) == 1


def test_every_state_on_the_way_to_ready_has_a_name() -> None:
    """No state that a version goes through before READY is without a word for its step."""
    before = list(VersionState)[: list(VersionState).index(VersionState.READY)]
    for state in before:
        made = GatewayMetrics(VirtualClock())
        made.lifecycle.on_loaded(
            status(VersionState.READY, steps=[StepTiming(state=state, began_s=0.0, seconds=1.0)]), 1.0
        )


def test_gauges_are_read_from_their_owners_at_the_scrape(metrics: GatewayMetrics) -> None:
    """State, memory, leases, queues and bytes are what the owners say now, overlapping loads added up."""
    catalog = Catalog(
        [Served()],
        [
            status(VersionState.READY, memory_bytes=100, inflight=2),
            status(VersionState.DRAINING, VersionId("digits", 1, "b"), memory_bytes=50, inflight=1),
            status(VersionState.UNLOADED, VersionId("idle", 0, "")),
        ],
    )
    queues = [QueueView(DIGITS, CPU, Queue(2, 7, 4)), QueueView(DIGITS, CPU, Queue(1, 1, 0))]  # type: ignore[arg-type]
    held = [4096]
    metrics.watch(ServerSources(catalog=catalog, queues=lambda: queues, inflight_bytes=lambda: held[0]))
    page = samples(metrics)
    digits = {"model": "digits", "version": "1"}
    assert page.value("gateway_model_memory_bytes", **digits) == 150
    assert page.value("gateway_model_leases", **digits) == 3
    assert page.value("gateway_model_state", **digits, state="READY") == 1
    assert page.value("gateway_model_state", **digits, state="DRAINING") == 1
    assert page.value("gateway_model_state", model="idle", version="", state="UNLOADED") == 1
    assert page.value("gateway_queue_requests", **digits, device="cpu") == 3
    assert page.value("gateway_queue_rows", **digits, device="cpu") == 8
    assert page.value("gateway_running_rows", **digits, device="cpu") == 4
    assert page.value("gateway_inflight_bytes") == 4096
    assert page.value("gateway_ready") == 1
    held[0], catalog.ready = 0, False
    page = samples(metrics)
    assert (page.value("gateway_inflight_bytes"), page.value("gateway_ready")) == (0, 0)


def full_page(metrics: GatewayMetrics) -> None:
    metrics.watch(
        ServerSources(
            catalog=Catalog([Served()], [status(VersionState.READY)]), queues=list, inflight_bytes=int
        )
    )
    metrics.batches.on_batch(batch([request()]))
    metrics.requests.finished("digits", "1", Outcome.OK, 0.1)
    metrics.lifecycle.on_loaded(status(VersionState.READY), 3.0)


async def test_openmetrics_is_written_when_asked_for(metrics: GatewayMetrics) -> None:
    """The strict OpenMetrics parser reads the page and finds ours, Triton's and the process's families."""
    full_page(metrics)
    content_type, body = await metrics.render_aside("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert {"gateway_batch_rows", "nv_inference_count", "process_cpu_seconds", "python_info"} <= names


async def test_plain_text_is_the_default(metrics: GatewayMetrics) -> None:
    """Without a preference the scraper gets Prometheus text."""
    full_page(metrics)
    content_type, body = await metrics.render_aside()
    assert content_type.startswith("text/plain")
    assert Samples(body).value("python_gc_collections_total", generation="2") is not None


async def test_the_page_written_aside_is_the_same(metrics: GatewayMetrics) -> None:
    """Writing in a thread changes nothing that is on the page."""
    full_page(metrics)
    aside = await metrics.render_aside()
    assert Samples(aside.body).by_key.keys() == samples(metrics).by_key.keys()


def test_two_gateways_in_one_process_share_no_series(metrics: GatewayMetrics) -> None:
    """Nothing is registered globally."""
    other = GatewayMetrics(VirtualClock())
    metrics.batches.on_batch(batch([request()]))
    assert "gateway_batches_total" not in samples(other).names()
