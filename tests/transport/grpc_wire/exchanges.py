"""Generated gRPC exchanges over HTTP/2, right ones and wrong ones, and what became of each."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.transport.grpc_wire.frames import (
    Code,
    Flag,
    Setting,
    Type,
    block,
    continuation,
    data,
    frame,
    headers,
    message,
    ping,
    priority,
    request_fields,
    rst_stream,
    settings,
    window_update,
)
from tests.transport.grpc_wire.wire import Wire

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

METHODS = ("Echo", "Unary", "Fail", "UnaryFail", "Raise", "Stream", "StreamFail", "ServerStream", "Nothing")


@dataclass(frozen=True)
class Call:
    """What was asked on a stream: the method, and what is special about its fields or body."""

    method: str
    special: str


@dataclass
class Exchange:
    """What is sent on one connection.

    Attributes:
        steps: descriptions of what was put together, for the report of a difference.
        parts: frames in the order in which they are sent.
        calls: by stream, those whose end is waited for.
        open: streams that the client has not ended.
        last: the last stream of all.
    """

    steps: list[str] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    calls: dict[int, Call] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    last: int = -1

    def add(self, step: str, part: bytes) -> None:
        self.steps.append(step)
        self.parts.append(part)


PAYLOADS = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"", b"x" * 20_000, b"\xff" * 3, "ä%\n".encode()])
)
TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
NAMES = st.text("abcxyz019-_.", min_size=1, max_size=12).map(lambda name: "n" + name)


@st.composite
def good_fields(draw: DrawFn, method: str) -> list[tuple[str | bytes, str | bytes]]:
    """Header fields that any server takes."""
    further: list[tuple[str | bytes, str | bytes]] = []
    for name, value in draw(st.lists(st.tuples(NAMES, TEXT), max_size=3)):
        further.append((name.removesuffix("-bin"), value))
    if draw(st.booleans()):
        further.append(
            ("grpc-timeout", draw(st.sampled_from(["1H", "99999999S", "60M", "99999999u", "5000S"])))
        )
    if draw(st.booleans()):
        further.append(("data-bin", draw(st.sampled_from(["AAAA", "AA", "AA=="]))))
    return list(request_fields(method, *further))


BAD_FIELDS: tuple[tuple[str, dict[str, str | None]], ...] = (
    ("no content type", {"content-type": None}),
    ("another content type", {"content-type": "application/json"}),
    ("content type of a codec", {"content-type": "application/grpc+proto"}),
    ("content type with parameters", {"content-type": "application/grpc;charset=x"}),
    ("content type that only begins so", {"content-type": "application/grpcx"}),
    ("GET", {":method": "GET"}),
    ("PUT", {":method": "PUT"}),
    ("no te", {"te": None}),
    ("te of a coding", {"te": "gzip"}),
    ("te of several", {"te": "trailers, deflate"}),
    ("https", {":scheme": "https"}),
    ("a path without slash", {":path": "test.Echo/Echo"}),
    ("a path with a query", {":path": "/test.Echo/Echo?a=b"}),
    ("timeout without unit", {"grpc-timeout": "10"}),
    ("timeout of an unknown unit", {"grpc-timeout": "10x"}),
    ("negative timeout", {"grpc-timeout": "-1S"}),
    ("timeout of nine digits", {"grpc-timeout": "999999999S"}),
    ("empty timeout", {"grpc-timeout": ""}),
    ("no time at all", {"grpc-timeout": "0n"}),
    ("an encoding nobody knows", {"grpc-encoding": "snappy"}),
    ("identity", {"grpc-encoding": "identity"}),
    ("what is accepted, of no kind", {"grpc-accept-encoding": "snappy,,x"}),
    ("what is accepted, called none", {"grpc-accept-encoding": "none"}),
    ("base64 that is none", {"data-bin": "!"}),
    ("a reserved name", {"grpc-what": "x"}),
    ("no path", {":path": None}),
    ("no method", {":method": None}),
)
"""Changes to header fields: what a change does and which fields it sets, or removes."""


def changed(
    fields: list[tuple[str | bytes, str | bytes]], change: dict[str, str | None]
) -> list[tuple[str | bytes, str | bytes]]:
    kept = [(name, change[str(name)] if name in change else value) for name, value in fields]
    new = [(name, value) for name, value in change.items() if all(name != old for old, _ in fields)]
    present = [(name, value) for name, value in [*kept, *new] if value is not None]
    return sorted(present, key=lambda pair: not str(pair[0]).startswith(":"))


def gzipped(payload: bytes) -> bytes:
    return gzip.compress(payload, mtime=0)


BODIES: dict[str, SearchStrategy[bytes]] = {
    "a message": PAYLOADS.map(message),
    "no message": st.just(b""),
    "half a prefix": st.just(message(b"abc")[:3]),
    "a prefix alone": st.just(message(b"abc")[:5]),
    "half a message": st.just(message(b"abc" * 5)[:-1]),
    "two messages": PAYLOADS.map(lambda payload: message(payload) + message(b"second")),
    "a message and half another": PAYLOADS.map(lambda payload: message(payload) + message(b"second")[:-2]),
    "an unknown flag": st.just(message(b"abc", compressed=2)),
    "a compressed message without encoding": st.just(message(gzipped(b"abc"), compressed=1)),
    "a message too large": st.just(struct.pack(">BI", 0, 2**20 + 1) + bytes(100)),
    "a message of impossible size": st.just(struct.pack(">BI", 0, 2**32 - 1)),
}
INCOMPLETE = ("no message", "half a prefix", "a prefix alone", "half a message")
ENCODED: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", message(gzipped(b"abc"), compressed=1)),
    "gzip, not used": ("gzip", message(b"abc")),
    "gzip that is none": ("gzip", message(b"abcdefgh", compressed=1)),
    "gzip cut off": ("gzip", message(gzipped(b"abc" * 50)[:-9], compressed=1)),
    "gzip bomb": ("gzip", message(gzipped(bytes(2**21)), compressed=1)),
    "deflate": ("deflate", message(zlib.compress(b"abc"), compressed=1)),
    "deflate that is gzip": ("deflate", message(gzipped(b"abc"), compressed=1)),
    "identity, compressed": ("identity", message(gzipped(b"abc"), compressed=1)),
}


@st.composite
def exchanges(draw: DrawFn) -> Exchange:
    """One to four calls on a connection, whole or faulty, with other frames in between."""
    made = Exchange()
    for _ in range(draw(st.integers(1, 4))):
        made.last += 2 * draw(st.sampled_from([1, 1, 1, 5]))
        _call(draw, made, made.last)
        if draw(st.integers(0, 3)) == 0:
            _aside(draw, made)
    return made


def _call(draw: DrawFn, made: Exchange, stream_id: int) -> None:
    method = draw(st.sampled_from(METHODS))
    fields = draw(good_fields(method))
    kind = draw(st.sampled_from(["good", "good", "fields", "body", "encoded"]))
    name, body = "a message", draw(BODIES["a message"])
    if kind == "fields":
        what, change = draw(st.sampled_from(BAD_FIELDS))
        fields = changed(fields, change)
        name = what
    elif kind == "body":
        name = draw(st.sampled_from(sorted(BODIES)))
        body = draw(BODIES[name])
    elif kind == "encoded":
        name = draw(st.sampled_from(sorted(ENCODED)))
        encoding, body = ENCODED[name]
        fields = changed(fields, {"grpc-encoding": encoding})
    made.steps.append(f"{stream_id}: {method}, {name}")
    made.calls[stream_id] = Call(method, name)
    _head(draw, made, stream_id, block(fields), end=not body and draw(st.booleans()))
    if body or stream_id in made.open:
        _body(draw, made, stream_id, body)


def _head(draw: DrawFn, made: Exchange, stream_id: int, encoded: bytes, *, end: bool) -> None:
    if not end:
        made.open.add(stream_id)
    cut = draw(st.one_of(st.none(), st.integers(0, len(encoded))))
    if cut is None:
        made.parts.append(headers(stream_id, encoded, end=end))
    else:
        made.parts.append(headers(stream_id, encoded[:cut], end=end, end_headers=False))
        made.parts.append(continuation(stream_id, encoded[cut:], end_headers=True))


def _body(draw: DrawFn, made: Exchange, stream_id: int, body: bytes) -> None:
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
    ends = [0, *cuts, len(body)]
    pieces = [
        body[a:b][at : at + 16_384] for a, b in pairwise(ends) for at in range(0, max(1, b - a), 16_384)
    ]
    ending = draw(st.sampled_from(["with it", "with it", "empty", "trailers", "reset", "never"]))
    for number, piece in enumerate(pieces):
        made.parts.append(data(stream_id, piece, end=ending == "with it" and number == len(pieces) - 1))
    if ending == "empty":
        made.parts.append(data(stream_id, end=True))
    elif ending == "trailers":
        made.parts.append(headers(stream_id, block([("t", "x")]), end=True))
    elif ending == "reset":
        made.add(f"{stream_id}: reset", rst_stream(stream_id))
        del made.calls[stream_id]
    if ending != "never":
        made.open.discard(stream_id)


ASIDES: dict[str, bytes] = {
    "PING": ping(),
    "SETTINGS": settings((Setting.MAX_CONCURRENT_STREAMS, 10)),
    "a setting nobody knows": settings((0xFF00, 1)),
    "an unknown frame": frame(0xBB, 0, 0, b"what"),
    "PRIORITY": priority(3),
    "WINDOW_UPDATE": window_update(0, 1000),
    "a window of 0": window_update(0, 0),
    "SETTINGS of 5 bytes": frame(Type.SETTINGS, payload=bytes(5)),
    "a setting out of range": settings((Setting.INITIAL_WINDOW_SIZE, 2**31)),
    "PING of 7 bytes": frame(Type.PING, payload=bytes(7)),
    "CONTINUATION of nothing": continuation(1, b"", end_headers=True),
    "a block cut off": headers(2**31 - 1, b"\x00\x05ab"),
    "an index that is not there": headers(2**31 - 1, b"\xff\x40"),
    "a frame too large": frame(Type.DATA, Flag.NONE, 1, length=2**24 - 1),
}
FATAL_FROM = list(ASIDES).index("a window of 0")


def _aside(draw: DrawFn, made: Exchange) -> None:
    """Add a frame of the connection; a fatal one now and then."""
    names = list(ASIDES)
    fatal = draw(st.integers(0, 9)) == 0
    name = draw(st.sampled_from(names[FATAL_FROM:] if fatal else names[:FATAL_FROM]))
    made.add(name, ASIDES[name])


@dataclass(frozen=True)
class Fate:
    """What became of one stream: `answered`, `reset`, `lost` with the connection, or left `silent`."""

    how: str
    http: str = ""
    status: int | None = None
    text: str = ""
    messages: tuple[bytes, ...] = ()
    trailers: frozenset[tuple[str, str]] = frozenset()
    code: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a connection and its streams."""

    alive: bool
    streams: dict[int, Fate]


OWN_TRAILERS = ("retry", "trailer", "grpc-accept-encoding")


async def outcome(exchange: Exchange, port: int, cuts: list[int], *, core: bool) -> Outcome:
    """Hold an exchange, in segments cut at `cuts`, to its end: a client ends its streams at last.

    The C core leaves calls without a whole message unanswered, so `core` says not to wait for those.
    """
    waited = [id_ for id_, call in exchange.calls.items() if not (core and call.special in INCOMPLETE)]
    wire = await Wire.open(port)
    try:
        await wire.until(lambda: wire.greeted)
        raw = b"".join(exchange.parts)
        for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            wire.polite = end == len(raw)
            wire.send(raw[start:end])
            await wire.drain()
        for stream_id in exchange.open:
            if not wire.answer_of(stream_id).over:
                wire.send(data(stream_id, end=True))
        last = exchange.last + 2
        wire.send(headers(last, block(request_fields("Unary"))) + data(last, message(b"last"), end=True))
        for stream_id in [*waited, last]:
            await wire.answer(stream_id)
        return Outcome(not wire.closed, {stream_id: _fate(wire, stream_id) for stream_id in exchange.calls})
    finally:
        wire.close()


def _fate(wire: Wire, stream_id: int) -> Fate:
    answer = wire.answer_of(stream_id)
    if answer.ended:
        own = frozenset((name, value) for name, value in answer.trailers.items() if name in OWN_TRAILERS[:2])
        text = answer.trailers.get("grpc-message", "")
        http = answer.headers.get(":status", "")
        return Fate("answered", http, answer.grpc_status, text, tuple(answer.messages()), own)
    if answer.reset is not None:
        return Fate("reset", code=Code(answer.reset))
    return Fate("lost" if wire.closed else "silent")
