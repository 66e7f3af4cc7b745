"""HTTP/1.1 for the replay: one request at a time on a connection, answers read as far as is needed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from loadtests.replay.ends import Answers, End, of_http_status
from loadtests.replay.order import REQUEST_ID

if TYPE_CHECKING:
    from loadtests.replay.order import Order

_MOST_HEADS: Final = 1024


class HttpRequests:
    """Makes the bytes of the requests of an order."""

    def __init__(self, order: Order) -> None:
        self._ids, self._deadlines, self._traceparent = order.ids, order.deadlines, order.traceparent
        first = f"POST {order.path} HTTP/1.1\r\nhost: {order.host}:{order.port}\r\n"
        self._parts: list[tuple[bytes, bytes, bytes]] = []
        for headers, body in zip(order.headers, order.read_bodies(), strict=True):
            head = first + "".join(f"{header}\r\n" for header in headers)
            before, _, after = body.partition(REQUEST_ID.encode()) if order.ids else (body, b"", b"")
            length = f"content-length: {len(body)}\r\n".encode()
            self._parts.append((head.encode() + length, b"\r\n" + before, after))
        self._count = len(self._parts)
        self._random = random.Random(1)

    def encode(self, number: int) -> bytes:
        """Return request `number`."""
        head, before, after = self._parts[number % self._count]
        parts = [head]
        if self._traceparent:
            value = self._random.getrandbits(192)
            parts.append(b"traceparent: 00-%032x-%016x-00\r\n" % (value >> 64 | 1, value & (1 << 64) - 1 | 1))
        if self._deadlines:
            parts.append(b"x-request-timeout-ms: %d\r\n" % (20_000 + number * 7919 % 40_000))
        parts.append(before)
        if self._ids:
            parts += (b"%016x" % number, after)
        return b"".join(parts)


class HttpConnection:
    """One connection's state. Its owner sends `out` and hands in what it receives."""

    opening = b""

    def __init__(self, requests: HttpRequests, answers: Answers) -> None:
        self._requests, self._answers = requests, answers
        self.out: list[bytes] = []
        self.going = True  # false: the server closes it after this answer
        self._number = -1
        self._data = b""
        self._heads: dict[bytes, tuple[int, int, bool]] = {}

    @property
    def room(self) -> int:
        """Requests that may be sent now."""
        return int(self._number < 0 and self.going)

    @property
    def unanswered(self) -> list[int]:
        """Requests sent and not answered."""
        return [self._number] if self._number >= 0 else []

    def send(self, number: int) -> None:
        """Put a request into `out`."""
        self._number = number
        self.out.append(self._requests.encode(number))

    def receive(self, data: bytes) -> None:
        """Take in bytes; the ends of requests go to the answers."""
        data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self._data = data
            return
        head = data[:end]
        status, length, closes = self._heads.get(head) or self._read_head(head)
        body = data[end:] if length >= 0 else _dechunked(data, end)
        if body is None or len(body) < length:
            self._data = data
            return
        self._data, number, self._number = b"", self._number, -1
        self.going = not closes
        ended = of_http_status(status)
        if ended is not End.GOOD:
            self._answers.problems[f"HTTP {status}: {body[:120]!r}"] += 1
        elif self._answers.wants(number):
            self._answers.samples[number] = (_headers(head), body)
        self._answers.ended.append((number, ended))

    def _read_head(self, head: bytes) -> tuple[int, int, bool]:
        headers = _headers(head)
        chunked = "chunked" in headers.get("transfer-encoding", "")
        length = -1 if chunked else int(headers.get("content-length", "0"))
        found = int(head[9:12]), length, headers.get("connection", "").lower() == "close"
        if len(self._heads) < _MOST_HEADS:
            self._heads[head] = found
        return found


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.lower(): value.strip() for name, _, value in pairs}


def _dechunked(data: bytes, at: int) -> bytes | None:
    """Return a chunked body (RFC 9112, 7.1), or None while its end is not there; trailers are refused."""
    parts: list[bytes] = []
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end].partition(b";")[0], 16)
        start, at = line_end + 2, line_end + 2 + size + 2
        if len(data) < at:
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(data[start : start + size])
    return None
