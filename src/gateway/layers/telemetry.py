"""Sees every request in and out: the only place where requests are counted, timed, traced and logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.layers.streams import open_stream
from gateway.telemetry.outcome import Outcome, outcome_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.clock import Clock
    from gateway.core.interfaces import InferenceService
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, InferResponse
    from gateway.telemetry.access_log import AccessLog
    from gateway.telemetry.request_metrics import RequestMetrics
    from gateway.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTelemetry:
    """Where the layer reports to.

    Attributes:
        clock: the clock that arrivals are stamped with.
        metrics: counts and durations.
        tracing: server spans; None: no tracing.
        access_log: one line per request; None: none.
    """

    clock: Clock
    metrics: RequestMetrics
    tracing: Tracing | None = None
    access_log: AccessLog | None = None


class TelemetryLayer:
    """An InferenceService that reports how each request ended, refusals included, exactly once.

    Writes `arrived_s` where nobody stamped it, and `trace` (see `Tracing.begin`).
    """

    def __init__(self, inner: InferenceService, telemetry: RequestTelemetry) -> None:
        self._inner = inner
        self._now_s = telemetry.clock.now_s
        self._metrics = telemetry.metrics
        self._tracing = telemetry.tracing
        self._access_log = telemetry.access_log

    def submit(self, request: InferRequest) -> Pending:
        """Pass the request on and report its end; raises as the seam says."""
        self._begin(request)
        try:
            pending = self._inner.submit(request)
        except BaseException as error:
            self._end(request, None, error)
            raise
        pending.add_done_callback(self._completed)
        return pending

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Pass the request on and report the end of the iteration.

        A stream closed before its final response counts as cancelled.
        """
        self._begin(request)
        last: InferResponse | None = None
        error: BaseException | None = None
        try:
            async with open_stream(self._inner, request) as responses:
                async for response in responses:
                    last = response
                    yield response
        except BaseException as raised:
            # A reader that stops after the final response has had its whole answer.
            answered = last is not None and last.final and isinstance(raised, GeneratorExit)
            error = None if answered else raised
            raise
        finally:
            self._end(request, last, error)

    def _begin(self, request: InferRequest) -> None:
        if not request.arrived_s:
            request.arrived_s = self._now_s()
        self._metrics.inflight += 1
        if self._tracing is not None:
            self._tracing.begin(request)

    def _completed(self, pending: Pending) -> None:
        self._end(pending.request, pending.response, pending.error)

    def _end(
        self, request: InferRequest, response: InferResponse | None, error: BaseException | None
    ) -> None:
        seconds = self._now_s() - request.arrived_s
        outcome = Outcome.OK if error is None else outcome_of(error)
        version = request.model_version if response is None else response.model_version
        self._metrics.inflight -= 1
        self._metrics.finished(request.model_name, version, outcome, seconds)
        if self._tracing is not None:
            self._tracing.end(request, outcome, response, error)
        if self._access_log is not None:
            self._access_log.record(request, outcome, response, seconds)
