"""Spans of sampled requests: the server span from arrival to answer, and the provider that exports them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Self

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from gateway.core.errors import ConfigError
from gateway.core.types import TraceContext
from gateway.telemetry.outcome import Outcome, version_of
from gateway.telemetry.traceparent import TRACEPARENT, TRACESTATE, parse_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

    from gateway.core.clock import Clock
    from gateway.core.types import InferRequest, InferResponse
    from gateway.telemetry.options import TracingOptions
    from gateway.telemetry.trace_sampler import TraceSampler

MAX_LINKS: Final = 1024
"""Links of one batch span; the SDK keeps 128 unless told, fewer than a batch may hold requests."""
_REANCHOR_NS: Final = 1_000_000
_MAX_NAME_CHARS: Final = 128
"""Names that clients send are cut to this before they become attributes."""


class Timeline:
    """Maps monotonic seconds to nanoseconds since the epoch, the same way for all spans of a trace.

    One offset serves all conversions, so that spans order as they happened; it is taken anew at the start of
    a trace when the wall clock has been set or slewed by more than a millisecond.
    """

    def __init__(self, clock: Clock, epoch_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._epoch_ns = epoch_ns
        self._offset_ns = self._offset()

    def anchor(self) -> None:
        """Follow the wall clock if it has moved."""
        offset_ns = self._offset()
        if abs(offset_ns - self._offset_ns) > _REANCHOR_NS:
            self._offset_ns = offset_ns

    def epoch_ns(self, monotonic_s: float) -> int:
        """Return the time since the epoch of a monotonic time."""
        return int(monotonic_s * 1e9) + self._offset_ns

    def now_ns(self) -> int:
        """Return the present."""
        return self.epoch_ns(self._clock.now_s())

    def _offset(self) -> int:
        return self._epoch_ns() - int(self._clock.now_s() * 1e9)


class Tracing:
    """Begins and ends server spans. Unsampled requests cost one decision and build no span.

    Event loop only. Invariant: holds one open span per sampled request in flight and nothing else.
    """

    def __init__(self, tracer: Tracer, sampler: TraceSampler, timeline: Timeline) -> None:
        self.tracer = tracer
        self.timeline = timeline
        self._sampler = sampler
        self._open: dict[int, Span] = {}

    def begin(self, request: InferRequest) -> None:
        """Read the caller's context into `request.trace`; when sampled, put that of a new span there."""
        trace = request.trace
        if trace is None and (header := request.headers.get(TRACEPARENT)) is not None:
            trace = request.trace = parse_traceparent(header, request.headers.get(TRACESTATE, ""))
        if self._sampler.decide(request.model_name, trace):
            self._start(request, trace)

    def end(
        self,
        request: InferRequest,
        outcome: Outcome,
        response: InferResponse | None,
        error: BaseException | None,
    ) -> None:
        """End the request's span, if it has one."""
        if request.trace is None or not request.trace.recorded:
            return
        span = self._open.pop(request.trace.span_id, None)
        if span is None:
            return
        span.set_attribute("outcome", outcome)
        span.set_attribute("model.version", version_of(request, response)[:_MAX_NAME_CHARS])
        if response is not None:
            span.set_attribute("batch.rows", response.timing.batch_rows)
        if outcome is not Outcome.OK:
            # Errors' messages are written for clients and never hold payloads.
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        span.end(self.timeline.now_ns())

    def _start(self, request: InferRequest, parent: TraceContext | None) -> None:
        self.timeline.anchor()
        span = self.tracer.start_span(
            "infer",
            # An empty context, not the current one: nothing around the event loop may become the parent.
            context=remote_context(parent) if parent else set_span_in_context(NonRecordingSpan(_NO_PARENT)),
            kind=SpanKind.SERVER,
            start_time=self.timeline.epoch_ns(request.arrived_s),
            attributes={
                "model.name": request.model_name[:_MAX_NAME_CHARS],
                "model.version": request.model_version[:_MAX_NAME_CHARS],
                "request.id": request.request_id[:_MAX_NAME_CHARS],
                "request.bytes": request.received_bytes,
            },
        )
        own = span.get_span_context()
        self._open[own.span_id] = span
        request.trace = TraceContext(
            own.trace_id, own.span_id, sampled=True, state=parent.state if parent else "", recorded=True
        )


_NO_PARENT: Final = SpanContext(0, 0, is_remote=False)


def span_context(trace: TraceContext, *, remote: bool) -> SpanContext:
    """Return OpenTelemetry's form of a context."""
    return SpanContext(
        trace.trace_id,
        trace.span_id,
        is_remote=remote,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([trace.state]) if trace.state else None,
    )


def remote_context(trace: TraceContext) -> Context:
    """Return a context whose current span is the caller's."""
    return set_span_in_context(NonRecordingSpan(span_context(trace, remote=True)))


class TracePipeline:
    """Owns the provider: spans go to the exporter in batches, from a thread of the SDK's.

    Use as an async context manager; leaving it flushes, off the loop, for at most the export timeout.
    Reads nothing from the environment but what the OTLP exporter itself does (headers, certificates).
    """

    def __init__(self, options: TracingOptions, exporter: SpanExporter) -> None:
        # Every span asked for is recorded: the decision is made before, far cheaper than a sampler's.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource(
                {"service.name": options.service_name, "service.version": options.service_version}
            ),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_links=MAX_LINKS),
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=options.max_queued_spans,
                schedule_delay_millis=options.export_interval_s * 1e3,
                max_export_batch_size=min(512, options.max_queued_spans),
                export_timeout_millis=options.export_timeout_s * 1e3,
            )
        )
        self.tracer: Tracer = self._provider.get_tracer("gateway")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._provider.shutdown)


def otlp_exporter(options: TracingOptions) -> SpanExporter:
    """Return the OTLP/HTTP exporter for `options.endpoint`.

    Raises:
        ConfigError: no endpoint is set, or the extra `otlp` is not installed.
    """
    if options.endpoint is None:
        raise ConfigError("telemetry.tracing.endpoint is not set; traces have nowhere to go")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an optional extra
            OTLPSpanExporter,
        )
    except ImportError as error:
        raise ConfigError(
            "telemetry.tracing.endpoint is set, but the OTLP exporter is not installed; "
            "install model-gateway with the extra 'otlp' or remove the endpoint"
        ) from error
    return OTLPSpanExporter(endpoint=options.endpoint, timeout=options.export_timeout_s)
