"""One line per request, for operators who ask for it: names, times, sizes; never payloads."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gateway.telemetry.outcome import version_of

if TYPE_CHECKING:
    from gateway.core.types import InferRequest, InferResponse
    from gateway.telemetry.outcome import Outcome

ACCESS_LOGGER: Final = "gateway.access"
_MAX_NAME_CHARS: Final = 128
"""Names that clients send are cut to this."""


class AccessLog:
    """Writes the event `request` at level INFO to the logger `gateway.access`."""

    def __init__(self) -> None:
        self._logger = logging.getLogger(ACCESS_LOGGER)

    def record(
        self, request: InferRequest, outcome: Outcome, response: InferResponse | None, seconds: float
    ) -> None:
        """Write one line for a request that took `seconds` from arrival to its answer."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        fields: dict[str, object] = {
            "model": request.model_name[:_MAX_NAME_CHARS],
            "version": version_of(request, response)[:_MAX_NAME_CHARS],
            "request_id": request.request_id[:_MAX_NAME_CHARS],
            "tenant": request.principal.tenant,
            "outcome": outcome.value,
            "duration_ms": round(seconds * 1e3, 3),
            "received_bytes": request.received_bytes,
        }
        if response is not None:
            fields["queue_ms"] = round(response.timing.queue_ns / 1e6, 3)
            fields["compute_ms"] = round(response.timing.compute_infer_ns / 1e6, 3)
            fields["batch_rows"] = response.timing.batch_rows
        if request.trace is not None:
            fields["trace_id"] = f"{request.trace.trace_id:032x}"
        self._logger.info("request", extra=fields)
