"""Both ends of a bidirectional call: who listens, a real gRPC server, a server made by hand."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import hpack

from gateway.core.duplex import DuplexTarget
from tests.transport.http2.peer import Frame, frame, settings, window_update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

PATIENCE_S = 20.0
PATH = "/a.B/C"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = [(":status", "200"), ("content-type", "application/grpc")]
END_STREAM = 1
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
WIDE = settings(w=2**31 - 1) + window_update(0, 2**30)


def target(address: str, **changes: Any) -> DuplexTarget:
    return replace(DuplexTarget(address=address, path=PATH, connect_timeout_s=PATIENCE_S), **changes)


def message(body: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(body)) + body


class Heard:
    """A listener that keeps what it hears, and waits for it.

    Attributes:
        take: called with each message, if it is set.
    """

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.end: tuple[str, str] | None = None
        self.take: Callable[[bytes], object] = len
        self._changed = threading.Condition()

    def on_message(self, message: bytes) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()
        self.take(message)

    def on_end(self, code: str, details: str) -> None:
        with self._changed:
            assert self.end is None
            self.end = code, details
            self._changed.notify_all()

    def wait_for_messages(self, count: int) -> list[bytes]:
        with self._changed:
            self._changed.wait_for(lambda: len(self.messages) >= count or self.end, PATIENCE_S)
            assert len(self.messages) >= count, self.end
            return self.messages

    def wait_for_end(self) -> tuple[str, str]:
        with self._changed:
            self._changed.wait_for(lambda: self.end, PATIENCE_S)
            assert self.end is not None
            return self.end


@contextlib.contextmanager
def grpc_server(
    method: Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]],
    address: str,
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[tuple[grpc.Server, int]]:
    """Serve one method with the C core; give the server and its port."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(4), options=options)
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(method)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"C": handler}),))
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    yield server, port
    server.stop(None).wait(PATIENCE_S)


class HandServer:
    """One connection of a server that a test plays itself.

    Args:
        connection: blocking, with PATIENCE_S.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.encoder = hpack.Encoder()
        self._unread = b""
        self._data = bytearray()

    def send(self, *parts: bytes) -> None:
        self.connection.sendall(b"".join(parts))

    def fields(self, fields: Sequence[tuple[str, str]], *, end: bool = False) -> bytes:
        """Return a HEADERS frame."""
        return frame(HEADERS, 4 | int(end), 1, self.encoder.encode(list(fields)))

    def head(self) -> bytes:
        return self.fields(HEAD)

    def status(self, code: int, text: str = "") -> bytes:
        return self.fields([("grpc-status", str(code)), ("grpc-message", text)], end=True)

    def read(self, size: int) -> bytes:
        while len(self._unread) < size:
            read = self.connection.recv(1 << 16)
            assert read, "the client has closed"
            self._unread += read
        found, self._unread = self._unread[:size], self._unread[size:]
        return found

    def frame(self) -> Frame:
        """Read the next frame."""
        word, flags, stream_id = struct.unpack(">IBI", self.read(9))
        return Frame(word & 0xFF, flags, stream_id, self.read(word >> 8))

    def frame_of(self, kind: int, flags: int = 0) -> Frame:
        """Read up to the next frame of a kind that has these flags."""
        while True:
            found = self.frame()
            if found.kind == kind and found.flags & flags == flags:
                return found

    def greet(self, greeting: bytes = WIDE) -> None:
        """Begin as a server does; the client has taken it when this returns."""
        assert self.read(len(PREFACE)) == PREFACE
        self.send(greeting)
        self.frame_of(SETTINGS, flags=1)

    def data(self, size: int) -> bytes:
        """Read so many bytes of DATA; what a frame has beyond them is for the next time."""
        while len(self._data) < size:
            self._data += self.frame_of(DATA).payload
        found = bytes(self._data[:size])
        del self._data[:size]
        return found

    def rest(self) -> list[Frame]:
        """Read whole frames up to where the client closes."""
        frames = []
        with contextlib.suppress(ConnectionResetError):  # it had not read all
            while read := self.connection.recv(1 << 16):
                self._unread += read
        while len(self._unread) >= 9 and len(self._unread) >= 9 + int.from_bytes(self._unread[:3], "big"):
            frames.append(self.frame())
        return frames


class Listening:
    """A Unix socket on which a test plays the server."""

    def __init__(self, folder: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "s"))
        self._listener.listen()
        self.address = f"unix:{folder / 's'}"

    def accept(self) -> HandServer:
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE_S)
        return HandServer(connection)

    def close(self) -> None:
        self._listener.close()
