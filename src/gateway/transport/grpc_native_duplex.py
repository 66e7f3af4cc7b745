"""Bidirectional gRPC calls for threads, without an event loop: each has a thread that mostly sleeps."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from gateway.transport.blocking_connect import UNIX, connected
from gateway.transport.grpc_native_duplex_call import DuplexConnection
from gateway.transport.grpc_native_status import CANCELLED, INTERNAL, code_name
from gateway.transport.nonblocking_socket import NonblockingSocket

if TYPE_CHECKING:
    from gateway.core.duplex import DuplexListener, DuplexTarget

_log: Final = logging.getLogger(__name__)

_JOIN_S: Final = 1.0  # for a listener that is at work just then; the thread itself never waits long
_NO_BYTES: Final = memoryview(b"")


def open_duplex(target: DuplexTarget, listener: DuplexListener) -> GrpcDuplex:
    """Connect and begin a call; an `OpenDuplex`.

    Raises:
        OSError: there is no connection; the text says to where, and why.
        ValueError: the metadata cannot be sent.
    """
    connection = DuplexConnection(
        _fields(target),
        target.metadata,
        "http" if target.tls is None else "https",
        target.max_message_bytes,
        time.monotonic(),
    )
    wire = NonblockingSocket(connected(target))
    try:
        call = GrpcDuplex(wire, connection, listener)
        call.start()
    except OSError:
        wire.close()
        raise
    return call


def _fields(target: DuplexTarget) -> list[tuple[str, str]]:
    """Return what the request's head has besides method, scheme and metadata."""
    unix = target.address.startswith(UNIX)
    return [
        (":path", target.path),
        (":authority", "localhost" if unix else target.server_name or target.address),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "model-gateway"),
        ("grpc-accept-encoding", "identity"),
    ]


class GrpcDuplex:
    """A `Duplex`.

    Any thread writes what the socket takes at once, under the lock; the rest is written by the call's own
    thread, which also reads, and tells the listener outside the lock. It waits for the socket and for a wake,
    without a time.

    Args:
        wire: connected; owned by the call once started.
        connection: nothing of it was written yet.
        listener: of what comes.

    Attributes:
        thread: the call's own; `_thread` would be a keyword of C once compiled.
    """

    def __init__(
        self, wire: NonblockingSocket, connection: DuplexConnection, listener: DuplexListener
    ) -> None:
        self._wire = wire
        self._connection = connection
        self._listener = listener
        self._lock = threading.Lock()
        self._unwritten = _NO_BYTES
        self._fault = ""  # of writing; what the server said before is still to be read
        self._watched = False  # the thread is about to look whether more can be written
        self._more = False  # TLS has more to read
        self._closing = False
        self._gone = False
        self._waker, self._wakes = socket.socketpair()
        self._waker.setblocking(False)
        self._wakes.setblocking(False)
        self.thread = threading.Thread(target=self._run, name="grpc-duplex", daemon=True)

    def start(self) -> None:
        """Begin; called once.

        Raises:
            OSError: there is no thread to be had.
        """
        try:
            with self._lock:
                self._write()
            self.thread.start()
        except RuntimeError as error:
            self._let_go()
            raise OSError(str(error)) from error

    def send(self, message: bytes) -> None:
        """Send a message, at once or as the server takes it; never blocks.

        Raises:
            ConnectionError: the call has ended, or `end` was called.
        """
        with self._lock:
            if self._closing:
                raise ConnectionError("the call was closed")
            self._connection.send(message, time.monotonic())
            self._write_soon()

    def end(self) -> None:
        """Say that no further message comes."""
        with self._lock:
            if not self._closing:
                self._connection.end(time.monotonic())
                self._write_soon()

    def close(self) -> None:
        """Reset the stream, if it is open, and let go; the listener hears nothing after this."""
        with self._lock:
            closed, self._closing = self._closing, True
            if not closed:
                self._connection.fail(CANCELLED, "closed here")
                self._write()
                self._wake()
        if self.thread is not threading.current_thread():
            self.thread.join(_JOIN_S)

    # Under the lock

    def _write_soon(self) -> None:
        """Write what can be now; have the thread write the rest, or look at what is wrong."""
        self._write()
        if self._fault or (self._unwritten and not self._watched):
            self._watched = True
            self._wake()

    def _write(self) -> None:
        try:
            while not self._fault and not self._gone:
                if not self._unwritten:
                    self._unwritten = memoryview(self._connection.take(time.monotonic()))
                taken = self._wire.write(self._unwritten) if self._unwritten else 0
                if not taken:
                    return
                self._unwritten = self._unwritten[taken:]
        except OSError as error:
            self._fault = f"Socket closed: {error}"
            self._unwritten = _NO_BYTES

    def _read(self) -> None:
        """Take one read, or that there will be none."""
        try:
            data = self._wire.read()
        except OSError as error:
            self._connection.lose(f"Socket closed: {error}")
            return
        if data:
            self._connection.receive(data, time.monotonic())
        elif data is not None:
            self._connection.lose("Socket closed")
        elif self._fault:
            self._connection.lose(self._fault)
        self._more = self._wire.pending

    def _wake(self) -> None:
        if not self._gone:
            with contextlib.suppress(BlockingIOError):  # full: it is awake
                self._waker.send(b"\0")

    # The thread

    def _run(self) -> None:
        try:
            poller = select.poll()
            poller.register(self._wakes, select.POLLIN)
            poller.register(self._wire, select.POLLIN)
            while self._turn():
                self._wait(poller)
        finally:
            self._let_go()

    def _wait(self, poller: select.poll) -> None:
        """Sleep until there is something to do."""
        with self._lock:
            self._watched = bool(self._unwritten)
            output = self._watched or self._wire.reads_on_output
            at_once = self._more or bool(self._fault)
        poller.modify(self._wire, select.POLLIN | (select.POLLOUT if output else 0))
        ready = poller.poll(0 if at_once else None)
        if self._wakes.fileno() in [descriptor for descriptor, _ in ready]:
            self._wakes.recv(64)

    def _turn(self) -> bool:
        """Read and write once, and tell the listener; return whether the call goes on."""
        with self._lock:
            if self._closing:
                return False
            self._read()
            self._write()
            messages = self._connection.received()
        self._tell(messages)
        status = self._connection.status
        if status is not None and not self._closing:
            self._listener.on_end(code_name(status.code), status.message)
        return status is None

    def _tell(self, messages: list[bytes]) -> None:
        """Hand messages to the listener; one that it cannot take ends the call."""
        try:
            for message in messages:
                if not self._closing:
                    self._listener.on_message(message)
        except Exception:  # noqa: BLE001 - whatever it is, the call ends and says so
            _log.exception("duplex_message_failed")
            with self._lock:
                self._connection.fail(INTERNAL, "a message could not be taken")
                self._write()

    def _let_go(self) -> None:
        with self._lock:
            self._gone = True
            self._unwritten = _NO_BYTES
            self._connection.lose("the call was closed")
            self._wire.close()
            self._waker.close()
            self._wakes.close()
