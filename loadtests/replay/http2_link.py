"""HTTP/2 for the replay, the client's side: frames, windows and settings; calls are made on top of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hpack import Decoder

from loadtests.replay.ends import End, of_grpc_status

if TYPE_CHECKING:
    from loadtests.replay.ends import Answers

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, END_HEADERS, PADDED, PRIORITY = 0x1, 0x4, 0x8, 0x20
_ACK: Final = 0x1
_MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE, _HEADER_TABLE_SIZE = 0x3, 0x4, 0x5, 0x1
_CREDIT_BYTES: Final = 16384
_MOST_BLOCKS: Final = 4096


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame (RFC 9113, 4.1)."""
    head = len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)
    return head + payload


@dataclass(slots=True)
class _Unsent:
    """What is left, from `at` on, of a body that did not fit the windows."""

    stream: int
    body: bytes
    window: int
    at: int = 0


class Http2Link:
    """One connection's state but for its calls. Its owner sends `out` and hands in what it receives.

    A subclass makes requests, and says what frames of a stream mean: `on_headers`, `on_data`, `on_reset`.
    """

    def __init__(self, opening: bytes, answers: Answers) -> None:
        self.opening = opening
        self.out: list[bytes] = []
        self.going = True  # false: the server takes no more on this connection
        self.most_streams = 100  # until the server says more
        self._answers = answers
        self._data = b""
        self._window = self._stream_window = self._initial_window = 65535
        self._frame_size = 16384
        self._unsent: deque[_Unsent] = deque()
        self._decoder = Decoder()
        self._ends: dict[bytes, End | None] = {}
        self._received = 0
        self._told_settings = False

    def receive(self, data: bytes) -> None:
        """Take in bytes; the ends of requests go to the answers."""
        data = self._data + data if self._data else data
        at, size = 0, len(data)
        while at + 9 <= size:
            end = at + 9 + (data[at] << 16 | data[at + 1] << 8 | data[at + 2])
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9])
            if kind == HEADERS:
                self.on_headers(stream, self._end_of(self._block(data[at + 9 : end], flags)), flags)
            elif kind == DATA:
                self._received += end - at - 9
                self.on_data(stream, data[at + 9 : end])
            else:
                self._on_other(kind, flags, stream, data[at + 9 : end])
            at = end
        self._data = data[at:]
        if self._received >= _CREDIT_BYTES:
            self.out.append(frame(WINDOW_UPDATE, 0, 0, self._received.to_bytes(4)))
            self._received = 0

    def on_headers(self, stream: int, end: End | None, flags: int) -> None:
        """Take in a header block; `end` is what its grpc-status says, None if it has none."""
        raise NotImplementedError

    def on_data(self, stream: int, data: bytes) -> None:
        """Take in a piece of a stream's body."""
        raise NotImplementedError

    def on_reset(self, stream: int, code: int) -> None:
        """Take in that the server gave a stream up."""
        raise NotImplementedError

    def put_body(self, stream: int, body: bytes) -> None:
        """Send the body of a new stream as far as the windows allow, the rest when they open."""
        self._unsent.append(_Unsent(stream, body, self._initial_window))
        self._go_on()

    def give_credit(self, stream: int, size: int) -> None:
        """Let the server send so much more on a stream."""
        self.out.append(frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4)))

    def _go_on(self) -> None:
        """Send what the windows allow, each body in its turn; one whose stream is full lets others pass."""
        waiting: deque[_Unsent] = deque()
        while self._unsent and self._window > 0:
            unsent = self._unsent.popleft()
            self._put_pieces(unsent)
            if unsent.at < len(unsent.body):
                waiting.append(unsent)
        self._unsent.extendleft(reversed(waiting))

    def _put_pieces(self, unsent: _Unsent) -> None:
        while unsent.at < len(unsent.body):
            size = min(self._frame_size, self._window, unsent.window, len(unsent.body) - unsent.at)
            if size <= 0:
                return
            piece = unsent.body[unsent.at : unsent.at + size]
            unsent.at += size
            unsent.window -= size
            self._window -= size
            last = unsent.at == len(unsent.body)
            self.out.append(frame(DATA, END_STREAM if last else 0, unsent.stream, piece))

    def _on_other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            self._on_credit(stream, int.from_bytes(payload))
        elif kind == SETTINGS and not flags & _ACK:
            self._on_settings(payload)
        elif kind == PING and not flags & _ACK:
            self.out.append(frame(PING, _ACK, 0, payload))
        elif kind == RST_STREAM:
            self.on_reset(stream, int.from_bytes(payload))
        elif kind == GOAWAY:
            self.going = False
            if code := int.from_bytes(payload[4:8]):
                self._answers.problems[f"GOAWAY {code}: {payload[8:200]!r}"] += 1

    def _on_credit(self, stream: int, size: int) -> None:
        if not stream:
            self._window += size
        for unsent in self._unsent:
            if unsent.stream == stream:
                unsent.window += size
        self._go_on()

    def _on_settings(self, payload: bytes) -> None:
        if not self._told_settings:
            self.most_streams = 1 << 20  # no limit unless stated (RFC 9113, 6.5.2)
            self._told_settings = True
        for at in range(0, len(payload) - 5, 6):
            name, value = int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 6])
            if name == _MAX_CONCURRENT_STREAMS:
                self.most_streams = value
            elif name == _MAX_FRAME_SIZE:
                self._frame_size = value
            elif name == _INITIAL_WINDOW_SIZE:
                self._on_initial_window(value)
            elif name == _HEADER_TABLE_SIZE and value < 4096:
                self._answers.problems["the server's header table is smaller than the capture's"] += 1
        self.out.append(frame(SETTINGS, _ACK, 0, b""))
        self._go_on()

    def _on_initial_window(self, value: int) -> None:
        """Change the window of new streams, and those of streams under way by as much (RFC 9113, 6.9.2)."""
        for unsent in self._unsent:
            unsent.window += value - self._initial_window
        self._initial_window = self._stream_window = value

    def _block(self, payload: bytes, flags: int) -> bytes:
        if not flags & END_HEADERS:
            raise ValueError("the server splits header blocks: the replay reads whole ones only")
        if flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        return payload[5:] if flags & PRIORITY else payload

    def _end_of(self, block: bytes) -> End | None:
        """Return what a header block's grpc-status says.

        Remembered are blocks of good answers that neither change the table nor were met before it changed.
        """
        if block in self._ends:
            return self._ends[block]
        table = self._decoder.header_table.dynamic_entries
        before = (len(table), table[0] if table else None)
        headers = {name.decode(): value.decode() for name, value in self._decoder.decode(block, raw=True)}
        end = self._read_end(headers)
        if before != (len(table), table[0] if table else None) or len(self._ends) >= _MOST_BLOCKS:
            self._ends.clear()
        elif end in {None, End.GOOD}:
            self._ends[block] = end
        return end

    def _read_end(self, headers: dict[str, str]) -> End | None:
        http_status = headers.get(":status", "200")
        if http_status != "200":
            self._answers.problems[f"HTTP {http_status}"] += 1
            return End.FAILED
        if (status := headers.get("grpc-status")) is None:
            return None
        if (end := of_grpc_status(int(status))) is not End.GOOD:
            self._answers.problems[f"gRPC {status}: {headers.get('grpc-message', '')[:120]}"] += 1
        return end
