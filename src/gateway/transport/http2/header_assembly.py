"""HEADERS and the CONTINUATION frames behind it to one header block (RFC 9113 sections 6.2 and 6.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.transport.http2.errors import ConnectionFault, ErrorCode
from gateway.transport.http2.frames import END_HEADERS, END_STREAM, PADDED, PRIORITISED
from gateway.transport.http2.limits import Limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.transport.http2.limits import ConnectionLimits

_PRIORITY_BYTES: Final = 5


class HeaderBlock(NamedTuple):
    """A whole header block: which stream, whether it ends it, its bytes."""

    stream_id: int
    ends_stream: bool
    block: bytes


class HeaderAssembly:
    """A header block of which frames are still to come; nothing else may come between (section 6.10).

    Memory: `max_header_block_bytes`.
    """

    __slots__ = ("_block", "_count_limit", "_ends_stream", "_frames", "_limits", "_stream_id", "began_s")

    def __init__(
        self,
        first: HeaderBlock,
        limits: ConnectionLimits,
        count_limit: Callable[[Limit], None],
        now_s: float,
    ) -> None:
        self._stream_id = first.stream_id
        self._ends_stream = first.ends_stream
        self._block = bytearray(first.block)
        self._limits = limits
        self._count_limit = count_limit
        self._frames = 0
        self.began_s = now_s

    def add(self, stream_id: int, flags: int, payload: bytes) -> HeaderBlock | None:
        """Take a CONTINUATION frame; return the block when it is whole.

        Raises:
            ConnectionFault: it is not of this block, or the block passes a limit.
        """
        if stream_id != self._stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION on another stream")
        self._frames += 1
        if self._frames > self._limits.max_continuations:
            self._count_limit(Limit.CONTINUATIONS)
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many CONTINUATION frames")
        self._block += payload
        if len(self._block) > self._limits.max_header_block_bytes:
            self._count_limit(Limit.HEADER_BLOCK)
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header block is too large")
        if flags & END_HEADERS:
            return HeaderBlock(self._stream_id, self._ends_stream, bytes(self._block))
        return None


def block_of_headers(stream_id: int, flags: int, payload: bytes) -> HeaderBlock:
    """Return the part of a header block in a HEADERS frame, without padding and priority.

    Raises:
        ConnectionFault: they do not fit the frame.
    """
    if flags & (PADDED | PRIORITISED):
        payload = _stripped(flags, payload)
    return HeaderBlock(stream_id, bool(flags & END_STREAM), payload)


def _stripped(flags: int, payload: bytes) -> bytes:
    start = padding = 0
    if flags & PADDED:
        if not payload:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "padded frame without a padding length")
        start, padding = 1, payload[0]
    if flags & PRIORITISED:
        # Its contents are obsolete (section 5.3.2).
        start += _PRIORITY_BYTES
        if len(payload) < start:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS frame is too short for its priority")
    end = len(payload) - padding
    if end < start:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[start:end]
