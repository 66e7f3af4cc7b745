"""Rules for a request's fields (RFC 9113 sections 8.2 and 8.3)."""

from __future__ import annotations

import pytest

from gateway.transport.http2.errors import MalformedRequest
from gateway.transport.http2.fields import check_trailers, make_field, request_fields

GOOD = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a"), (b":authority", b"h")]


def test_a_request_is_taken_apart() -> None:
    """Pseudo-header fields by name, the others in order."""
    found = request_fields(
        [make_field(*pair) for pair in [*GOOD, (b"a", b" 1\t"), (b"content-length", b"7")]]
    )
    assert (found.method, found.scheme, found.path, found.authority) == ("POST", "http", "/a", "h")
    assert [(f.name, f.value) for f in found.regular] == [("a", "1"), ("content-length", "7")]
    assert found.content_length == 7


@pytest.mark.parametrize(
    "pairs",
    [
        GOOD[1:],
        [GOOD[0], GOOD[2]],
        GOOD[:2],
        [*GOOD, GOOD[0]],
        [*GOOD[:2], (b":path", b"")],
        [*GOOD, (b":status", b"200")],
        [*GOOD, (b"a", b"1"), (b":authority", b"h")],
        [*GOOD, (b"Upper", b"1")],
        [*GOOD, (b"sp ace", b"1")],
        [*GOOD, (b"", b"1")],
        [*GOOD, (b"a", b"1\r\n")],
        [*GOOD, (b"a", b"\x00")],
        [*GOOD, (b"connection", b"close")],
        [*GOOD, (b"transfer-encoding", b"chunked")],
        [*GOOD, (b"te", b"gzip")],
        [*GOOD, (b"content-length", b"-1")],
        [*GOOD, (b"content-length", b"1"), (b"content-length", b"2")],
        [(b":method", b"CONNECT"), (b":path", b"/")],
    ],
    ids=repr,
)
def test_malformed_requests_are_refused(pairs: list[tuple[bytes, bytes]]) -> None:
    """Each breaks one rule."""
    with pytest.raises(MalformedRequest):
        request_fields([make_field(*pair) for pair in pairs])


@pytest.mark.parametrize("pair", [(b":path", b"/"), (b"UPPER", b"1")])
def test_trailers_have_rules_too(pair: tuple[bytes, bytes]) -> None:
    """No pseudo-header fields, no bad names."""
    check_trailers([make_field(b"a", b"1")])
    with pytest.raises(MalformedRequest):
        check_trailers([make_field(*pair)])
