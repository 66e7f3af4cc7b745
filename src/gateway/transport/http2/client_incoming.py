"""What a server's frames mean for the requests of a client (RFC 9113 sections 5, 6 and 8.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

from gateway.transport.http2.errors import ConnectionFault, ErrorCode, StreamFault
from gateway.transport.http2.frames import (
    ACK,
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
    SETTINGS_ACK,
    SETTINGS_HEADER_TABLE_SIZE,
    SETTINGS_MAX_CONCURRENT_STREAMS,
    WINDOW_UPDATE,
    ping_frame,
    read_settings,
)
from gateway.transport.http2.header_assembly import HeaderAssembly, block_of_headers
from gateway.transport.http2.peer_settings import apply_settings, check_settings_frame

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.transport.http2.client_keepalive import ClientKeepalive
    from gateway.transport.http2.client_sender import RequestSender
    from gateway.transport.http2.client_stream import ClientStream
    from gateway.transport.http2.client_streams import ClientStreams
    from gateway.transport.http2.head_memo import HeadMemo
    from gateway.transport.http2.limits import ConnectionLimits, Limit
    from gateway.transport.http2.receive_windows import ReceiveWindows
    from gateway.transport.http2.stream import Stream

HeadT = TypeVar("HeadT")


class ClientApplication(Protocol):
    """Who sends the requests of a connection; called synchronously."""

    def wake(self) -> None:
        """Hear that there is something to write after there was nothing."""

    def on_settings(self) -> None:
        """Hear that the server's SETTINGS have come, for the first time or again."""

    def on_leaving(self) -> None:
        """Hear that no further request can be sent on this connection."""


class ClientFrames(Generic[HeadT]):
    """Takes the frames of one connection from its reader; a `FrameHandler`.

    Everything raises ConnectionFault for what ends the connection; a fault of one stream resets that stream.
    A server is trusted not to flood, and with nothing else.

    Attributes:
        now_s: monotonic time of the read.
    """

    __slots__ = (
        "_application",
        "_assembly",
        "_keepalive",
        "_limits",
        "_memo",
        "_sender",
        "_streams",
        "_windows",
        "now_s",
    )

    def __init__(  # noqa: PLR0913 - the parts of one connection, made by its constructor alone
        self,
        application: ClientApplication,
        memo: HeadMemo[HeadT],
        limits: ConnectionLimits,
        *,
        streams: ClientStreams[HeadT],
        sender: RequestSender,
        windows: ReceiveWindows,
        keepalive: ClientKeepalive,
    ) -> None:
        self._application = application
        self._memo = memo
        self._limits = limits
        self._streams = streams
        self._sender = sender
        self._windows = windows
        self._keepalive = keepalive
        self._assembly: HeaderAssembly | None = None
        self.now_s = 0.0

    def data_frame(self, stream_id: int, flags: int, length: int, padding: int) -> Stream | None:  # noqa: ARG002
        """Begin a DATA frame (section 6.1); the reader calls."""
        if self._assembly is not None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA inside a header block")
        windows = self._windows
        windows.window -= length
        if windows.window < windows.low:
            windows.replenish()
        self._keepalive.pings = 0
        stream = self._streams.find(stream_id)
        if stream is None or stream.remote_closed:
            return None
        stream.receive_window -= length
        if flags & END_STREAM:
            stream.remote_closed = True
        if stream.receive_window < windows.stream_low:
            if stream.receive_window < 0:
                self._fault(stream, ErrorCode.FLOW_CONTROL_ERROR)
                return None
            windows.replenish_stream(stream)
        return stream

    def frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Take any other frame, whole; the reader calls."""
        if self._assembly is not None:
            self._continuation(kind, flags, stream_id, payload)
        elif kind == SETTINGS:
            self._settings(flags, stream_id, payload)
        elif not self._streams.settled:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        elif kind == HEADERS:
            if flags & (PADDED | PRIORITISED) or not flags & END_HEADERS:
                self._headers(flags, stream_id, payload)
            else:
                self._header_block(stream_id, flags & END_STREAM, payload)
        elif kind == WINDOW_UPDATE:
            self._window_update(stream_id, payload)
        else:
            self._rare_frame(kind, flags, stream_id, payload)

    def _rare_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == PING:
            self._ping(flags, stream_id, payload)
        elif kind == RST_STREAM:
            self._rst_stream(stream_id, payload)
        elif kind == GOAWAY:
            self._goaway(stream_id, payload)
        elif kind in {PUSH_PROMISE, CONTINUATION}:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame that does not belong here")
        elif kind == PRIORITY and stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY without a stream")

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.2: a HEADERS frame that is padded, prioritised or not the whole block."""
        part = block_of_headers(stream_id, flags, payload)
        if flags & END_HEADERS:
            self._header_block(stream_id, flags & END_STREAM, part.block)
        else:
            self._assembly = HeaderAssembly(part, self._limits, _uncounted, self.now_s)

    def _continuation(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.10."""
        assembly = self._assembly
        if kind != CONTINUATION or assembly is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame inside a header block")
        whole = assembly.add(stream_id, flags, payload)
        if whole is not None:
            self._assembly = None
            self._header_block(stream_id, int(whole.ends_stream), whole.block)

    def _header_block(self, stream_id: int, ends: int, block: bytes) -> None:
        self._keepalive.pings = 0
        stream = self._streams.find(stream_id)
        if stream is None or stream.remote_closed:
            self._memo.decoded(block)
            return
        try:
            head = self._memo.head(block)
        except StreamFault as fault:
            self._fault(stream, fault.code)
            return
        if ends:
            self._streams.end(stream)
        stream.on_head(head, ended=bool(ends))

    def _rst_stream(self, stream_id: int, payload: bytes) -> None:
        """Section 6.4."""
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of an impossible length")
        stream = self._streams.find(stream_id)
        if stream is not None:
            self._streams.drop(stream)
            stream.on_reset(int.from_bytes(payload, "big"))

    def _goaway(self, stream_id: int, payload: bytes) -> None:
        """Section 6.8: streams above the last one named were not begun, and may be sent elsewhere."""
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of an impossible length")
        last_id = int.from_bytes(payload[:4], "big") & MAX_STREAM_ID
        streams = self._streams
        streams.leaving = True
        self._application.on_leaving()
        for stream in [stream for stream in streams.open.values() if stream.id > last_id]:
            streams.drop(stream)
            stream.on_lost("GOAWAY received", sent=False)

    def _window_update(self, stream_id: int, payload: bytes) -> None:
        """Section 6.9."""
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of an impossible length")
        increment = int.from_bytes(payload, "big") & MAX_STREAM_ID
        stream: ClientStream[HeadT] | None = None
        if stream_id:
            stream = self._streams.find(stream_id)
            if stream is None:
                return
        code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
        if increment and self._sender.widen(stream, increment, self.now_s):
            return
        if stream is None:
            raise ConnectionFault(code, "WINDOW_UPDATE of nothing, or beyond the largest window")
        self._fault(stream, code)

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.5."""
        check_settings_frame(stream_id, flags, payload)
        streams = self._streams
        if flags & ACK:
            if not streams.settled:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame acknowledges SETTINGS")
            return
        apply_settings(payload, self._sender, cast("Collection[Stream]", streams.open.values()))
        for name, value in read_settings(payload):
            if name == SETTINGS_MAX_CONCURRENT_STREAMS:
                streams.most = value
            elif name == SETTINGS_HEADER_TABLE_SIZE:
                streams.table_bytes = value
        self._sender.frame(SETTINGS_ACK)
        self._sender.pump(self.now_s)
        streams.settled = True
        self._application.on_settings()

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.7; that anything has come is what answers our own."""
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING of an impossible length")
        if not flags & ACK:
            self._sender.frame(ping_frame(payload, ack=True))

    def _fault(self, stream: ClientStream[HeadT], code: ErrorCode) -> None:
        """Reset a stream for what the server did on it (section 5.4.2)."""
        self._streams.reset(stream, code)
        stream.on_reset(code)


def _uncounted(limit: Limit) -> None:
    """Stand in for counting: what limits servers has no metric."""
