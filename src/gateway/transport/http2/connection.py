"""One HTTP/2 connection of a server (RFC 9113), sans-IO: reads in, streams to the application, pieces out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from gateway.transport.http2.control import Control
from gateway.transport.http2.errors import ConnectionFault, ErrorCode
from gateway.transport.http2.frames import (
    PREFACE,
    SETTINGS_INITIAL_WINDOW_SIZE,
    SETTINGS_MAX_CONCURRENT_STREAMS,
    SETTINGS_MAX_FRAME_SIZE,
    SETTINGS_MAX_HEADER_LIST_SIZE,
    goaway_frame,
    settings_frame,
)
from gateway.transport.http2.incoming import IncomingFrames
from gateway.transport.http2.lifetime import Lifetime
from gateway.transport.http2.limits import Limit
from gateway.transport.http2.reader import FrameReader
from gateway.transport.http2.receive_windows import ReceiveWindows
from gateway.transport.http2.sender import Sender
from gateway.transport.http2.stream_table import StreamTable

if TYPE_CHECKING:
    from gateway.transport.http2.head_memo import HeadMemo
    from gateway.transport.http2.incoming import Application
    from gateway.transport.http2.limits import ConnectionLimits
    from gateway.transport.http2.sender import ResponseTemplate
    from gateway.transport.http2.stream import Stream

HeadT = TypeVar("HeadT")


class Connection(Generic[HeadT]):
    """The state machine of one connection. Not thread-safe, no I/O, no clock.

    The owner hands every read to `receive`, writes what `take` returns after `wake`, calls `check` at the
    times that it asks for, and closes when `fault` is set or `finished` is true.

    Args:
        application: answers requests.
        memo: turns header blocks into what the application wants of them.
        limits: what the client may do.
        now_s: monotonic time.

    Attributes:
        sender: what goes out.
        windows: what may come in.
        table: the streams.
        fault: why the connection is to be closed.
        now_s: monotonic time of the last read or check.
        watch_s: how often `check` is to be called while `watched`.
    """

    __slots__ = (
        "_application",
        "_control",
        "_incoming",
        "_lifetime",
        "_limits",
        "_memo",
        "_opening",
        "_preface",
        "_reader",
        "_started_s",
        "fault",
        "now_s",
        "sender",
        "table",
        "watch_s",
        "windows",
    )

    def __init__(
        self,
        application: Application[HeadT],
        memo: HeadMemo[HeadT],
        limits: ConnectionLimits,
        now_s: float,
    ) -> None:
        self._application = application
        self._memo = memo
        self._limits = limits
        self.watch_s = min(limits.header_timeout_s, limits.body_timeout_s, limits.send_timeout_s) / 4
        self.sender = Sender(application.wake)
        self.table = StreamTable(self.sender)
        self.sender.ended = self.table.end_local
        self.windows = ReceiveWindows(limits, self.sender)
        self._lifetime = Lifetime(limits, self.sender, application.limit_fired, now_s)
        self._control = Control(limits, self.sender, self._lifetime, application.limit_fired, now_s)
        self._incoming = IncomingFrames(
            application,
            memo,
            limits,
            table=self.table,
            sender=self.sender,
            windows=self.windows,
            lifetime=self._lifetime,
            control=self._control,
        )
        self._reader = FrameReader(self._incoming, limits.max_frame_bytes, limits.max_header_block_bytes)
        self._preface = b""
        self._opening = True  # until the client's preface has come
        self._started_s = now_s
        self.now_s = now_s
        self.fault: ConnectionFault | None = None
        self.sender.frame(self._greeting())

    def _greeting(self) -> bytes:
        """Return the server's preface (section 3.4)."""
        limits = self._limits
        settings = {
            SETTINGS_INITIAL_WINDOW_SIZE: self.windows.stream_size,
            SETTINGS_MAX_FRAME_SIZE: limits.max_frame_bytes,
            SETTINGS_MAX_HEADER_LIST_SIZE: limits.max_header_list_bytes,
        }
        if limits.max_streams is not None:
            settings[SETTINGS_MAX_CONCURRENT_STREAMS] = limits.max_streams
        return settings_frame(settings) + self.windows.opening()

    # For the owner

    @property
    def finished(self) -> bool:
        """Whether both sides have said that nothing will follow, and nothing is open."""
        return not self.table.open and (self._lifetime.refusing or self._control.peer_leaves)

    @property
    def watched(self) -> bool:
        """Whether something is under way that must not take for ever."""
        sending = self.sender.unsent_bytes or self.sender.paused
        return bool(sending or self.table.uploading or self._reader.held_s or self._incoming.assembly)

    def receive(self, data: bytes, now_s: float) -> None:
        """Take one read. Never raises for what a client sends: `fault` says what was wrong with it."""
        self.now_s = self._incoming.now_s = self._lifetime.received_s = now_s
        if self.fault is not None:
            return
        try:
            if self._opening:
                data = self._after_preface(data)
            self._reader.feed(data, now_s)
        except ConnectionFault as fault:
            self.fail(fault)

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection: a last GOAWAY is written, nothing more is heard (section 5.4.1)."""
        self.fault = fault.with_traceback(None)  # whose frames know this connection
        self.sender.frame(goaway_frame(self.table.last_id, fault.code, fault.reason.encode()))

    def take(self, now_s: float) -> list[bytes | memoryview]:
        """Return what is to be written now."""
        table = self.table
        if table.half_closed:
            table.reset_half_closed()
        if table.emptied:
            table.emptied = False
            self._lifetime.idle_since_s = now_s
        return self.sender.take()

    def drain(self, now_s: float) -> None:
        """Ask the client to open no more streams; see `Lifetime`. Then `finished` comes true."""
        self._lifetime.drain(now_s)
        if self._opening:
            self._lifetime.refuse(self.table.last_id)

    def check(self, now_s: float) -> float:
        """Do what time demands; return when to call again, at the latest."""
        self.now_s = self._incoming.now_s = now_s
        try:
            self._check_times(now_s)
        except ConnectionFault as fault:
            self.fail(fault)
        next_s = self._lifetime.next_s(idle=not self.table.open)
        if self._opening or not self._control.settled:
            next_s = min(next_s, self._started_s + self._limits.preface_timeout_s)
        return min(next_s, now_s + self.watch_s) if self.watched else next_s

    def close(self) -> None:
        """End everything: the socket is gone."""
        for stream in list(self.table.open.values()):
            self.table.drop(stream)
            stream.on_reset(ErrorCode.CANCEL)
        self._memo.forget()
        # Streams know their connection: what it still knows of them would keep both.
        self.table.half_closed.clear()
        self._reader.forget()

    # For the application

    def respond(
        self, stream: Stream, template: ResponseTemplate, body: tuple[bytes, bytes], trailers: bytes | None
    ) -> None:
        """Send a whole response, now or as the windows allow; see `Sender.respond`."""
        sender = self.sender
        if sender.respond(stream, template, body, trailers):
            self.table.end_local(stream)
            return
        if not self.has_room(len(body[1])):
            self.break_off(stream, ErrorCode.ENHANCE_YOUR_CALM)
            return
        sender.headers(stream, template.head, end_stream=False)
        sender.data(stream, body, self.now_s)
        sender.finish(stream, template.trailers if trailers is None else trailers, self.now_s)

    def refuse(self, stream: Stream, block: bytes) -> None:
        """Answer with a field block alone."""
        self.sender.headers(stream, block, end_stream=True)
        self.table.end_local(stream)

    def has_room(self, size: int) -> bool:
        """Whether the client reads fast enough to be sent more; counts the limit if not."""
        unsent = self.sender.unsent_bytes
        if unsent and unsent + size > self._limits.max_unsent_bytes:
            self._application.limit_fired(Limit.UNSENT)
            return False
        return True

    def break_off(self, stream: Stream, code: ErrorCode) -> None:
        """Reset a stream for reasons of the server's own; `on_reset` is not called."""
        if not stream.local_closed or not stream.remote_closed:
            self.table.reset(stream, code)

    # Bookkeeping

    def _after_preface(self, data: bytes) -> bytes:
        """Return what follows the client's preface (section 3.4), nothing while it is incomplete."""
        data = self._preface + data
        if not data.startswith(PREFACE[: len(data)]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "not HTTP/2")
        if len(data) < len(PREFACE):
            self._preface = data
            return b""
        self._opening, self._preface = False, b""
        return data[len(PREFACE) :]

    def _check_times(self, now_s: float) -> None:
        limits = self._limits
        greeted = self._control.settled and not self._opening
        if not greeted and now_s >= self._started_s + limits.preface_timeout_s:
            self._time_out(Limit.PREFACE_TIMEOUT, "no preface")
        assembly = self._incoming.assembly
        began_s = self._reader.held_s if assembly is None else assembly.began_s
        if began_s and now_s >= began_s + limits.header_timeout_s:
            self._time_out(Limit.HEADER_TIMEOUT, "a frame took too long")
        if self.sender.paused and now_s >= self.sender.paused_s + limits.send_timeout_s:
            self._time_out(Limit.SEND_TIMEOUT, "nothing was read")
        if self._lifetime.check(self.table.last_id, now_s, idle=not self.table.open):
            raise ConnectionFault(ErrorCode.NO_ERROR, "keepalive or age")
        self.windows.top_up()  # abandoned work may have ended unseen, and a client without window is silent
        if self.table.uploading or self.sender.unsent_bytes:
            for stream in list(self.table.open.values()):
                self._check_stream(stream, now_s)

    def _time_out(self, limit: Limit, reason: str) -> None:
        self._application.limit_fired(limit)
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, reason)

    def _check_stream(self, stream: Stream, now_s: float) -> None:
        limits = self._limits
        if stream.unsent_bytes and now_s >= stream.sent_s + limits.send_timeout_s:
            self._application.limit_fired(Limit.SEND_TIMEOUT)
            self.break_off(stream, ErrorCode.CANCEL)
            stream.on_reset(ErrorCode.CANCEL)
        elif stream.upload_s and not stream.remote_closed and self.windows.window > 0:
            allowed_s = limits.body_timeout_s + stream.upload_bytes / limits.min_body_rate
            if now_s >= stream.upload_s + allowed_s:
                self._application.limit_fired(Limit.BODY_TIMEOUT)
                stream.on_late()
