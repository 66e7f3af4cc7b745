"""One HTTP/2 connection of a client (RFC 9113), sans-IO: requests in, frames out, responses to streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from gateway.transport.http2.client_incoming import ClientApplication, ClientFrames
from gateway.transport.http2.client_keepalive import ClientKeepalive
from gateway.transport.http2.client_sender import RequestSender
from gateway.transport.http2.client_streams import ClientStreams
from gateway.transport.http2.errors import ConnectionFault, ErrorCode
from gateway.transport.http2.frames import (
    PREFACE,
    SETTINGS_ENABLE_PUSH,
    SETTINGS_INITIAL_WINDOW_SIZE,
    SETTINGS_MAX_FRAME_SIZE,
    SETTINGS_MAX_HEADER_LIST_SIZE,
    goaway_frame,
    ping_frame,
    settings_frame,
)
from gateway.transport.http2.reader import FrameReader
from gateway.transport.http2.receive_windows import ReceiveWindows

if TYPE_CHECKING:
    from gateway.transport.http2.client_stream import ClientStream
    from gateway.transport.http2.head_memo import HeadMemo
    from gateway.transport.http2.limits import ConnectionLimits

HeadT = TypeVar("HeadT")

_KEEPALIVE_PING: Final = b"keepaliv"


class ClientConnection(Generic[HeadT]):
    """The state machine of one connection. Not thread-safe, no I/O, no clock.

    The owner hands every read to `receive`, writes what `sender` collects, calls `check` at the times that
    it asks for, and closes when `fault` is set or `finished` is true.

    Args:
        application: sends requests.
        memo: turns header blocks into what the application wants of them.
        limits: windows, sizes and keepalive times; its other fields bound what clients do.
        now_s: monotonic time.

    Attributes:
        sender: what goes out.
        windows: what may come in.
        streams: the requests under way.
        fault: why the connection is to be closed.
    """

    __slots__ = (
        "_application",
        "_frames",
        "_keepalive",
        "_memo",
        "_reader",
        "fault",
        "sender",
        "streams",
        "windows",
    )

    def __init__(
        self,
        application: ClientApplication,
        memo: HeadMemo[HeadT],
        limits: ConnectionLimits,
        now_s: float,
    ) -> None:
        self._application = application
        self._memo = memo
        self.sender = RequestSender(application.wake)
        self.windows = ReceiveWindows(limits, self.sender)
        self.streams: ClientStreams[HeadT] = ClientStreams(self.sender)
        self._keepalive = ClientKeepalive(limits.keepalive_time_s, limits.keepalive_timeout_s, now_s)
        self._frames = ClientFrames(
            application,
            memo,
            limits,
            streams=self.streams,
            sender=self.sender,
            windows=self.windows,
            keepalive=self._keepalive,
        )
        self._reader = FrameReader(self._frames, limits.max_frame_bytes, limits.max_header_block_bytes)
        self.fault: ConnectionFault | None = None
        self.sender.frame(self._greeting(limits))

    def _greeting(self, limits: ConnectionLimits) -> bytes:
        """Return the client's preface (section 3.4)."""
        settings = {
            SETTINGS_ENABLE_PUSH: 0,
            SETTINGS_INITIAL_WINDOW_SIZE: self.windows.stream_size,
            SETTINGS_MAX_FRAME_SIZE: limits.max_frame_bytes,
            SETTINGS_MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
        }
        return PREFACE + settings_frame(settings) + self.windows.opening()

    @property
    def finished(self) -> bool:
        """Whether nothing is under way and nothing further can be."""
        return self.streams.leaving and not self.streams.open

    def next_id(self) -> int:
        """Return the identifier of the next request, to be used at once; `streams.has_room` must be true."""
        streams = self.streams
        streams.last_id += 2
        if streams.used_up:
            streams.leaving = True
            self._application.on_leaving()
        return streams.last_id

    def request(
        self, stream: ClientStream[HeadT], block: bytes, body: tuple[bytes, bytes], now_s: float
    ) -> None:
        """Send a whole request, now or as the windows allow; see `RequestSender.request`."""
        streams = self.streams
        if not streams.open:
            self._keepalive.busy_s = now_s
        streams.open[stream.id] = stream
        self.sender.request(stream, block, body, now_s)

    def begin(self, stream: ClientStream[HeadT], block: bytes, now_s: float) -> None:
        """Send the head of a request whose DATA follows by `sender.data`, and its end by `sender.finish`."""
        streams = self.streams
        if not streams.open:
            self._keepalive.busy_s = now_s
        streams.open[stream.id] = stream
        self.sender.headers(stream, block, end_stream=False)

    def receive(self, data: bytes, now_s: float) -> None:
        """Take one read. Never raises for what a server sends: `fault` says what was wrong with it."""
        self._keepalive.received_s = self._frames.now_s = now_s
        if self.fault is not None:
            return
        try:
            self._reader.feed(data, now_s)
        except ConnectionFault as fault:
            self.fail(fault)

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection: a last GOAWAY is written, nothing more is heard (section 5.4.1)."""
        self.fault = fault.with_traceback(None)  # whose frames know this connection
        self.sender.frame(goaway_frame(0, fault.code, fault.reason.encode()))

    def check(self, now_s: float) -> float:
        """Ping a server that is silent while requests are under way.

        Returns:
            When to call again, monotonic time; infinite: not before there is a request.
        """
        busy = bool(self.streams.open)
        keepalive = self._keepalive
        if busy and keepalive.is_lost(now_s):
            self.fail(ConnectionFault(ErrorCode.NO_ERROR, "keepalive: a ping was not answered"))
            return float("inf")
        if busy and keepalive.should_ping(now_s):
            self.sender.frame(ping_frame(_KEEPALIVE_PING, ack=False))
        return keepalive.next_s(now_s, busy=busy)

    def close(self, reason: str) -> None:
        """End everything: the socket is gone."""
        self.streams.leaving = True
        for stream in list(self.streams.open.values()):
            self.streams.drop(stream)
            stream.on_lost(reason, sent=True)
        self._memo.forget()
        self._reader.forget()
