"""One connection of the native gRPC client: an asyncio.Protocol around the sans-IO HTTP/2 core."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol, cast

from gateway.transport.grpc_native_client_fields import AnswerFields
from gateway.transport.http2.client_connection import ClientConnection

if TYPE_CHECKING:
    from gateway.core.calls import Headers
    from gateway.transport.grpc_native_client_call import ClientCall
    from gateway.transport.grpc_native_client_fields import RequestHeads
    from gateway.transport.http2.errors import ErrorCode
    from gateway.transport.http2.head_memo import HeadMemo
    from gateway.transport.http2.limits import ConnectionLimits

_WRITE_HIGH_BYTES: Final = 512 * 1024
_WRITE_LOW_BYTES: Final = 128 * 1024
_READ_PAUSE_BYTES: Final = 4 * 1024 * 1024  # of answers to control frames that a server does not read
_LINGER_S: Final = 1.0  # for the last frames to go out
_ALPN: Final = "h2"


class LinkOwner(Protocol):
    """Whose connection it is; called synchronously."""

    def on_made(self, link: ClientLink) -> None:
        """Hear that the link has a socket, until `on_gone`."""

    def on_room(self, link: ClientLink) -> None:
        """Hear that a further call may find room on the link."""

    def on_leaving(self, link: ClientLink) -> None:
        """Hear that the link takes no further call; repeated."""

    def on_gone(self, link: ClientLink) -> None:
        """Hear that the link's socket is closed."""


class ClientLink(asyncio.Protocol):
    """Reads into the core, writes what it gives once per turn of the loop, keeps its time.

    Args:
        owner: whose it is.
        memo: of answers' field blocks.
        heads: of requests.
        limits: windows, sizes and keepalive times.

    Attributes:
        connection: the core; valid once connected.
        settled: done when the server's SETTINGS have come, failed with ConnectionError if they never do.
    """

    __slots__ = (
        "_flushing",
        "_gone",
        "_heads",
        "_limits",
        "_loop",
        "_memo",
        "_owner",
        "_timer",
        "_transport",
        "connection",
        "settled",
    )

    connection: ClientConnection[AnswerFields]

    def __init__(
        self, owner: LinkOwner, memo: HeadMemo[AnswerFields], heads: RequestHeads, limits: ConnectionLimits
    ) -> None:
        self._owner = owner
        self._memo = memo
        self._heads = heads
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self.settled: asyncio.Future[None] = self._loop.create_future()
        self._flushing = True  # or about to
        self._gone = False  # nothing more is written
        self._timer: asyncio.TimerHandle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the server."""
        self._transport = cast("asyncio.Transport", transport)
        self._owner.on_made(self)
        self.connection = ClientConnection(self, self._memo, self._limits, time.monotonic())
        secured = transport.get_extra_info("ssl_object")
        if secured is not None and secured.selected_alpn_protocol() != _ALPN:
            # RFC 9113 section 3.2: over TLS the protocol is agreed on by ALPN.
            self._end("it does not speak HTTP/2 over TLS")
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(_WRITE_HIGH_BYTES, _WRITE_LOW_BYTES)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take one read, and write what it made."""
        if self._gone:
            return
        self._flushing = True
        self.connection.receive(data, time.monotonic())
        self._flush()

    def pause_writing(self) -> None:
        """Keep DATA back."""
        self.connection.sender.pause(time.monotonic())

    def resume_writing(self) -> None:
        """Go on."""
        self.connection.sender.paused = False
        self._transport.resume_reading()
        self._flush()

    def eof_received(self) -> bool:
        """Close: a server that has stopped sending answers nothing any more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail every call that is under way."""
        self._end("Socket closed" if exc is None else f"Socket closed: {exc}")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._owner.on_gone(self)

    # For the core

    def wake(self) -> None:
        """Write before the loop's next turn; what others add until then goes with it."""
        if not self._flushing and not self._gone:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def on_settings(self) -> None:
        """Take the size of the server's HPACK table, and offer room."""
        self._heads.resize(self.connection.streams.table_bytes)
        if not self.settled.done():
            self.settled.set_result(None)
        self._owner.on_room(self)

    def on_leaving(self) -> None:
        """Tell the owner."""
        self._owner.on_leaving(self)

    # For calls and the owner

    def check_usable(self) -> None:
        """See whether calls can be started, now or when others have ended.

        Raises:
            ConnectionError: they cannot.
        """
        if self._gone or self.connection.streams.leaving:
            raise ConnectionError("Socket closed")

    @property
    def has_room(self) -> bool:
        """Whether a call can be started."""
        return not self._gone and self.connection.streams.has_room

    def start(self, call: ClientCall, timeout_s: float | None, metadata: Headers) -> None:
        """Send a call; there must be room.

        Raises:
            ValueError: its metadata cannot be sent; nothing was.
        """
        block = self._heads.block(timeout_s, metadata)
        connection = self.connection
        now_s = time.monotonic()
        connection.request(call, block, call.begin(self, connection.next_id()), now_s)
        if self._timer is None:
            self._watch(connection.check(now_s) - now_s)

    def reset(self, call: ClientCall, code: ErrorCode) -> None:
        """Tell the server that a call is not waited for; harmless at its end."""
        self.connection.streams.reset(call, code)

    def ended(self) -> None:
        """Hear that a call has ended."""
        if not self._gone:
            self._owner.on_room(self)

    def abort(self, reason: str) -> None:
        """Close now; calls under way fail."""
        self._end(reason)
        self._transport.abort()

    def _flush(self) -> None:
        """Write everything that is ready; close if that was the last of it."""
        if self._gone:
            return
        transport, connection = self._transport, self.connection
        sender = connection.sender
        while True:
            self._flushing = True
            out = sender.take()
            if out:
                transport.write(out[0] if len(out) == 1 else b"".join(out))
            if not sender.unsent_bytes or sender.paused:
                break
            sender.pump(time.monotonic())
            if not sender.out:
                break
        self._flushing = False
        if connection.fault is not None:
            self._end(connection.fault.reason)
        elif connection.finished:
            self._end("")
        elif sender.paused and transport.get_write_buffer_size() > _READ_PAUSE_BYTES:
            transport.pause_reading()

    def _end(self, reason: str) -> None:
        """Fail what is under way and close, once; what was written may still go out for a moment."""
        if self._gone:
            return
        self._gone = True
        if not self.settled.done():
            self.settled.set_exception(ConnectionError(reason))
            self.settled.exception()  # seen: nobody may be waiting any more
        self._owner.on_leaving(self)
        self.connection.close(reason)
        self._transport.close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_LINGER_S, self._transport.abort)

    def _watch(self, delay_s: float) -> None:
        self._timer = self._loop.call_later(max(0.001, delay_s), self._check)

    def _check(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        self._flushing = True
        next_s = self.connection.check(now_s)
        self._flush()
        if not self._gone and self.connection.streams.open:
            self._watch(next_s - now_s)
