"""Spans as an exporter gets them."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway.core.errors import BackendError, ConfigError, Overloaded
from gateway.core.types import InferRequest, InferResponse, RequestTiming
from gateway.telemetry.batch_tracer import BatchTracer
from gateway.telemetry.options import TracingOptions
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.trace_sampler import TraceSampler
from gateway.telemetry.tracing import Timeline, TracePipeline, Tracing, otlp_exporter
from gateway.testing import VirtualClock
from tests.telemetry.builders import DIGITS, batch, request

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
EPOCH_NS = 1_700_000_000_000_000_000
RESPONSE = InferResponse(
    model_name="digits", model_version="1", outputs=(), timing=RequestTiming(batch_rows=3)
)


class Recorder:
    """Tracing of everything, into memory; the monotonic time 1000 s is EPOCH_NS."""

    def __init__(self, ratio: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.clock = VirtualClock(1000.0)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.wall_ns = EPOCH_NS
        sampler = TraceSampler(TracingOptions(endpoint="http://c", sample_ratio=ratio))
        self.tracing = Tracing(
            provider.get_tracer("gateway"), sampler, Timeline(self.clock, lambda: self.wall_ns)
        )
        self.batches = BatchTracer(self.tracing)

    def begun(self, flags: str | None = None, state: str = "", **fields: Any) -> InferRequest:
        headers = {} if flags is None else {"traceparent": f"00-{TRACE}-{SPAN}-{flags}", "tracestate": state}
        made = request(headers=headers, arrived_s=1000.0, **fields)
        self.tracing.begin(made)
        return made

    def answered(self, flags: str | None = None) -> InferRequest:
        made = self.begun(flags)
        self.tracing.end(made, Outcome.OK, RESPONSE, None)
        return made

    def spans(self, name: str) -> list[ReadableSpan]:
        return [s for s in self.exporter.get_finished_spans() if s.name == name]


def ids(span: ReadableSpan) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def parent_ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.parent is not None
    return span.parent.trace_id, span.parent.span_id


def own_ids(made: InferRequest) -> tuple[int, int]:
    assert made.trace is not None
    assert made.trace.recorded
    return made.trace.trace_id, made.trace.span_id


def test_a_server_span_lasts_from_arrival_to_answer() -> None:
    """Its times are the request's, on the wall clock, however late it was begun."""
    recorder = Recorder()
    recorder.clock.advance(0.010)
    recorder.wall_ns += 10_000_000
    made = recorder.begun(request_id="r7")
    recorder.clock.advance(0.015)
    recorder.tracing.end(made, Outcome.OK, RESPONSE, None)
    (span,) = recorder.spans("infer")
    assert span.kind is SpanKind.SERVER
    assert span.parent is None
    assert span.start_time == pytest.approx(EPOCH_NS, abs=1000)
    assert span.end_time == pytest.approx(EPOCH_NS + 25_000_000, abs=1000)
    assert span.attributes == {
        "model.name": "digits",
        "model.version": "1",
        "request.id": "r7",
        "request.bytes": 4,
        "batch.rows": 3,
        "outcome": "ok",
    }


def test_a_sampled_caller_becomes_the_parent() -> None:
    """The trace goes on: same trace id, the caller's span as parent, its state passed on."""
    recorder = Recorder(ratio=0.0)
    made = recorder.begun("01", "vendor=x")
    recorder.tracing.end(made, Outcome.OK, RESPONSE, None)
    (span,) = recorder.spans("infer")
    assert parent_ids(span) == (int(TRACE, 16), int(SPAN, 16))
    assert span.parent is not None
    assert span.parent.is_remote
    assert span.context.trace_state.to_header() == "vendor=x"
    assert own_ids(made) == ids(span)
    assert made.trace is not None
    assert (made.trace.sampled, made.trace.state) == (True, "vendor=x")


def test_an_unsampled_caller_is_followed_even_at_ratio_one() -> None:
    """No span is made, and the caller's context stays on the request to be passed on."""
    recorder = Recorder(ratio=1.0)
    made = recorder.answered("00")
    recorder.batches.on_batch(batch([made]))
    assert recorder.exporter.get_finished_spans() == ()
    assert made.trace is not None
    assert (made.trace.span_id, made.trace.sampled) == (int(SPAN, 16), False)


def test_an_unsampled_request_carries_nothing() -> None:
    """Without a context and outside the ratio no object is made for a request."""
    recorder = Recorder(ratio=0.0)
    made = recorder.answered()
    recorder.batches.on_batch(batch([made]))
    assert made.trace is None
    assert recorder.exporter.get_finished_spans() == ()


def test_a_context_given_by_the_front_end_is_used() -> None:
    """Headers are read only when the request brings no context already."""
    recorder = Recorder(ratio=0.0)
    first = recorder.begun("01")
    assert first.trace is not None
    second = request(trace=first.trace, arrived_s=1000.0)
    recorder.tracing.begin(second)
    recorder.tracing.end(second, Outcome.OK, None, None)
    assert parent_ids(recorder.spans("infer")[0]) == (first.trace.trace_id, first.trace.span_id)


def test_a_failed_request_says_how() -> None:
    """Outcome and status tell a failure."""
    recorder = Recorder()
    made = recorder.begun()
    recorder.tracing.end(made, Outcome.OVERLOADED, None, Overloaded("the queue is full"))
    (span,) = recorder.spans("infer")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "Overloaded: the queue is full"
    assert span.attributes is not None
    assert span.attributes["outcome"] == "overloaded"


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_headers_say_tracing_goes_on(parent: str, state: str) -> None:
    """No client can make the tracing of its request fail by its headers."""
    recorder = Recorder()
    for header in (parent, f"00-{TRACE}-{SPAN}-01"):
        made = request(headers={"traceparent": header, "tracestate": state}, arrived_s=1000.0)
        recorder.tracing.begin(made)
        recorder.tracing.end(made, Outcome.OK, RESPONSE, None)
    assert len(recorder.spans("infer")) == 2


def test_queue_batch_and_compute_are_below_the_server_span() -> None:
    """Queue and batch are the server span's children and compute the batch's, with the batch's times."""
    recorder = Recorder()
    made = recorder.answered()
    recorder.batches.on_batch(batch([made], started_s=1000.1))
    (queue,), (run,), (compute,) = map(recorder.spans, ("queue", "batch", "compute"))
    assert parent_ids(queue) == parent_ids(run) == own_ids(made)
    assert parent_ids(compute) == ids(run)
    start_ns = EPOCH_NS + 100_000_000
    assert (queue.start_time, queue.end_time) == approximately(start_ns - 2_000_000, start_ns)
    assert (run.start_time, run.end_time) == approximately(start_ns, start_ns + 7_000_000)
    assert (compute.start_time, compute.end_time) == approximately(start_ns + 1_000_000, start_ns + 5_000_000)
    assert run.attributes == {
        "model.name": "digits",
        "model.version": "1",
        "batch.requests": 1,
        "batch.rows": 1,
        "batch.padded_rows": 2,
        "batch.close_reason": "full",
        "batch.bisection": False,
        "outcome": "ok",
        "request.start_row": 0,
    }


def approximately(*times_ns: int) -> object:
    return pytest.approx(times_ns, abs=1000)


def test_a_batch_links_its_sampled_requests() -> None:
    """The first batch span links to every sampled request, the others to it; unsampled ones have no part."""
    recorder = Recorder(ratio=0.0)
    members = [recorder.answered(flags) for flags in ("00", "01", None, "01", "01")]
    recorder.batches.on_batch(batch(members))
    sampled = [members[1], members[3], members[4]]
    spans = recorder.spans("batch")
    assert [parent_ids(s) for s in spans] == [own_ids(m) for m in sampled]
    linked = [[(link.context.trace_id, link.context.span_id) for link in s.links] for s in spans]
    assert linked == [[own_ids(m) for m in sampled], [ids(spans[0])], [ids(spans[0])]]
    assert len(recorder.spans("queue")) == 3


def test_a_member_of_a_bisections_part_was_in_the_queue_before_the_batch_that_failed() -> None:
    """Only the part that answers it names it: its time in queue is told there, from its arrival on."""
    recorder = Recorder()
    made = recorder.answered()
    recorder.batches.on_batch(batch([], error=BackendError("x")))
    recorder.batches.on_batch(batch([made], started_s=made.arrived_s + 5, bisection=True))
    (queue,), (part,) = recorder.spans("queue"), recorder.spans("batch")
    arrived_ns = EPOCH_NS + int((made.arrived_s - 1000.0) * 1e9)
    assert (queue.start_time, queue.end_time) == approximately(arrived_ns, arrived_ns + 2_000_000)
    assert part.start_time == pytest.approx(arrived_ns + 5_000_000_000, abs=1000)


def test_a_rejected_request_needs_no_span_of_the_queue() -> None:
    """The server span tells it all."""
    recorder = Recorder()
    recorder.batches.on_rejected(DIGITS, recorder.begun(), Overloaded("full"))
    assert recorder.exporter.get_finished_spans() == ()


def test_the_timeline_follows_a_wall_clock_that_is_set() -> None:
    """After a jump new traces have the new time; small differences move nothing."""
    recorder = Recorder()
    recorder.wall_ns += 500_000
    recorder.answered()
    recorder.wall_ns += 3_600_000_000_000
    recorder.answered()
    first, second = recorder.spans("infer")
    assert first.start_time == pytest.approx(EPOCH_NS, abs=1000)
    assert second.start_time == pytest.approx(EPOCH_NS + 3_600_000_500_000, abs=1000)


class Collector:
    """An OTLP/HTTP collector on a free port of loopback."""

    def __init__(self) -> None:
        received: list[ExportTraceServiceRequest] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                received.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - overrides
                """Keep quiet."""

        self.received = received
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
async def unfinished() -> AsyncIterator[None]:
    """Fail a test that leaves tasks behind."""
    yield
    assert asyncio.all_tasks() <= {asyncio.current_task()}


@pytest.mark.usefixtures("unfinished")
async def test_spans_reach_a_collector_when_the_pipeline_is_left(collector: Collector) -> None:
    """The real exporter posts every span, with the resource that was configured."""
    options = TracingOptions(endpoint=collector.endpoint, service_name="canary", service_version="9")
    async with TracePipeline(options, otlp_exporter(options)) as pipeline:
        tracing = Tracing(pipeline.tracer, TraceSampler(options), Timeline(VirtualClock()))
        made = request(headers={"traceparent": f"00-{TRACE}-{SPAN}-01"}, arrived_s=1000.0)
        tracing.begin(made)
        tracing.end(made, Outcome.OK, RESPONSE, None)
    (posted,) = collector.received
    (resource,) = posted.resource_spans
    attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert attributes == {"service.name": "canary", "service.version": "9"}
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("infer", TRACE, SPAN)


def test_an_endpoint_is_needed() -> None:
    """Without one there is no exporter to make."""
    with pytest.raises(ConfigError, match="endpoint is not set"):
        otlp_exporter(TracingOptions())


def test_a_missing_extra_is_named() -> None:
    """Where the exporter is not installed the error says what to install."""
    program = """
import sys
sys.modules["opentelemetry.exporter.otlp.proto.http.trace_exporter"] = None  # as if not installed
from gateway.core.errors import ConfigError
from gateway.telemetry.options import TracingOptions
from gateway.telemetry.tracing import otlp_exporter
try:
    otlp_exporter(TracingOptions(endpoint="http://127.0.0.1:4318/v1/traces"))
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "extra 'otlp'" in done.stdout
