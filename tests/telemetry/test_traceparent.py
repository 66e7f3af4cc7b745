"""The W3C headers."""

import pytest

from gateway.core.types import TraceContext
from gateway.telemetry.traceparent import parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = TraceContext(int(TRACE, 16), int(SPAN, 16), sampled=True)

READ = [
    (f"00-{TRACE}-{SPAN}-01", True),
    (f"00-{TRACE}-{SPAN}-00", False),
    (f"00-{TRACE}-{SPAN}-03", True),
    (f"00-{TRACE}-{SPAN}-fe", False),
    (f"cc-{TRACE}-{SPAN}-01", True),
    (f"cc-{TRACE}-{SPAN}-01-what-the-future-holds", True),
]

IGNORED = [
    "",
    "00",
    f"00-{TRACE}-{SPAN}",
    f"00-{TRACE}-{SPAN}-1",
    f"00-{TRACE}-{SPAN}-01-more",
    f"cc-{TRACE}-{SPAN}-01more",
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{TRACE[:-2]}_1-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-0g",
    f" 00-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-01\n",
    f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
    f"00-{'٣' * 32}-{SPAN}-01",
]


@pytest.mark.parametrize(("header", "sampled"), READ)
def test_a_valid_header_is_read(header: str, sampled: bool) -> None:
    """Ids and the sampled bit come out, also of later versions."""
    assert parse_traceparent(header, "a=b") == TraceContext(CONTEXT.trace_id, CONTEXT.span_id, sampled, "a=b")


@pytest.mark.parametrize("header", IGNORED)
def test_an_invalid_header_is_ignored(header: str) -> None:
    """What the specification calls invalid counts as no header."""
    assert parse_traceparent(header) is None


def test_an_overlong_state_is_dropped_and_the_context_kept() -> None:
    """More than 512 characters of tracestate are not passed on."""
    context = parse_traceparent(READ[0][0], "a=" + "b" * 511)
    assert context == CONTEXT
