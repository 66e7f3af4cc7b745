"""What the telemetry layer reports of each request."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.core.errors import BackendError, InvalidRequest, NotFound, Overloaded
from gateway.core.pending import Pending
from gateway.core.types import InferRequest, InferResponse
from gateway.layers.telemetry import RequestTelemetry, TelemetryLayer
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.logging import Logging
from gateway.telemetry.options import LogOptions, TracingOptions
from gateway.telemetry.request_metrics import RequestMetrics
from gateway.telemetry.trace_sampler import TraceSampler
from gateway.telemetry.tracing import Timeline, Tracing
from gateway.testing import EchoService, VirtualClock, infer_request


class Bench:
    """A telemetry layer over an EchoService, and what it reported."""

    def __init__(self, inner: EchoService, ratio: float = 0.0) -> None:
        self.clock = VirtualClock()
        self.metrics = RequestMetrics(lambda model, version: True)
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        sampler = TraceSampler(TracingOptions(endpoint="http://c", sample_ratio=ratio))
        tracing = Tracing(provider.get_tracer("gateway"), sampler, Timeline(self.clock))
        self.telemetry = RequestTelemetry(
            clock=self.clock, metrics=self.metrics, tracing=tracing, access_log=AccessLog()
        )
        self.layer = TelemetryLayer(inner, self.telemetry)

    def counted(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Return (version, outcome) -> (requests, seconds)."""
        families = {family.name: family for family in self.metrics.collect()}
        seconds = [
            s.value for s in families["gateway_request_duration_seconds"].samples if s.name.endswith("_sum")
        ]
        counts = families["gateway_requests"].samples
        return {
            (s.labels["version"], s.labels["outcome"]): (s.value, total)
            for s, total in zip(counts, seconds, strict=True)
        }

    def outcomes(self) -> dict[str, float]:
        return {outcome: count for (_, outcome), (count, _) in self.counted().items()}


def rows(count: int = 1, arrived_s: float = 1000.0) -> InferRequest:
    return infer_request(np.zeros((count, 1), np.float32), arrived_s=arrived_s)


async def test_a_request_is_counted_when_it_is_answered() -> None:
    """In flight until then; afterwards one request of the version that answered, timed from arrival."""
    inner = EchoService(held=True, version="7")
    bench = Bench(inner)
    bench.clock.advance(0.5)
    bench.layer.submit(rows())
    assert (bench.metrics.inflight, bench.counted()) == (1, {})
    bench.clock.advance(0.25)
    inner.answer(inner.pendings[0])
    assert (bench.metrics.inflight, bench.counted()) == (0, {("7", "ok"): (1, 0.75)})


async def test_an_unstamped_arrival_is_now() -> None:
    """A caller inside the process that stamps nothing is timed from submit on."""
    inner = EchoService(held=True)
    bench = Bench(inner)
    bench.layer.submit(rows(arrived_s=0.0))
    bench.clock.advance(0.125)
    inner.answer(inner.pendings[0])
    assert bench.counted() == {("1", "ok"): (1, 0.125)}


async def test_refusals_failures_and_cancellations_are_counted_once() -> None:
    """Each ends under its own outcome and nothing stays in flight."""
    inner = EchoService(held=True)
    bench = Bench(inner)
    inner.refuse = NotFound("no model")
    with pytest.raises(NotFound):
        bench.layer.submit(rows())
    inner.refuse = None
    failing, cancelled = bench.layer.submit(rows()), bench.layer.submit(rows())
    inner.answer(failing, BackendError("x"))
    cancelled.cancel()
    inner.answer(cancelled)
    assert bench.outcomes() == {"not_found": 1, "backend_error": 1, "cancelled": 1}
    assert bench.metrics.inflight == 0


class Faulty(EchoService):
    """Raises what no service should."""

    def submit(self, request: InferRequest) -> Pending:
        raise ZeroDivisionError

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        async for response in super().stream(request):
            if response.final:
                raise ZeroDivisionError
            yield response


async def test_a_fault_is_counted_as_internal() -> None:
    """An exception that is no GatewayError passes on and is seen."""
    bench = Bench(Faulty())
    with pytest.raises(ZeroDivisionError):
        bench.layer.submit(rows())
    with pytest.raises(ZeroDivisionError):
        await anext(bench.layer.stream(rows()))
    assert (bench.outcomes(), bench.metrics.inflight) == ({"internal": 2}, 0)


async def test_a_stream_is_one_request() -> None:
    """However many responses, it counts once, when it ends."""
    bench = Bench(EchoService())
    async for _ in bench.layer.stream(rows(3)):
        assert bench.metrics.inflight == 1
    assert (bench.outcomes(), bench.metrics.inflight) == ({"ok": 1}, 0)


@pytest.mark.parametrize(("read", "outcome"), [(1, "cancelled"), (3, "ok")])
async def test_a_stream_closed_before_its_final_response_is_cancelled(read: int, outcome: str) -> None:
    """Closing after the final response is a client that has all it asked for."""
    bench = Bench(EchoService())
    async with aclosing(bench.layer.stream(rows(3))) as responses:  # type: ignore[type-var]
        for _ in range(read):
            await anext(responses)
    assert (bench.outcomes(), bench.metrics.inflight) == ({outcome: 1}, 0)


async def test_a_stream_whose_reader_is_cancelled_is_cancelled() -> None:
    """Cancellation of the reading task counts as the client's."""
    bench = Bench(EchoService())
    began = asyncio.Event()

    async def read() -> None:
        async for _ in bench.layer.stream(rows(1000)):
            began.set()

    task = asyncio.create_task(read())
    await began.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (bench.outcomes(), bench.metrics.inflight) == ({"cancelled": 1}, 0)


async def test_a_sampled_request_has_its_span_and_others_have_none() -> None:
    """The inner service sees the span's context, so that what it does can hang below it."""
    inner = EchoService(held=True)
    bench = Bench(inner, ratio=1.0)
    bench.layer.submit(rows())
    unsampled = rows()
    unsampled.headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-00"}
    bench.layer.submit(unsampled)
    first, second = (p.request.trace for p in inner.pendings)
    assert first is not None
    assert first.recorded
    assert second is not None
    assert second is not None
    assert not second.recorded
    for pending in inner.pendings:
        inner.answer(pending)
    (span,) = bench.exporter.get_finished_spans()
    assert span.context.span_id == first.span_id


async def test_a_refused_request_ends_its_span() -> None:
    """Nothing is left open by a refusal."""
    inner = EchoService()
    inner.refuse = Overloaded("full")
    bench = Bench(inner, ratio=1.0)
    with pytest.raises(Overloaded):
        bench.layer.submit(rows())
    (span,) = bench.exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["outcome"] == "overloaded"


async def test_each_request_has_one_access_line() -> None:
    """Answered or refused, every request is one line."""
    inner = EchoService(held=True)
    bench = Bench(inner)
    stream = io.StringIO()
    with Logging(LogOptions(), stream):
        bench.layer.submit(rows())
        inner.answer(inner.pendings[0])
        inner.refuse = NotFound("no model")
        with pytest.raises(NotFound):
            bench.layer.submit(rows())
    written = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["outcome"] for line in written] == ["ok", "not_found"]


class Versioned(EchoService):
    """Chooses version 7, as a router does, and then fails what it streams."""

    def submit(self, request: InferRequest) -> Pending:
        request.served_version = 7
        return super().submit(request)

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        request.served_version = 7
        for response in list[InferResponse]():
            yield response
        raise BackendError("x")


async def test_a_failure_has_the_version_it_failed_in() -> None:
    """Counter, span and access line name the version chosen, though the request left the choice open."""
    inner = Versioned(held=True)
    bench = Bench(inner, ratio=1.0)
    stream = io.StringIO()
    with Logging(LogOptions(), stream):
        inner.answer(bench.layer.submit(rows()), BackendError("x"))
        with pytest.raises(BackendError):
            await anext(bench.layer.stream(rows()))
    assert {key: count for key, (count, _) in bench.counted().items()} == {("7", "backend_error"): 2}
    assert [json.loads(line)["version"] for line in stream.getvalue().splitlines()] == ["7", "7"]
    spans = bench.exporter.get_finished_spans()
    assert [span.attributes and span.attributes["model.version"] for span in spans] == ["7", "7"]


async def test_what_never_reached_the_stack_is_reported_like_the_rest() -> None:
    """A request refused while it was read is counted and timed, has its line and its span."""
    bench = Bench(EchoService())
    unread = InferRequest(
        model_name="m",
        inputs=(),
        arrived_s=1000.0,
        received_bytes=5,
        headers={"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"},
    )
    bench.clock.advance(0.5)
    stream = io.StringIO()
    with Logging(LogOptions(), stream):
        bench.telemetry.refused(unread, InvalidRequest("no JSON"))
    assert (bench.metrics.inflight, bench.counted()) == (0, {("", "invalid"): (1, 0.5)})
    (span,) = bench.exporter.get_finished_spans()
    assert span.context.trace_id == int("1" * 32, 16)
    line = json.loads(stream.getvalue())
    assert (line["model"], line["outcome"], line["received_bytes"]) == ("m", "invalid", 5)
    assert line["trace_id"] == "1" * 32
