"""RFC 9113 by hand-made frames: stream states and identifiers, header blocks, malformed requests."""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.transport.grpc_wire.cases import Case, answers, check, dies, either, refuses, resets
from tests.transport.grpc_wire.frames import (
    Code,
    block,
    continuation,
    data,
    frame,
    headers,
    message,
    open_call,
    ping,
    priority,
    request_fields,
    rst_stream,
    settings,
    whole_call,
    window_update,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.transport.grpc_wire.frames import Fields
    from tests.transport.grpc_wire.methods import Methods
    from tests.transport.grpc_wire.servers import GrpcServer

BLOCK = block(request_fields())
MESSAGE = message(b"x")
REST = data(1, MESSAGE, end=True)
CALL = whole_call(1)
HELD = whole_call(1, method="Hold")
OPEN = open_call(1)
STREAM = open_call(1, "Stream")  # a unary call may be answered before its trailers
CLOSED = (Code.STREAM_CLOSED,)
ON_CLOSED = either(dies(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR), resets(1, Code.STREAM_CLOSED))

STATES = [
    Case("DATA on an idle stream", "5.1", data(1, MESSAGE, end=True), dies(Code.PROTOCOL_ERROR)),
    Case("RST_STREAM on an idle stream", "5.1", rst_stream(1), dies(Code.PROTOCOL_ERROR)),
    Case("WINDOW_UPDATE on an idle stream", "5.1", window_update(1, 1), dies(Code.PROTOCOL_ERROR)),
    Case("DATA on an idle stream above those in use", "5.1", CALL + data(9, MESSAGE, end=True), dies(Code.PROTOCOL_ERROR)),
    Case("DATA on a stream of the server's", "5.1", data(2, MESSAGE, end=True), dies(Code.PROTOCOL_ERROR)),
    Case("WINDOW_UPDATE on a stream of the server's", "5.1", window_update(2, 1), dies(Code.PROTOCOL_ERROR)),
    Case("DATA after END_STREAM", "5.1", HELD + data(1, MESSAGE), either(resets(1, *CLOSED), dies(*CLOSED))),
    Case("HEADERS after END_STREAM", "5.1", HELD + headers(1, BLOCK, end=True), either(resets(1, *CLOSED), dies(*CLOSED))),
    Case("WINDOW_UPDATE after END_STREAM", "5.1", CALL + window_update(1, 1) + whole_call(3), answers(1, 3)),
    Case("PRIORITY after END_STREAM", "5.1", CALL + priority(1) + whole_call(3), answers(1, 3)),
    Case("RST_STREAM after END_STREAM", "5.1", HELD + rst_stream(1) + whole_call(3), answers(3)),
    Case("DATA after the client's RST_STREAM", "5.1", OPEN + rst_stream(1) + data(1, MESSAGE), ON_CLOSED),
    Case("HEADERS after the client's RST_STREAM", "5.1", OPEN + rst_stream(1) + headers(1, BLOCK), ON_CLOSED),
    Case("RST_STREAM twice", "5.1", OPEN + rst_stream(1) + rst_stream(1) + whole_call(3), answers(3)),
    Case("DATA after both have ended", "5.1", data(1, MESSAGE), ON_CLOSED, first=CALL),
    Case("HEADERS after both have ended", "5.1", headers(1, BLOCK), ON_CLOSED, first=CALL),
    Case("WINDOW_UPDATE after both have ended", "5.1", window_update(1, 5) + whole_call(3), answers(3), first=CALL),
    Case("RST_STREAM after both have ended", "5.1", rst_stream(1) + whole_call(3), answers(3), first=CALL),
    Case("PRIORITY after both have ended", "5.1", priority(1) + whole_call(3), answers(3), first=CALL),
    Case("DATA after an early answer", "5.1", data(1, MESSAGE) + REST + whole_call(3), answers(3), first=open_call(1, "Nothing")),
    Case("HEADERS after an early answer", "5.1", headers(1, block([("a", "b")]), end=True) + whole_call(3), answers(3), first=open_call(1, "Nothing")),
]  # fmt: skip

IDENTIFIERS = [
    Case("an even one", "5.1.1", headers(2, BLOCK, end=True), dies(Code.PROTOCOL_ERROR)),
    Case("one below that of another", "5.1.1", whole_call(5, method="Hold") + headers(3, BLOCK), dies(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)),
    Case("some left out", "5.1.1", CALL + whole_call(9) + whole_call(101), answers(1, 9, 101)),
    Case("as many as are allowed, one after the other", "5.1.2", CALL + whole_call(3), either(answers(1, 3), resets(3, Code.REFUSED_STREAM)), options={"max_concurrent_streams": 1}),
]  # fmt: skip


def cut(*sizes: int, between: bytes = b"", stream_id: int = 1) -> bytes:
    """Return a call whose header block is cut into pieces of these sizes and the rest."""
    parts, at = [], 0
    for size in sizes:
        parts.append(BLOCK[at : at + size])
        at += size
    parts.append(BLOCK[at:])
    first = headers(1, parts[0], end_headers=False)
    middle = b"".join(between + continuation(stream_id, part) for part in parts[1:-1])
    return first + middle + between + continuation(stream_id, parts[-1], end_headers=True)


CONTINUATIONS = [
    Case("one", "6.10", cut(20) + REST, answers(1)),
    Case("several", "6.10", cut(1, 1, 1, 1, 60) + REST, answers(1)),
    Case("an empty HEADERS before it", "6.10", cut(0) + REST, answers(1)),
    Case("an empty one at the end", "6.10", cut(len(BLOCK)) + REST, answers(1)),
    Case("a padded HEADERS before it", "6.10", headers(1, BLOCK[:20], end_headers=False, padding=50) + continuation(1, BLOCK[20:], end_headers=True) + REST, answers(1), core_differs="knows no padding"),
    Case("END_STREAM on HEADERS holds for the block", "6.2", headers(1, BLOCK[:20], end=True, end_headers=False) + continuation(1, BLOCK[20:], end_headers=True), refuses(1, ("200", 12), ("200", 13))),
    Case("none where one must follow", "6.10", headers(1, BLOCK[:20], end_headers=False) + REST, dies(Code.PROTOCOL_ERROR)),
    Case("PING in between", "6.10", cut(20, between=ping()), dies(Code.PROTOCOL_ERROR)),
    Case("SETTINGS in between", "6.10", cut(20, between=settings()), dies(Code.PROTOCOL_ERROR)),
    Case("WINDOW_UPDATE in between", "6.10", cut(20, between=window_update(0, 1)), dies(Code.PROTOCOL_ERROR)),
    Case("an unknown frame in between", "5.5", cut(20, between=frame(0xBB)), dies(Code.PROTOCOL_ERROR)),
    Case("HEADERS of another stream in between", "6.10", cut(20, between=headers(3, BLOCK)), dies(Code.PROTOCOL_ERROR)),
    Case("DATA of another stream in between", "6.10", open_call(1) + headers(3, BLOCK[:9], end_headers=False) + REST, dies(Code.PROTOCOL_ERROR)),
    Case("of another stream", "6.10", cut(20, stream_id=3), dies(Code.PROTOCOL_ERROR)),
    Case("without HEADERS", "6.10", continuation(1, BLOCK, end_headers=True), dies(Code.PROTOCOL_ERROR)),
    Case("after the end of the block", "6.10", OPEN + continuation(1, b"", end_headers=True), dies(Code.PROTOCOL_ERROR)),
]  # fmt: skip

BAD = dies(Code.COMPRESSION_ERROR)
HPACK = [
    Case("index 0", "RFC 7541 6.1", headers(1, BLOCK + b"\x80"), BAD),
    Case("an index beyond the table", "RFC 7541 2.3.3", headers(1, BLOCK + b"\xff\x01"), BAD),
    Case("a name's index beyond the table", "RFC 7541 2.3.3", headers(1, BLOCK + b"\x7f\x40\x01a"), BAD),
    Case("an integer without end", "RFC 7541 5.1", headers(1, BLOCK + b"\xff" * 20 + b"\x00"), BAD),
    Case("an integer cut off", "RFC 7541 5.1", headers(1, BLOCK + b"\xff\x80"), BAD),
    Case("a literal cut off", "RFC 7541 5.2", headers(1, BLOCK + b"\x00\x05ab"), BAD),
    Case("a value missing", "RFC 7541 6.2.2", headers(1, BLOCK + b"\x00\x01a"), BAD),
    Case("Huffman's end of string", "RFC 7541 5.2", headers(1, BLOCK + b"\x00\x01a\x84\xff\xff\xff\xff"), BAD),
    Case("Huffman padding of zeros", "RFC 7541 5.2", headers(1, BLOCK + b"\x00\x01a\x81\x18"), BAD),
    Case("Huffman padding of a byte", "RFC 7541 5.2", headers(1, BLOCK + b"\x00\x01a\x82\x1f\xff"), BAD),
    Case("a table larger than was allowed", "RFC 7541 6.3", headers(1, b"\x3f\xff\xff\x7f" + BLOCK), BAD),
    Case("a table's size after a field", "RFC 7541 4.2", headers(1, BLOCK + b"\x20"), BAD),
    Case("a smaller table, then a larger", "RFC 7541 4.2", headers(1, b"\x20\x3f\x11" + BLOCK) + REST, answers(1)),
    Case("a field never indexed", "RFC 7541 6.2.3", headers(1, BLOCK + b"\x10\x01a\x01b") + REST, answers(1)),
    Case("a field indexed and used at once", "RFC 7541 6.1", headers(1, BLOCK + b"\x40\x01a\x01b\xbe") + REST, answers(1)),
    Case("an index after the table was emptied", "RFC 7541 4.2", headers(1, BLOCK + b"\x40\x01a\x01b") + REST + headers(3, b"\x20" + BLOCK + b"\xbe"), BAD),
]  # fmt: skip


def without(name: str, *further: tuple[str, str]) -> Fields:
    return [field for field in request_fields() if field[0] != name] + list(further)


def replaced(name: str, value: str) -> Fields:
    return [(n, value if n == name else v) for n, v in request_fields()]


def call_of(fields: Fields) -> bytes:
    return headers(1, block(fields)) + REST


MALFORMED = either(resets(1, Code.PROTOCOL_ERROR), refuses(1, ("400", None)))
"""A stream error, or an answer that says so before it (section 8.1.1)."""
MALFORMED_OR_STRIPPED = either(MALFORMED, answers(1))
"""HTTP/2 forbids what gRPC allows: its ASCII values may have white space around them, which may be stripped."""


def malformed(name: str, section: str, fields: Fields) -> Case:
    return Case(name, section, call_of(fields), MALFORMED)


def extra(*fields: tuple[str | bytes, str | bytes]) -> Fields:
    return request_fields("Echo", *fields)


REQUESTS = [
    malformed("no method", "8.3.1", without(":method")),
    malformed("no scheme", "8.3.1", without(":scheme")),
    malformed("no path", "8.3.1", without(":path")),
    malformed("an empty path", "8.3.1", replaced(":path", "")),
    malformed("two methods", "8.3.1", [(":method", "POST"), *request_fields()]),
    malformed("two paths", "8.3.1", [*request_fields()[:3], *request_fields()[2:]]),
    malformed("an unknown pseudo-header field", "8.3", [(":what", "x"), *request_fields()]),
    malformed("a pseudo-header field of responses", "8.3", [(":status", "200"), *request_fields()]),
    malformed("a pseudo-header field after others", "8.3", without(":path", (":path", "/test.Echo/Echo"))),
    malformed("an upper-case name", "8.2.1", extra(("Upper", "x"))),
    malformed("an empty name", "8.2.1", extra(("", "x"))),
    malformed("a space in a name", "8.2.1", extra(("a b", "x"))),
    malformed("a colon in a name", "8.2.1", extra(("a:b", "x"))),
    malformed("a control character in a name", "8.2.1", extra(("a\x00b", "x"))),
    malformed("a byte above 0x7f in a name", "8.2.1", extra((b"a\xff", "x"))),
    malformed("NUL in a value", "8.2.1", extra(("a", "x\x00y"))),
    malformed("CR in a value", "8.2.1", extra(("a", "x\ry"))),
    malformed("LF in a value", "8.2.1", extra(("a", "x\ny"))),
    Case("a value that begins with a space", "8.2.1", call_of(extra(("a", " x"))), MALFORMED_OR_STRIPPED),
    Case("a value that ends with a tab", "8.2.1", call_of(extra(("a", "x\t"))), MALFORMED_OR_STRIPPED),
    malformed("connection", "8.2.2", extra(("connection", "close"))),
    malformed("keep-alive", "8.2.2", extra(("keep-alive", "5"))),
    malformed("proxy-connection", "8.2.2", extra(("proxy-connection", "close"))),
    malformed("transfer-encoding", "8.2.2", extra(("transfer-encoding", "chunked"))),
    malformed("upgrade", "8.2.2", extra(("upgrade", "h2c"))),
    malformed("te that is not trailers", "8.2.2", replaced("te", "gzip")),
    malformed("a length that is too small", "8.1.1", extra(("content-length", "5"))),
    malformed("a length that is too large", "8.1.1", extra(("content-length", "7"))),
    malformed("a length that is no number", "8.1.1", extra(("content-length", "x"))),
    malformed("two lengths", "8.1.1", extra(("content-length", "6"), ("content-length", "7"))),
    Case("a length without a body", "8.1.1", headers(1, block(extra(("content-length", "6"))), end=True), MALFORMED),
    Case("the right length", "8.1.1", call_of(extra(("content-length", "6"))), answers(1)),
    Case("trailers", "8.1", OPEN + data(1, MESSAGE) + headers(1, block([("a", "b")]), end=True), answers(1)),
    Case("trailers that do not end the stream", "8.1", STREAM + data(1, MESSAGE) + headers(1, block([("a", "b")])), MALFORMED),
    Case("a pseudo-header field in trailers", "8.1", STREAM + data(1, MESSAGE) + headers(1, block([(":path", "/")]), end=True), MALFORMED),
    Case("an upper-case name in trailers", "8.1", STREAM + data(1, MESSAGE) + headers(1, block([("A", "b")]), end=True), MALFORMED),
    Case("cookies in several fields", "8.2.3", call_of(extra(("cookie", "a=b"), ("cookie", "c=d"))), answers(1)),
    Case("no authority", "8.3.1", call_of(without(":authority")), answers(1), core_differs="wants one"),
    Case("host in its place", "8.3.1", call_of(without(":authority", ("host", "test"))), answers(1)),
    Case("the dynamic table of a malformed request is kept", "4.3", headers(1, block(extra(("Upper", "x"))) + b"\x40\x01a\x01b", end=True) + headers(3, BLOCK + b"\xbe") + data(3, MESSAGE, end=True), answers(3)),
    Case("the dynamic table of trailers is kept", "4.3", OPEN + data(1, MESSAGE) + headers(1, b"\x40\x01a\x01b", end=True) + headers(3, BLOCK + b"\xbe") + data(3, MESSAGE, end=True), answers(1, 3)),
]  # fmt: skip

TABLE: Sequence[Case] = [*STATES, *IDENTIFIERS, *CONTINUATIONS, *HPACK, *REQUESTS]


@pytest.mark.parametrize("case", TABLE, ids=str)
async def test_streams(serve: Callable[..., Awaitable[GrpcServer]], transport: str, case: Case) -> None:
    """Each row comes out as the RFC has it, and the next connection is served."""
    server = await serve(**case.options)
    await check(case, server, core=transport == "grpcio")


async def test_a_stream_too_many_is_refused(serve: Any, connect: Any, methods: Methods) -> None:
    """With REFUSED_STREAM, so that it may be sent again (5.1.2); its header block is decoded all the same (4.3)."""
    wire = await connect(await serve(max_concurrent_streams=1))
    wire.send(HELD)
    await methods.arrived.wait()
    wire.send(headers(3, BLOCK + b"\x40\x01a\x01b", end=True))
    assert (await wire.answer(3)).reset == Code.REFUSED_STREAM
    methods.calls[0].reply(b"held")
    assert (await wire.answer(1)).messages() == [b"held"]
    wire.send(headers(5, BLOCK + b"\xbe") + data(5, MESSAGE, end=True))
    assert (await wire.answer(5)).messages() == [b"x"]
    assert methods.facts["metadata"]["a"] == "b"
