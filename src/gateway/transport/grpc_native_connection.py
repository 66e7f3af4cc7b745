"""One connection of the native gRPC server: an asyncio.Protocol around the sans-IO HTTP/2 core."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeVar, cast

from gateway.transport.grpc_native_call import NativeCall, UnaryCall
from gateway.transport.grpc_native_stream import StreamCall
from gateway.transport.grpc_native_tls import ALPN
from gateway.transport.http2.connection import Connection
from gateway.transport.http2.limits import Limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.transport.grpc_native_head import CallHead
    from gateway.transport.grpc_native_server_state import ServerState

_T = TypeVar("_T")

_WRITE_HIGH_BYTES: Final = 512 * 1024
_WRITE_LOW_BYTES: Final = 128 * 1024
_READ_PAUSE_BYTES: Final = 4 * 1024 * 1024  # of answers to control frames that a client does not read


class _Application:
    """What the core sees of its connection, until the socket is gone.

    A cycle through both would be left to a full collection, which the server makes rarely: thousands of
    connections that came and went would stay in memory.
    """

    __slots__ = ("_link", "open")

    def __init__(self, link: GrpcConnection) -> None:
        self._link: GrpcConnection | None = link
        self.open: Callable[[int, CallHead], NativeCall] = link.open

    def wake(self) -> None:
        """See `GrpcConnection.wake`."""
        if self._link is not None:
            self._link.wake()

    def limit_fired(self, limit: Limit) -> None:
        """See `GrpcConnection.limit_fired`."""
        if self._link is not None:
            self._link.limit_fired(limit)

    def let_go(self) -> None:
        """Know the connection no more: nothing is received from it, and what is sent goes nowhere."""
        self._link = None
        self.open = _closed


def _closed(stream_id: int, _: CallHead) -> NativeCall:
    raise RuntimeError(f"stream {stream_id} of a connection that is gone")


class GrpcConnection(asyncio.Protocol):
    """Reads into the core, writes what it gives once per turn of the loop, keeps its time.

    Args:
        state: of the server.

    Attributes:
        state: of the server.
        loop: the running loop.
        connection: the core; valid once connected.
        peer: address of the client.
    """

    __slots__ = (
        "_application",
        "_due_s",
        "_flushing",
        "_leaving",
        "_paused",
        "_timer",
        "_transport",
        "connection",
        "loop",
        "peer",
        "state",
    )

    connection: Connection[CallHead]

    def __init__(self, state: ServerState) -> None:
        self.state = state
        self.loop = asyncio.get_running_loop()
        self.peer = ""
        self._flushing = True  # or about to
        self._leaving = False  # nothing more is written
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client, or close a connection too many."""
        self._transport = cast("asyncio.Transport", transport)
        self.peer = _peer(self._transport.get_extra_info("peername"))
        now_s = time.monotonic()
        state = self.state
        self._application = _Application(self)
        self.connection = Connection(self._application, state.memo(), state.limits, now_s)
        if not self._is_welcome():
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(_WRITE_HIGH_BYTES, _WRITE_LOW_BYTES)
        state.connections.add(self)
        state.empty.clear()
        self._flush()
        self._watch(self.connection.check(now_s))

    def _is_welcome(self) -> bool:
        state, most = self.state, self.state.options.max_connections
        if most is not None and len(state.connections) >= most:
            state.limit_fired(Limit.CONNECTIONS)
            return False
        # RFC 9113 section 3.2: over TLS the protocol is agreed on by ALPN.
        secured = self._transport.get_extra_info("ssl_object")
        return secured is None or secured.selected_alpn_protocol() == ALPN

    def data_received(self, data: bytes) -> None:
        """Take one read, and write what it made."""
        connection = self.connection
        if self._leaving:
            return
        self._flushing = True
        connection.receive(data, time.monotonic())
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
        """Close: a client that has stopped sending cannot take part in flow control any more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it is gone, however
        """Give up every call."""
        self._leaving = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        state = self.state
        if self in state.connections:
            state.connections.discard(self)
            if not state.connections:
                state.empty.set()
        self.connection.close()
        self.connection.sender.ended = _forget
        self._application.let_go()

    # For the core

    def open(self, stream_id: int, head: CallHead) -> NativeCall:
        """Return the call that a request begins."""
        if head.stream is None:
            return UnaryCall(stream_id, head, self)
        return StreamCall(stream_id, head, self, head.stream)

    def limit_fired(self, limit: Limit) -> None:
        """Count a limit that the client met."""
        self.state.limit_fired(limit)

    def wake(self) -> None:
        """Write before the loop's next turn; what others add until then goes with it."""
        if not self._flushing and not self._leaving:
            self._flushing = True
            self.loop.call_soon(self._flush)

    # For calls and the server

    def in_thread(self, work: Callable[[], _T], then: Callable[[asyncio.Future[_T]], None]) -> None:
        """Run `work` in a thread and `then` with its future on the loop."""
        future = self.loop.run_in_executor(None, work)
        future.add_done_callback(then)

    def drain(self) -> None:
        """Ask the client to go; the connection closes when its calls are done."""
        if self._leaving:
            self._transport.abort()
        else:
            self.connection.drain(time.monotonic())
            self._flush()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def _flush(self) -> None:
        """Write everything that is ready; close if that was the last of it."""
        transport, connection = self._transport, self.connection
        if self._leaving:
            return
        now_s = time.monotonic()
        while True:
            self._flushing = True
            out = connection.take(now_s)
            if out:
                transport.write(out[0] if len(out) == 1 else b"".join(out))
            if not connection.sender.unsent_bytes or connection.sender.paused:
                break
            connection.sender.pump(now_s)
            if not connection.sender.out:
                break
        self._flushing = False
        if connection.watched and self._due_s > now_s + connection.watch_s:
            self._watch(now_s + connection.watch_s)
        if connection.fault is not None:
            self._say_goodbye()
        elif connection.finished:
            self._leaving = True
            transport.close()
        elif connection.sender.paused and transport.get_write_buffer_size() > _READ_PAUSE_BYTES:
            transport.pause_reading()

    def _say_goodbye(self) -> None:
        """Close so that the client sees why: what it still sends is read and dropped for a while."""
        self._leaving = True
        transport = self._transport
        if transport.is_closing():
            return
        self.connection.close()
        if transport.can_write_eof():
            transport.write_eof()
            self._set_timer(self.state.options.http2.linger_s, transport.abort)
        else:
            transport.close()

    def _watch(self, when_s: float) -> None:
        self._due_s = when_s
        self._set_timer(max(0.001, when_s - time.monotonic()), self._check)

    def _set_timer(self, delay_s: float, callback: Callable[[], object]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(delay_s, callback)

    def _check(self) -> None:
        self._timer = None
        self._flushing = True
        next_s = self.connection.check(time.monotonic())
        self._flush()
        if not self._leaving:
            self._watch(next_s)


def _forget(stream: object) -> None:
    """Stand in for the end of a stream on a connection that is gone."""


def _peer(address: object) -> str:
    """Return an address as gRPC writes it."""
    if not isinstance(address, tuple):
        return "unknown"
    host, port = address[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
