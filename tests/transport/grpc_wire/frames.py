"""HTTP/2 frames and header blocks as bytes, right ones and wrong ones (RFC 9113, RFC 7541)."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

from hpack.hpack import encode_integer

from tests.transport.grpc_wire.methods import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Fields = Sequence[tuple[str | bytes, str | bytes]]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
DEFAULT_FRAME_SIZE = 16_384


class Type(IntEnum):
    """Frame types, RFC 9113 section 6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntFlag):
    """Frame flags; ACK is END_STREAM's bit."""

    NONE = 0
    END_STREAM = 1
    ACK = 1
    END_HEADERS = 4
    PADDED = 8
    PRIORITY = 32


class Code(IntEnum):
    """Error codes, RFC 9113 section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """Settings, RFC 9113 section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


def frame(
    kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"", length: int | None = None
) -> bytes:
    """Return one frame; `length` lies about the payload's."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream_id) + payload


def settings(*values: tuple[int, int]) -> bytes:
    return frame(Type.SETTINGS, payload=b"".join(struct.pack(">HI", *value) for value in values))


SETTINGS_ACK = frame(Type.SETTINGS, Flag.ACK)
GREETING = PREFACE + settings()


def data(stream_id: int, payload: bytes = b"", *, end: bool = False, padding: int | None = None) -> bytes:
    """Return a DATA frame, with `padding` bytes of padding if asked for."""
    flags = Flag.END_STREAM if end else Flag.NONE
    if padding is not None:
        return frame(Type.DATA, flags | Flag.PADDED, stream_id, bytes([padding]) + payload + bytes(padding))
    return frame(Type.DATA, flags, stream_id, payload)


def headers(
    stream_id: int, block_: bytes, *, end: bool = False, end_headers: bool = True, padding: int | None = None
) -> bytes:
    """Return a HEADERS frame."""
    flags = (Flag.END_STREAM if end else 0) | (Flag.END_HEADERS if end_headers else 0)
    if padding is not None:
        flags |= Flag.PADDED
        block_ = bytes([padding]) + block_ + bytes(padding)
    return frame(Type.HEADERS, flags, stream_id, block_)


def continuation(stream_id: int, fragment: bytes = b"", *, end_headers: bool = False) -> bytes:
    return frame(Type.CONTINUATION, Flag.END_HEADERS if end_headers else 0, stream_id, fragment)


def rst_stream(stream_id: int, code: int = Code.CANCEL) -> bytes:
    return frame(Type.RST_STREAM, 0, stream_id, struct.pack(">I", code))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(Type.WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def ping(payload: bytes = bytes(8), *, ack: bool = False) -> bytes:
    return frame(Type.PING, Flag.ACK if ack else 0, 0, payload)


def goaway(last: int = 0, code: int = Code.NO_ERROR, debug: bytes = b"") -> bytes:
    return frame(Type.GOAWAY, 0, 0, struct.pack(">II", last, code) + debug)


def priority(stream_id: int, depends_on: int = 0, weight: int = 15) -> bytes:
    return frame(Type.PRIORITY, 0, stream_id, struct.pack(">IB", depends_on, weight))


def block(fields: Fields) -> bytes:
    """Encode without indexing, so that a block means the same wherever it is sent (RFC 7541, 6.2.2)."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields)


def indexing(name: str, value: str) -> bytes:
    """Encode a field that goes into the dynamic table (RFC 7541, 6.2.1)."""
    return b"\x40" + _string(name) + _string(value)


def _string(text: str | bytes) -> bytes:
    raw = text.encode("latin-1") if isinstance(text, str) else text
    return bytes(encode_integer(len(raw), 7)) + raw


def request_fields(method: str = "Echo", *further: tuple[str | bytes, str | bytes]) -> Fields:
    """Return the header fields of a gRPC request."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/{SERVICE}/{method}"),
        (":authority", "test"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *further,
    ]


def message(payload: bytes = b"", compressed: int = 0) -> bytes:
    """Return a gRPC message with its prefix."""
    return struct.pack(">BI", compressed, len(payload)) + payload


def open_call(stream_id: int, method: str = "Echo", *further: tuple[str | bytes, str | bytes]) -> bytes:
    """Return the HEADERS frame of a request whose message is still to come."""
    return headers(stream_id, block(request_fields(method, *further)))


def whole_call(stream_id: int, payload: bytes = b"x", method: str = "Echo") -> bytes:
    """Return a complete unary request in two frames."""
    return open_call(stream_id, method) + data(stream_id, message(payload), end=True)


def pieces(fragment: bytes, size: int) -> Iterable[bytes]:
    return (fragment[at : at + size] for at in range(0, len(fragment), size))
