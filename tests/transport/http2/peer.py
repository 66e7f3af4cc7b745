"""A client's side of a connection in memory: frames made by hand, answers taken apart, time passed in."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import hpack

from gateway.transport.http2.connection import Connection
from gateway.transport.http2.fields import FieldNames, request_fields
from gateway.transport.http2.frames import PREFACE
from gateway.transport.http2.head_memo import HeadMemo, MemoBudget
from gateway.transport.http2.huffman import HuffmanStrings
from gateway.transport.http2.limits import ConnectionLimits, Limit
from gateway.transport.http2.recorded_stream import RecordedStream
from gateway.transport.http2.sender import ResponseTemplate

if TYPE_CHECKING:
    from gateway.transport.http2.hpack_decoder import DecodedBlock

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/a/b"), (":authority", "test")]
TEMPLATE = ResponseTemplate(b"\x88", b"\x89")

LIMITS = ConnectionLimits(
    connection_window_bytes=1 << 20,
    stream_window_bytes=1 << 18,
    max_frame_bytes=16_384,
    max_streams=100,
    max_header_list_bytes=8192,
    max_header_block_bytes=16_384,
    max_continuations=8,
    max_unsent_bytes=1 << 20,
    max_resets=10,
    max_control_frames=50,
    abuse_interval_s=10.0,
    preface_timeout_s=5.0,
    header_timeout_s=4.0,
    body_timeout_s=4.0,
    min_body_rate=1000.0,
    send_timeout_s=4.0,
    keepalive_time_s=1000.0,
    keepalive_timeout_s=20.0,
    min_ping_interval_s=10.0,
    max_idle_s=None,
    max_age_s=None,
    max_age_grace_s=None,
)


class Frame(NamedTuple):
    """A frame the server sent."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    """Return any frame."""
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream_id) + payload


def settings(**values: int) -> bytes:
    """Return SETTINGS: `w` for the initial window, `f` for the frame size."""
    names = {"w": 4, "f": 5}
    return frame(
        4, payload=b"".join(struct.pack(">HI", names[name], value) for name, value in values.items())
    )


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(8, 0, stream_id, struct.pack(">I", increment))


def data(stream_id: int, payload: bytes, *, end: bool = False) -> bytes:
    return frame(0, int(end), stream_id, payload)


@dataclass(slots=True, eq=False)
class Head:
    """What the tests' application wants of a header block."""

    path: str
    length: int
    too_large: bool


class Heads:
    """Makes a head of each block anew."""

    def __init__(self) -> None:
        self.names = FieldNames(frozenset())

    def build(self, block: DecodedBlock) -> Head:
        if block.too_large:
            return Head("", -1, too_large=True)
        request = request_fields(block.fields)
        return Head(request.path, request.content_length, too_large=False)


class Peer:
    """A client and the connection it talks to."""

    def __init__(self, *, greet: bool = True, **limits: Any) -> None:
        self.encoder = hpack.Encoder()
        self.calls: dict[int, RecordedStream] = {}
        self.heads: dict[int, Head] = {}
        self.fired: list[Limit] = []
        self.wakes = 0
        self.now_s = 100.0
        budget = MemoBudget(1 << 20)
        memo = HeadMemo(HuffmanStrings(1 << 16), Heads(), LIMITS.max_header_list_bytes, 1 << 16, budget)
        self.connection = Connection(self, memo, replace(LIMITS, **limits), self.now_s)
        if greet:
            self.send(PREFACE + settings())
            self.taken()

    # Application

    def open(self, stream_id: int, head: Head) -> RecordedStream:
        connection = self.connection
        call = RecordedStream(
            stream_id, connection.sender.stream_window, connection.windows.stream_size, self.answer
        )
        call.body_left = head.length
        self.calls[stream_id], self.heads[stream_id] = call, head
        return call

    def answer(self, call: RecordedStream) -> None:
        """Do nothing about a request that has ended."""

    def wake(self) -> None:
        self.wakes += 1

    def limit_fired(self, limit: Limit) -> None:
        self.fired.append(limit)

    # What a test does

    def request(self, stream_id: int, fields: Any = (), *, end: bool = False) -> bytes:
        """Return a request's HEADERS frame."""
        block = self.encoder.encode([*REQUEST, *fields])
        return frame(1, 4 | int(end), stream_id, block)

    def send(self, *frames: bytes) -> None:
        self.connection.receive(b"".join(frames), self.now_s)

    def taken(self) -> list[Frame]:
        """Return what the server has sent since the last time."""
        out = b"".join(self.connection.take(self.now_s))
        frames = []
        while out:
            word, flags, stream_id = struct.unpack_from(">IBI", out)
            end = 9 + (word >> 8)
            frames.append(Frame(word & 0xFF, flags, stream_id, out[9:end]))
            out = out[end:]
        return frames

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.connection.check(self.now_s)

    def fault(self) -> str:
        """The code of the connection's error, empty if there is none."""
        fault = self.connection.fault
        return "" if fault is None else fault.code.name

    def finished(self) -> bool:
        return self.connection.finished

    def reset_codes(self) -> dict[int, int]:
        """Return the code of each stream that was reset since the last look."""
        return {f.stream_id: int.from_bytes(f.payload, "big") for f in self.taken() if f.kind == 3}

    def reply(self, stream_id: int, body: bytes) -> None:
        self.connection.respond(self.calls[stream_id], TEMPLATE, (b"", body), None)
