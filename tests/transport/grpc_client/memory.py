"""A server's side of a client's connection in memory: frames made by hand, what was sent taken apart."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import hpack

from gateway.transport.grpc_native_client import ClientMemory, ClientOptions, GrpcClient
from tests.transport.http2.peer import Frame, data, frame, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.transport.grpc_native_client_call import UnaryAnswer
    from gateway.transport.grpc_native_client_link import ClientLink

HEAD = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def options(port: int = 1, **more: Any) -> ClientOptions:
    """Return the options of a client that is patient."""
    values: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "path": "/a.B/C",
        "tls": None,
        "server_name": "",
        "connect_timeout_s": 60.0,
        "keepalive_time_s": 600.0,
        "keepalive_timeout_s": 600.0,
        "max_backoff_s": 1.0,
        "max_message_bytes": 1 << 20,
    }
    return ClientOptions(**(values | more))


def message(body: bytes, flag: int = 0) -> bytes:
    """Return a message as gRPC frames it."""
    return struct.pack(">BI", flag, len(body)) + body


class Wire(asyncio.Transport):
    """A socket that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = self.reading_paused = False
        self.unread = 0

    def write(self, data: Any) -> None:
        assert not self.closed, "written after the end"
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Have none."""

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


class Server:
    """What answers one client, by hand. Made in a running loop.

    Attributes:
        client: the client; its connection is up when this was made with `greet`.
        link: its connection.
        wire: what that writes to.
        encoder: of answers' field blocks.
        decoder: of requests' field blocks.
    """

    def __init__(self, *, greet: bool = True, **more: Any) -> None:
        self.client = GrpcClient(options(**more), ClientMemory())
        self.link: ClientLink = self.client.new_link()
        self.wire = Wire()
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self._read = 0
        self.link.connection_made(self.wire)
        if greet:
            assert self.wire.written.startswith(PREFACE)
            self._read = len(PREFACE)
            self.send(settings())
            self.client.use(self.link)
            self.taken()

    def call(
        self, body: bytes = b"hello", timeout_s: float | None = None, metadata: Sequence[tuple[str, str]] = ()
    ) -> asyncio.Task[UnaryAnswer]:
        """Begin a call; it is with the link when the loop has turned once."""
        return asyncio.ensure_future(self.client.call(body, timeout_s, metadata))

    async def called(self, *bodies: bytes) -> list[asyncio.Task[UnaryAnswer]]:
        """Begin calls, until they are sent."""
        calls = [self.call(body) for body in bodies or (b"hello",)]
        await turn()
        return calls

    def send(self, *frames: bytes) -> None:
        """Let the client read frames at once."""
        self.link.data_received(b"".join(frames))

    def fields(self, stream_id: int, fields: Sequence[tuple[str, str]], *, end: bool = False) -> bytes:
        """Return a HEADERS frame."""
        return frame(1, 4 | int(end), stream_id, self.encoder.encode(fields))

    def answer(self, stream_id: int, body: bytes, *, flag: int = 0) -> bytes:
        """Return the frames of a good answer."""
        head = self.fields(stream_id, HEAD)
        return head + data(stream_id, message(body, flag)) + self.fields(stream_id, OK, end=True)

    def taken(self) -> list[Frame]:
        """Return the frames that the client has written since the last time."""
        frames = []
        out = self.wire.written
        while self._read < len(out):
            word, flags, stream_id = struct.unpack_from(">IBI", out, self._read)
            end = self._read + 9 + (word >> 8)
            frames.append(Frame(word & 0xFF, flags, stream_id, out[self._read + 9 : end]))
            self._read = end
        return frames

    def resets(self) -> dict[int, int]:
        """Return the code of each stream that was reset since the last look."""
        return {f.stream_id: int.from_bytes(f.payload, "big") for f in self.taken() if f.kind == 3}


async def turn() -> None:
    """Let tasks that are ready run, and what they make ready."""
    for _ in range(4):
        await asyncio.sleep(0)
