"""Per-request time limits and timing reports that travel in headers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.types import RequestTiming

TIMEOUT_HEADER: Final = "x-request-timeout-ms"
"""Milliseconds within which the request must be started: HTTP's counterpart of gRPC's deadline."""
TIMING_HEADER: Final = "x-server-timing"
"""Any value but 0 or false asks for a `Server-Timing` header (gRPC: trailer) with an
answer; errors carry none."""

_MOST_MS: Final = 86_400_000.0


def header_deadline_s(headers: Mapping[str, str], arrived_s: float) -> float | None:
    """Return the monotonic deadline that `X-Request-Timeout-Ms` sets, or None without the header.

    Raises:
        InvalidRequest: it is no number above 0 and up to a day.
    """
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    try:
        timeout_ms = float(text)
    except ValueError:
        timeout_ms = math.nan
    if not 0.0 < timeout_ms <= _MOST_MS:  # false for NaN as well
        raise InvalidRequest(f"header X-Request-Timeout-Ms takes milliseconds up to a day, got '{text[:40]}'")
    return arrived_s + timeout_ms / 1e3


def wants_timing(headers: Mapping[str, str]) -> bool:
    """Return whether the request asks for `Server-Timing`."""
    return headers.get(TIMING_HEADER, "0").lower() not in {"0", "false"}


def server_timing(timing: RequestTiming, total_s: float) -> str:
    """Return a `Server-Timing` value (W3C Server Timing; durations in milliseconds).

    Args:
        timing: where the time went.
        total_s: from arrival until the response was made.
    """
    parts = (
        ("queue", timing.queue_ns / 1e6),
        ("compute_input", timing.compute_input_ns / 1e6),
        ("compute_infer", timing.compute_infer_ns / 1e6),
        ("compute_output", timing.compute_output_ns / 1e6),
        ("total", total_s * 1e3),
    )
    return ", ".join(f"{name};dur={duration_ms:.3f}" for name, duration_ms in parts)
