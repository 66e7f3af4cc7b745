"""What a client's frames mean for its streams (RFC 9113 sections 5, 6 and 8.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from gateway.transport.http2.errors import ConnectionFault, ErrorCode, StreamFault
from gateway.transport.http2.fields import check_trailers
from gateway.transport.http2.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_STREAM_ID,
    PADDED,
    PING,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    rst_stream_frame,
)
from gateway.transport.http2.header_assembly import HeaderAssembly, block_of_headers
from gateway.transport.http2.limits import Limit

if TYPE_CHECKING:
    from gateway.transport.http2.control import Control
    from gateway.transport.http2.head_memo import HeadMemo
    from gateway.transport.http2.lifetime import Lifetime
    from gateway.transport.http2.limits import ConnectionLimits
    from gateway.transport.http2.receive_windows import ReceiveWindows
    from gateway.transport.http2.sender import Sender
    from gateway.transport.http2.stream import Stream
    from gateway.transport.http2.stream_table import StreamTable

HeadT = TypeVar("HeadT")
_HeadT_contra = TypeVar("_HeadT_contra", contravariant=True)


_WHOLE_HEADERS: Final = END_HEADERS | END_STREAM
_SETTINGS_BYTES: Final = 32 * 6  # more settings than any client has use for count as more frames


class Application(Protocol[_HeadT_contra]):
    """Who answers the requests of a connection; called synchronously."""

    def open(self, stream_id: int, head: _HeadT_contra) -> Stream:
        """Return a stream object for a new request, without sending anything on it yet."""

    def wake(self) -> None:
        """Hear that there is something to write after there was nothing."""

    def limit_fired(self, limit: Limit) -> None:
        """Count a limit that a client met."""


class IncomingFrames(Generic[HeadT]):
    """Takes the frames of one connection from its reader; a `FrameHandler`.

    Everything raises ConnectionFault for what ends the connection; a fault of one stream resets that stream.

    Attributes:
        assembly: the header block under way, of which CONTINUATION frames are to come; or None.
        now_s: monotonic time of the read.
    """

    __slots__ = (
        "_application",
        "_control",
        "_lifetime",
        "_limits",
        "_memo",
        "_sender",
        "_table",
        "_windows",
        "assembly",
        "now_s",
    )

    def __init__(  # noqa: PLR0913 - the parts of one connection, made by its constructor alone
        self,
        application: Application[HeadT],
        memo: HeadMemo[HeadT],
        limits: ConnectionLimits,
        *,
        table: StreamTable,
        sender: Sender,
        windows: ReceiveWindows,
        lifetime: Lifetime,
        control: Control,
    ) -> None:
        self._application = application
        self._memo = memo
        self._limits = limits
        self._table = table
        self._sender = sender
        self._windows = windows
        self._lifetime = lifetime
        self._control = control
        self.assembly: HeaderAssembly | None = None
        self.now_s = 0.0

    def data_frame(self, stream_id: int, flags: int, length: int, padding: int) -> Stream | None:
        """Begin a DATA frame (section 6.1); the reader calls."""
        if self.assembly is not None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA inside a header block")
        windows = self._windows
        windows.window -= length
        if windows.window < windows.low:
            windows.replenish()
        stream = self._table.open.get(stream_id)
        if stream is None or stream.remote_closed or stream.local_closed:
            if length == padding:
                self._spend_control()
            self._unwanted_data(stream_id, stream, flags)
            return None
        stream.receive_window -= length
        if stream.receive_window < windows.stream_low:
            if stream.receive_window < 0:
                self._fault(stream, ErrorCode.FLOW_CONTROL_ERROR)
                return None
            windows.replenish_stream(stream)
        if stream.body_left >= 0 and not self._fits_content_length(stream, length - padding, flags):
            self._fault(stream, ErrorCode.PROTOCOL_ERROR)
            return None
        if flags & END_STREAM:
            self._table.end_remote(stream)
        elif length == padding:
            self._spend_control()
        return stream

    def _fits_content_length(self, stream: Stream, size: int, flags: int) -> bool:
        """Section 8.1.1: a body whose length is not what was announced makes its request malformed."""
        stream.body_left -= size
        return stream.body_left == 0 if flags & END_STREAM else stream.body_left >= 0

    def _unwanted_data(self, stream_id: int, stream: Stream | None, flags: int) -> None:
        """Drop DATA that came too late, or complain about it (section 5.1)."""
        if stream is not None and not stream.remote_closed:  # answered before its end
            if flags & END_STREAM:
                self._table.end_remote(stream)
        elif stream is not None:
            self._fault(stream, ErrorCode.STREAM_CLOSED)
        elif self._table.is_idle(stream_id) or self._table.closed.was_skipped(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on an idle stream")
        elif not self._table.closed.was_broken_off(stream_id):
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "DATA on a closed stream")

    def frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Take any other frame, whole; the reader calls."""
        if self.assembly is not None:
            self._continuation(kind, flags, stream_id, payload)
        elif kind == HEADERS and self._control.settled:
            if stream_id and flags | END_STREAM == _WHOLE_HEADERS:
                self._header_block(stream_id, flags & END_STREAM, payload)
            else:
                self._headers(flags, stream_id, payload)
        elif kind == SETTINGS:
            self._settings(flags, stream_id, payload)
        elif not self._control.settled:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        elif kind == WINDOW_UPDATE:
            self._window_update(stream_id, payload)
        else:
            self._rare_frame(kind, flags, stream_id, payload)

    def _rare_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == PING:
            self._spend_control()
            self._control.ping((flags, stream_id, payload), self._table.last_id, self.now_s)
        elif kind == RST_STREAM:
            self._rst_stream(stream_id, payload)
        elif kind == PRIORITY:
            self._priority(stream_id, payload)
        elif kind == GOAWAY:
            self._spend_control()
            self._control.goaway(stream_id, payload)
        elif kind in {PUSH_PROMISE, CONTINUATION}:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame that does not belong here")
        else:  # section 5.5: extensions are ignored
            self._spend_control()

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.2."""
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS without a stream")
        if flags & (PADDED | PRIORITISED) or not flags & END_HEADERS:
            part = block_of_headers(stream_id, flags, payload)
            if not flags & END_HEADERS:
                self.assembly = HeaderAssembly(part, self._limits, self._application.limit_fired, self.now_s)
                return
            payload = part.block
        self._header_block(stream_id, flags & END_STREAM, payload)

    def _continuation(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.10."""
        assembly = self.assembly
        if kind != CONTINUATION or assembly is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame inside a header block")
        whole = assembly.add(stream_id, flags, payload)
        if whole is not None:
            self.assembly = None
            self._header_block(stream_id, whole.ends_stream, whole.block)

    def _header_block(self, stream_id: int, ends: int, block: bytes) -> None:
        stream = self._table.open.get(stream_id)
        if stream is not None:
            self._trailers(stream, ends, block)
            return
        table = self._table
        if stream_id <= table.last_id or not stream_id & 1:
            self._late_block(stream_id, block)
            return
        table.use_id(stream_id)
        try:
            head = self._memo.head(block)
        except StreamFault as fault:
            self._reject(stream_id, fault.code)
            return
        limit = self._limits.max_streams
        if self._lifetime.refusing:
            self._table.closed.break_off(stream_id)
        elif limit is not None and len(self._table.open) + self._table.abandoned >= limit:
            self._application.limit_fired(Limit.STREAMS)
            self._reject(stream_id, ErrorCode.REFUSED_STREAM)
        else:
            self._open(stream_id, ends, head)

    def _open(self, stream_id: int, ends: int, head: HeadT) -> None:
        stream = self._application.open(stream_id, head)
        self._table.add(stream)
        if ends:
            if stream.body_left > 0:
                self._fault(stream, ErrorCode.PROTOCOL_ERROR)
                return
            self._table.end_remote(stream)
        stream.on_open()
        if ends and not stream.local_closed:
            stream.on_data(b"", 0, 0, ended=True)

    def _reject(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream that never came to the application."""
        self._table.closed.break_off(stream_id)
        self._sender.frame(rst_stream_frame(stream_id, code))
        self._control.spend_reset(self.now_s)

    def _trailers(self, stream: Stream, ends: int, block: bytes) -> None:
        """Take the fields behind a body (section 8.1): nobody wants them, but they end the stream."""
        decoded = self._memo.decoded(block)
        if stream.remote_closed:
            self._fault(stream, ErrorCode.STREAM_CLOSED)
        elif stream.local_closed:
            if ends:
                self._table.end_remote(stream)
        else:
            try:
                check_trailers(decoded.fields)
            except StreamFault as fault:
                self._fault(stream, fault.code)
                return
            if not ends or stream.body_left > 0:
                self._fault(stream, ErrorCode.PROTOCOL_ERROR)
                return
            self._table.end_remote(stream)
            stream.on_data(b"", 0, 0, ended=True)

    def _late_block(self, stream_id: int, block: bytes) -> None:
        """Drop or complain about HEADERS on a stream that is over (sections 5.1 and 5.1.1)."""
        if not stream_id & 1 or self._table.closed.was_skipped(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS with an identifier that is not allowed")
        if not self._table.closed.was_broken_off(stream_id):
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")
        self._memo.decoded(block)
        self._spend_control()

    def _rst_stream(self, stream_id: int, payload: bytes) -> None:
        """Section 6.4."""
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of an impossible length")
        self._check_not_idle(stream_id)
        stream = self._table.open.get(stream_id)
        if stream is None:
            self._spend_control()
            return
        answered = stream.local_closed
        self._table.drop(stream)
        if not answered:
            stream.on_reset(int.from_bytes(payload, "big"))
            self._control.spend_reset(self.now_s)

    def _window_update(self, stream_id: int, payload: bytes) -> None:
        """Section 6.9."""
        self._spend_control()
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of an impossible length")
        increment = int.from_bytes(payload, "big") & MAX_STREAM_ID
        stream = None
        if stream_id:
            self._check_not_idle(stream_id)
            stream = self._table.open.get(stream_id)
            if stream is None:
                return
        code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
        if increment and self._sender.widen(stream, increment, self.now_s):
            return
        if stream is None:
            raise ConnectionFault(code, "WINDOW_UPDATE of nothing, or beyond the largest window")
        self._fault(stream, code)

    def _priority(self, stream_id: int, payload: bytes) -> None:
        """Section 6.3: obsolete, so checked and dropped."""
        self._spend_control()
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            stream = self._table.open.get(stream_id)
            if stream is None:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of an impossible length")
            self._fault(stream, ErrorCode.FRAME_SIZE_ERROR)

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        for _ in range(0, len(payload) + 1, _SETTINGS_BYTES):
            self._spend_control()
        self._control.settings((flags, stream_id, payload), self._table.open, self.now_s)

    def _check_not_idle(self, stream_id: int) -> None:
        if self._table.is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame on an idle stream")

    def _spend_control(self) -> None:
        self._control.spend_frame(self._table.opened, self.now_s)

    def _fault(self, stream: Stream, code: ErrorCode) -> None:
        """Reset a stream for what the client did on it (section 5.4.2)."""
        answered = stream.local_closed
        self._table.reset(stream, code)
        if not answered:
            stream.on_reset(code)
        self._control.spend_reset(self.now_s)
