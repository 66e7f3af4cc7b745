"""Frame types, flags, settings, and the frames a server sends (RFC 9113 sections 4 and 6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
MAX_STREAM_ID: Final = 0x7FFFFFFF
MAX_WINDOW: Final = 0x7FFFFFFF
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME_BYTES: Final = 16_384
LARGEST_FRAME_BYTES: Final = 16_777_215

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

SETTINGS_HEADER_TABLE_SIZE: Final = 0x1
SETTINGS_ENABLE_PUSH: Final = 0x2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 0x3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 0x4
SETTINGS_MAX_FRAME_SIZE: Final = 0x5
SETTINGS_MAX_HEADER_LIST_SIZE: Final = 0x6

# Length and type share the first word: length << 8 | type.
read_header: Final = struct.Struct(">IBI").unpack_from
_HEADER: Final = struct.Struct(">IBI").pack
_WORD_FRAME: Final = struct.Struct(">IBII").pack
_GOAWAY_FRAME: Final = struct.Struct(">IBIII").pack
_SETTING: Final = struct.Struct(">HI")


def frame_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """Return the nine bytes in front of a payload of `length` bytes."""
    return _HEADER(length << 8 | kind, flags, stream_id)


def headers_frame(stream_id: int, block: bytes, *, end_stream: bool) -> bytes:
    """Return a whole header block in one frame; it must fit the peer's frame size."""
    flags = END_HEADERS | (END_STREAM if end_stream else 0)
    return _HEADER(len(block) << 8 | HEADERS, flags, stream_id) + block


def header_frames(stream_id: int, block: bytes, frame_bytes: int, *, end_stream: bool) -> bytes:
    """Return a header block in as many frames as it needs (section 6.10)."""
    if len(block) <= frame_bytes:
        return headers_frame(stream_id, block, end_stream=end_stream)
    first = block[:frame_bytes]
    frames = [frame_header(HEADERS, END_STREAM if end_stream else 0, stream_id, len(first)), first]
    for start in range(frame_bytes, len(block), frame_bytes):
        part = block[start : start + frame_bytes]
        flags = END_HEADERS if start + frame_bytes >= len(block) else 0
        frames += (frame_header(CONTINUATION, flags, stream_id, len(part)), part)
    return b"".join(frames)


def rst_stream_frame(stream_id: int, code: int) -> bytes:
    """Return an RST_STREAM frame (section 6.4)."""
    return _WORD_FRAME(4 << 8 | RST_STREAM, 0, stream_id, code)


def window_update_frame(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection (section 6.9)."""
    return _WORD_FRAME(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def ping_frame(payload: bytes, *, ack: bool) -> bytes:
    """Return a PING frame of eight payload bytes (section 6.7)."""
    return _HEADER(8 << 8 | PING, ACK if ack else 0, 0) + payload


def goaway_frame(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    """Return a GOAWAY frame (section 6.8)."""
    return _GOAWAY_FRAME((8 + len(debug)) << 8 | GOAWAY, 0, 0, last_stream_id, code) + debug


def settings_frame(values: Mapping[int, int]) -> bytes:
    """Return a SETTINGS frame (section 6.5)."""
    payload = b"".join(_SETTING.pack(name, value) for name, value in values.items())
    return _HEADER(len(payload) << 8 | SETTINGS, 0, 0) + payload


SETTINGS_ACK: Final = _HEADER(SETTINGS, ACK, 0)


def read_settings(payload: bytes) -> Iterable[tuple[int, int]]:
    """Iterate over the settings of a payload whose length is a multiple of six."""
    return _SETTING.iter_unpack(payload)
