"""Reads W3C Trace Context headers into `TraceContext` (https://www.w3.org/TR/trace-context/, level 1)."""

from __future__ import annotations

import re
from typing import Final

from gateway.core.types import TraceContext

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

_SAMPLED: Final = 0x01
_MAX_STATE_CHARS: Final = 512
"""What the specification asks everybody to pass on; a longer state is dropped whole, as it allows."""

_FORMAT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


def parse_traceparent(header: str, state: str = "") -> TraceContext | None:
    """Return the context of a traceparent header and its tracestate, or None when it is to be ignored.

    A later version of the format is read as far as version 00 goes, as the specification demands.
    """
    match = _FORMAT.fullmatch(header)
    if match is None:
        return None
    version, trace_hex, span_hex, flags, rest = match.groups()
    trace_id, span_id = int(trace_hex, 16), int(span_hex, 16)
    if version == "ff" or (version == "00" and rest) or not trace_id or not span_id:
        return None
    return TraceContext(
        trace_id,
        span_id,
        bool(int(flags, 16) & _SAMPLED),
        state if len(state) <= _MAX_STATE_CHARS else "",
    )
