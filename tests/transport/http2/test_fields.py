"""Rules for a request's fields (RFC 9113 sections 8.2 and 8.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.http2.errors import MalformedRequest
from gateway.transport.http2.fields import Field, FieldNames, check_trailers, request_fields

NAMES = FieldNames(frozenset({"te", "content-length"}))
GOOD = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a"), (b":authority", b"h")]


def make_field(name: bytes, value: bytes) -> Field:
    return Field(NAMES.named(name), value)


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


def test_good_free_fields_have_no_key() -> None:
    """Whatever else a head may depend on has one that says all of it."""
    free = [(b"a", b"1"), (b"traceparent", b""), (b"a", "\N{SNOWMAN}".encode()), (b"a", b"\xff\x7f")]
    assert {make_field(*pair).key for pair in free} == {""}
    others = [
        *GOOD,
        (b":path", b"/b"),
        (b"te", b"a"),
        (b"te", b""),
        (b"content-length", b"1"),
        (b"A", b"1"),
        (b"a", b"\n"),
        (b"a", b"\0"),
        (b"a\0", b"x"),
        (b"upgrade", b"1"),
        (b":status", b"200"),
    ]
    keys = {make_field(*pair).key for pair in others}
    assert len(keys) == len(others)
    assert "" not in keys


@given(
    pairs=st.lists(st.tuples(st.sampled_from([b"te", b"Te", b"x", b""]), st.binary(max_size=3)), min_size=2)
)
def test_equal_keys_are_equal_lines(pairs: list[tuple[bytes, bytes]]) -> None:
    """Of good fields that are not free, and no bad one shares theirs."""
    lines: dict[str, tuple[str, str, str]] = {}
    for field in (make_field(*pair) for pair in pairs):
        if field.key:
            line = (field.name, field.value, field.fault)
            assert lines.setdefault(field.key, line) == line


def test_names_are_kept_within_a_bound() -> None:
    """A name is judged once, until there are too many; long ones are judged each time."""
    names = FieldNames(frozenset())
    assert names.named(b"x-a") is names.named(b"x-a")
    assert names.named(b"x" * 129) is not names.named(b"x" * 129)
    before = names.named(b"x-b")
    for number in range(512):
        names.named(b"%d" % number)
    assert names.named(b"x-b") is not before
