"""Bytes to frames (RFC 9113 section 4.1): one pass over each read, DATA handed on without being collected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.transport.http2.errors import ConnectionFault, ErrorCode
from gateway.transport.http2.frames import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADER_BYTES,
    HEADERS,
    MAX_STREAM_ID,
    PADDED,
    read_header,
)

if TYPE_CHECKING:
    from gateway.transport.http2.stream import Stream


class FrameHandler(Protocol):
    """What frames are handed to. Everything may raise ConnectionFault."""

    def data_frame(self, stream_id: int, flags: int, length: int, padding: int) -> Stream | None:
        """Begin a DATA frame of `length` payload bytes, padding and its length octet among them.

        Returns:
            The stream that takes its bytes; None drops them.
        """

    def frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Take any other frame, whole."""


class FrameReader:
    """Cuts the input of one connection into frames.

    Memory: at most one incomplete frame that is not DATA; those with fields are bounded by
    `max_block_bytes`, others by `max_frame_bytes`.

    Args:
        handler: takes the frames.
        max_frame_bytes: what SETTINGS_MAX_FRAME_SIZE told the client.
        max_block_bytes: largest frame with fields.

    Attributes:
        held_s: when the incomplete frame that is held was begun; 0 while none is.
    """

    __slots__ = (
        "_data_left",
        "_ends",
        "_handler",
        "_held",
        "_max_block_bytes",
        "_max_frame_bytes",
        "_padding_left",
        "_stream",
        "held_s",
    )

    def __init__(self, handler: FrameHandler, max_frame_bytes: int, max_block_bytes: int) -> None:
        self._handler = handler
        self._max_frame_bytes = max_frame_bytes
        self._max_block_bytes = max_block_bytes
        self._held = b""
        self.held_s = 0.0
        # Of the DATA frame that is under way:
        self._stream: Stream | None = None
        self._data_left = 0
        self._padding_left = 0
        self._ends = False

    def feed(self, data: bytes, now_s: float) -> None:
        """Take one read.

        Raises:
            ConnectionFault: FRAME_SIZE_ERROR, or what the handler raises.
        """
        position = 0
        if self._held:
            data = self._held + data
        elif self._data_left or self._padding_left:
            position = self._go_on(data)
        size = len(data)
        begin = position
        while size - position >= HEADER_BYTES:
            word, flags, stream_id = read_header(data, position)
            length = word >> 8
            start = position + HEADER_BYTES
            end = start + length
            if length > self._max_frame_bytes:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "frame is larger than SETTINGS allow")
            kind = word & 0xFF
            if kind == DATA:
                if end <= size and not flags & PADDED:
                    stream = self._handler.data_frame(stream_id & MAX_STREAM_ID, flags, length, 0)
                    if stream is not None:
                        stream.on_data(data, start, end, ended=bool(flags & END_STREAM))
                elif not self._begin_data(data, start, (flags, stream_id & MAX_STREAM_ID, length)):
                    break
            elif end <= size:
                self._handler.frame(kind, flags, stream_id & MAX_STREAM_ID, data[start:end])
            else:
                self._check_held(kind, length)
                break
            position = end
        self._hold(data, position, begin, now_s)

    def forget(self) -> None:
        """Know the stream of the DATA frame under way no more: the connection is gone."""
        self._stream = None

    def _hold(self, data: bytes, position: int, begin: int, now_s: float) -> None:
        """Keep what is behind the last frame, and since when."""
        if position >= len(data):
            self._held = b""
            self.held_s = 0.0
            return
        if position > begin or not self._held:
            self.held_s = now_s
        self._held = data[position:]

    def _check_held(self, kind: int, length: int) -> None:
        if kind in {HEADERS, CONTINUATION} and length > self._max_block_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header block is too large")

    def _begin_data(self, data: bytes, start: int, head: tuple[int, int, int]) -> bool:
        """Begin a DATA frame that is padded or incomplete (section 6.1); False if its padding is unknown."""
        flags, stream_id, length = head
        padding = 0
        if flags & PADDED:
            if length == 0:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "padded frame without a padding length")
            if start == len(data):
                return False
            padding = data[start] + 1
            start += 1
            if padding > length:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding is longer than its frame")
        self._stream = self._handler.data_frame(stream_id, flags, length, padding)
        self._ends = bool(flags & END_STREAM)
        self._data_left = length - padding
        self._padding_left = max(0, padding - 1)
        self._deliver(data, start)
        return True

    def _go_on(self, data: bytes) -> int:
        """Take more of the DATA frame under way; return the position behind it."""
        if self._data_left:
            return self._deliver(data, 0)
        return self._skip(data, 0)

    def _deliver(self, data: bytes, start: int) -> int:
        end = min(start + self._data_left, len(data))
        self._data_left -= end - start
        stream = self._stream
        if stream is not None and not stream.local_closed:
            ended = self._ends and not self._data_left
            if end > start or ended:
                stream.on_data(data, start, end, ended=ended)
        if self._data_left:
            return end
        self._stream = None
        return self._skip(data, end)

    def _skip(self, data: bytes, start: int) -> int:
        end = min(start + self._padding_left, len(data))
        self._padding_left -= end - start
        return end
