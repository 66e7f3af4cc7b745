"""Spans below the server span: queue, batch and compute, made from a finished batch's timings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.trace import Link, NonRecordingSpan, Status, StatusCode, set_span_in_context

from gateway.telemetry.outcome import outcome_of
from gateway.telemetry.tracing import span_context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.trace import Span, SpanContext
    from opentelemetry.util.types import AttributeValue

    from gateway.core.errors import GatewayError
    from gateway.core.events import BatchMember, CompletedBatch
    from gateway.core.types import InferRequest, VersionId
    from gateway.telemetry.tracing import Tracing


class BatchTracer:
    """A BatchObserver that traces the batches of sampled requests, after the fact.

    Each sampled request gets `queue` and `batch` > `compute` below its server span. The first one's
    `batch` links to the server spans of all sampled requests of the batch; the others' link to that
    `batch`, so that any trace leads to all, with links linear in the requests. A batch without a sampled
    request costs one look at each member.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracer = tracing.tracer
        self._timeline = tracing.timeline

    def on_batch(self, batch: CompletedBatch) -> None:
        """Trace one batch."""
        sampled = [m for m in batch.members if m.request.trace is not None and m.request.trace.recorded]
        if not sampled:
            return
        attributes = _attributes(batch)
        links: Sequence[Link] = [Link(_context(m)) for m in sampled]
        for member in sampled:
            span = self._trace(batch, member, attributes, links)
            if member is sampled[0]:
                links = [Link(span.get_span_context())]

    def on_rejected(self, version: VersionId, request: InferRequest, error: GatewayError) -> None:
        """Do nothing: the server span tells how such a request ended."""

    def _trace(
        self,
        batch: CompletedBatch,
        member: BatchMember,
        attributes: Mapping[str, AttributeValue],
        links: Sequence[Link],
    ) -> Span:
        parent = _context(member)
        start_ns = self._timeline.epoch_ns(batch.started_s)
        infer_ns = start_ns + batch.compute_input_ns
        done_ns = infer_ns + batch.compute_infer_ns
        queued_ns = start_ns - member.queue_ns
        if batch.bisection:
            # It left the queue with the batch that failed, some time before this part of it was formed.
            queued_ns = self._timeline.epoch_ns(member.request.arrived_s)
        queue = self._span("queue", parent, queued_ns, {"request.rows": member.rows})
        queue.end(queued_ns + member.queue_ns)
        span = self._span(
            "batch", parent, start_ns, {**attributes, "request.start_row": member.start_row}, links
        )
        if batch.error is not None:
            span.set_status(Status(StatusCode.ERROR, type(batch.error).__name__))
        self._span("compute", span.get_span_context(), infer_ns, {"device": str(batch.device)}).end(done_ns)
        span.end(done_ns + batch.compute_output_ns)
        return span

    def _span(
        self,
        name: str,
        parent: SpanContext,
        start_ns: int,
        attributes: Mapping[str, AttributeValue],
        links: Sequence[Link] = (),
    ) -> Span:
        return self._tracer.start_span(
            name,
            context=set_span_in_context(NonRecordingSpan(parent)),
            start_time=start_ns,
            attributes=attributes,
            links=links,
        )


def _context(member: BatchMember) -> SpanContext:
    assert member.request.trace is not None  # only sampled members come here
    return span_context(member.request.trace, remote=False)


def _attributes(batch: CompletedBatch) -> dict[str, AttributeValue]:
    return {
        "model.name": batch.version.model,
        "model.version": str(batch.version.number),
        "batch.requests": len(batch.members),
        "batch.rows": batch.rows,
        "batch.padded_rows": batch.padded_rows,
        "batch.close_reason": batch.close_reason.value,
        "batch.bisection": batch.bisection,
        "outcome": outcome_of(batch.error),
    }
