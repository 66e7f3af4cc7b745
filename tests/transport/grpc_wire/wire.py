"""Raw HTTP/2 conversations for tests: bytes out, and what each stream was answered."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from hpack import Decoder

from tests.transport.grpc_wire.frames import (
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    GREETING,
    SETTINGS_ACK,
    Code,
    Flag,
    Setting,
    Type,
    data,
    ping,
    whole_call,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 20
"""How long tests wait for what must come; it bounds hangs alone, and is no expectation."""


@dataclass
class Answer:
    """What one stream has received.

    Attributes:
        headers: fields of the response's first header block, trailers-only responses too.
        trailers: fields of its last block.
        body: bytes of its DATA frames.
        frames: how many of those there were.
        reset: error code of its RST_STREAM, or None.
        ended: whether it has ended in order.
        window: the last increment of the window that the server granted, all of them together.
    """

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    frames: int = 0
    reset: int | None = None
    ended: bool = False
    window: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing more can come."""
        return self.ended or self.reset is not None

    @property
    def grpc_status(self) -> int | None:
        value = self.trailers.get("grpc-status")
        return None if value is None else int(value)

    def messages(self) -> list[bytes]:
        """Cut the body into uncompressed gRPC messages."""
        found, rest = [], bytes(self.body)
        while rest:
            compressed, size = struct.unpack_from(">BI", rest)
            assert not compressed
            found.append(rest[5 : 5 + size])
            assert len(found[-1]) == size
            rest = rest[5 + size :]
        return found


class Wire:
    """A client connection that sends exactly the bytes it is told to and understands what comes.

    Attributes:
        answers: by stream.
        settings: values of the server's SETTINGS so far.
        greeted: whether there was one.
        acks: how many SETTINGS the server has acknowledged.
        pongs: payloads of the PINGs it has answered.
        pings: how many it has sent.
        goaways: last stream and code of each GOAWAY, in order.
        debug: the last one's debug data.
        closed: whether the server has closed the connection.
        window: what it has granted for the connection beyond the initial window.
        largest_frame: size of its largest DATA frame.
        sent_bytes: how much was sent.
        polite: whether its PINGs and SETTINGS are acknowledged; not while half a frame is sent.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = Decoder()
        self._fragments: dict[int, bytes] = {}
        self._changed = asyncio.Event()
        self._problem: Exception | None = None
        self._reading = asyncio.ensure_future(self._read())
        self.answers: dict[int, Answer] = {}
        self.settings: dict[int, int] = {}
        self.greeted = False
        self.acks = 0
        self.pongs: list[bytes] = []
        self.pings = 0
        self.goaways: list[tuple[int, int]] = []
        self.debug = b""
        self.closed = False
        self.window = 0
        self.largest_frame = 0
        self.sent_bytes = 0
        self._uploaded = 0
        self.polite = True

    @classmethod
    async def open(cls, port: int, greeting: bytes = GREETING, *, polite: bool = True) -> Wire:
        wire = cls(*await asyncio.open_connection("127.0.0.1", port))
        wire.polite = polite
        wire.send(greeting)
        return wire

    def send(self, raw: bytes) -> None:
        self.sent_bytes += len(raw)
        if not self._writer.transport.is_closing():
            self._writer.write(raw)

    async def drain(self) -> None:
        """Wait until the kernel has taken what was sent, or the server has gone."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def stop_reading(self) -> None:
        """Read nothing more; what has come is understood."""
        self._reading.cancel()

    async def upload(self, stream_id: int, body: bytes, *, end: bool = True) -> int:
        """Send a body within the windows that the server grants; return how much went before the answer."""
        answer = self.answer_of(stream_id)
        await self.until(lambda: self.greeted)
        sent = 0
        while sent < len(body) and not answer.over and not self.closed:
            await self.until(partial(self._may_upload, stream_id, sent))
            size = min(self._room(stream_id, sent), DEFAULT_FRAME_SIZE)
            if size > 0 and not answer.over:
                self.send(data(stream_id, body[sent : sent + size], end=end and sent + size >= len(body)))
                self._uploaded += min(size, len(body) - sent)
                sent += size
                await self.drain()
        return min(sent, len(body))

    def _may_upload(self, stream_id: int, sent: int) -> bool:
        return self._room(stream_id, sent) > 0 or self.answer_of(stream_id).over

    def _room(self, stream_id: int, sent: int) -> int:
        initial = self.settings.get(Setting.INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
        stream = initial + self.answer_of(stream_id).window - sent
        connection = DEFAULT_WINDOW + self.window - self._uploaded
        return min(stream, connection)

    def half_close(self) -> None:
        self._writer.write_eof()

    def close(self) -> None:
        self._reading.cancel()
        self._writer.transport.abort()

    def answer_of(self, stream_id: int) -> Answer:
        return self.answers.setdefault(stream_id, Answer())

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds or the connection is closed."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds() and not self.closed:
                self._changed.clear()
                await self._changed.wait()
        if self._problem is not None:
            raise self._problem

    async def answer(self, stream_id: int) -> Answer:
        """Return what a stream was answered, when nothing more can come."""
        found = self.answer_of(stream_id)
        await self.until(lambda: found.over)
        return found

    async def end(self) -> int | None:
        """Wait for the server to close the connection; return the code of its last GOAWAY."""
        await self.until(lambda: False)
        return self.goaways[-1][1] if self.goaways else None

    async def pong(self, payload: bytes = b"barrier.") -> None:
        """Send a PING and wait for its answer: everything sent before has been looked at by then."""
        self.send(ping(payload))
        await self.until(lambda: payload in self.pongs)
        assert not self.closed, f"closed with {self.goaways} {self.debug!r}"
        self.pongs.remove(payload)

    async def echo(self, stream_id: int, payload: bytes = b"still served") -> None:
        """Assert that a call is answered."""
        self.send(whole_call(stream_id, payload))
        answer = await self.answer(stream_id)
        assert (answer.grpc_status, answer.messages()) == (0, [payload]), self.described()

    def described(self) -> str:
        """Return all that was received, for messages of assertions."""
        return f"{self.answers} goaways={self.goaways} {self.debug!r} closed={self.closed}"

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._on_frame(head, payload)
                self._changed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as problem:  # noqa: BLE001 - raised where the test waits
            self._problem = problem
        self.closed = True
        self._changed.set()

    def _on_frame(self, head: bytes, payload: bytes) -> None:
        flags, stream_id = head[4], int.from_bytes(head[5:], "big")
        handler = _HANDLERS.get(head[3])
        assert handler is not None, f"frame of type {head[3]} from a server"
        handler(self, flags, stream_id, payload)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        answer = self.answer_of(stream_id)
        assert not answer.ended, "DATA after the end"
        if flags & Flag.PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        answer.body += payload
        self.largest_frame = max(self.largest_frame, len(payload))
        answer.frames += 1
        answer.ended = bool(flags & Flag.END_STREAM)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        assert not flags & (Flag.PADDED | Flag.PRIORITY)
        self._on_block(flags, stream_id, payload)
        if flags & Flag.END_STREAM:
            self.answer_of(stream_id).ended = True

    def _on_block(self, flags: int, stream_id: int, payload: bytes) -> None:
        fragments = self._fragments.pop(stream_id, b"") + payload
        if not flags & Flag.END_HEADERS:
            self._fragments[stream_id] = fragments
            return
        answer = self.answer_of(stream_id)
        assert not answer.ended or not answer.trailers, "HEADERS after the end"
        decoded = self._decoder.decode(fragments, raw=True)
        fields = {bytes(name).decode("latin-1"): bytes(value).decode("latin-1") for name, value in decoded}
        answer.headers = answer.headers or fields
        answer.trailers = fields

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.answer_of(stream_id).reset = int.from_bytes(payload, "big")

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & Flag.ACK:
            self.acks += 1
            return
        if self.polite:
            self.send(SETTINGS_ACK)
        self.greeted = True
        self.settings |= dict(struct.iter_unpack(">HI", payload))

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & Flag.ACK:
            self.pongs.append(payload)
            return
        self.pings += 1
        if self.polite:
            self.send(ping(payload, ack=True))

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        last, code = struct.unpack_from(">II", payload)
        self.goaways.append((last, Code(code)))
        self.debug = payload[8:]

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        increment = int.from_bytes(payload, "big")
        assert increment, "WINDOW_UPDATE of 0"
        if stream_id:
            self.answer_of(stream_id).window += increment
        else:
            self.window += increment


_HANDLERS: dict[int, Callable[[Wire, int, int, bytes], None]] = {
    Type.DATA: Wire._on_data,
    Type.HEADERS: Wire._on_headers,
    Type.CONTINUATION: Wire._on_block,
    Type.RST_STREAM: Wire._on_rst_stream,
    Type.SETTINGS: Wire._on_settings,
    Type.PING: Wire._on_ping,
    Type.GOAWAY: Wire._on_goaway,
    Type.WINDOW_UPDATE: Wire._on_window_update,
}
