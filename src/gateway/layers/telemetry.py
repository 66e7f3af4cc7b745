"""Sees every request in and out: the only place where requests are counted, timed, traced and logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.clock import Clock
from gateway.layers.streams import reported
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.outcome import outcome_of, version_of
from gateway.telemetry.request_metrics import RequestMetrics
from gateway.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.interfaces import InferenceService
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, InferResponse


@dataclass(frozen=True, kw_only=True)
class RequestTelemetry:
    """Where requests are reported to, and what is reported: each begun request must be ended exactly once.

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

    def begin(self, request: InferRequest) -> None:
        """Note a request that has come; writes `arrived_s` where nobody did, and `trace`."""
        if not request.arrived_s:
            request.arrived_s = self.clock.now_s()
        self.metrics.inflight += 1
        if self.tracing is not None:
            self.tracing.begin(request)

    def end(self, request: InferRequest, response: InferResponse | None, error: BaseException | None) -> None:
        """Note how a request ended: count it, end its span, write its line."""
        seconds = self.clock.now_s() - request.arrived_s
        outcome = outcome_of(error)
        self.metrics.inflight -= 1
        self.metrics.finished(request.model_name, version_of(request, response), outcome, seconds)
        if self.tracing is not None:
            self.tracing.end(request, outcome, response, error)
        if self.access_log is not None:
            self.access_log.record(request, outcome, response, seconds)

    def refused(self, request: InferRequest, error: Exception) -> None:
        """Report a request that was refused before the request stack saw it, by as much as is known of it."""
        self.begin(request)
        self.end(request, None, error)


class TelemetryLayer:
    """An InferenceService that reports how each request ended, refusals included, exactly once.

    Writes `arrived_s` where nobody stamped it, and `trace` (see `Tracing.begin`).
    """

    def __init__(self, inner: InferenceService, telemetry: RequestTelemetry) -> None:
        self._inner = inner
        self._telemetry = telemetry

    def submit(self, request: InferRequest) -> Pending:
        """Pass the request on and report its end; raises as the seam says."""
        self._telemetry.begin(request)
        try:
            pending = self._inner.submit(request)
        except BaseException as error:
            self._telemetry.end(request, None, error)
            raise
        pending.add_done_callback(self._completed)
        return pending

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Pass the request on and report the end of the iteration.

        A stream closed before its final response counts as cancelled.
        """
        return reported(self._inner, request, self._telemetry)

    def _completed(self, pending: Pending) -> None:
        self._telemetry.end(pending.request, pending.response, pending.error)
