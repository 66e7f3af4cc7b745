"""A client connection for HTTP/1.1 that sends exactly the bytes it is told to, and reads whole answers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


class NoAnswer(ConnectionError):
    """The connection ended before a whole answer had come.

    Attributes:
        partial: some bytes of an answer had come.
    """

    def __init__(self, reason: str, *, partial: bool) -> None:
        super().__init__(reason)
        self.partial = partial


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an error response."""
        return str(self.json["error"])

    @property
    def closing(self) -> bool:
        """Whether the server closes the connection after it."""
        return self.headers.get("connection") == "close"


class HttpConnection:
    """One connection; used with `async with`."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abort()

    @property
    def ended(self) -> bool:
        """Whether the server has closed it, as it may while it is idle: the next request needs another."""
        return self._reader.at_eof()

    async def exchange(self, data: bytes) -> HttpAnswer:
        """Send and read one answer.

        Raises:
            NoAnswer: the connection ended first.
        """
        self.writer.write(data)
        return await self.answer()

    async def answer(self) -> HttpAnswer:
        """Read one answer, with its body by Content-Length or in chunks.

        Raises:
            NoAnswer: the connection ended first.
        """
        started = False
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            started = True
            status, headers = parse_head(head)
            return HttpAnswer(status, headers, await self._body(headers))
        except asyncio.IncompleteReadError as exc:
            raise NoAnswer("end of stream", partial=started or bool(exc.partial)) from exc
        except ConnectionError as exc:
            raise NoAnswer(type(exc).__name__, partial=started) from exc

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self._reader.readexactly(int(headers.get("content-length", 0)))
        pieces = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            pieces.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readexactly(2)
        return b"".join(pieces)

    def abort(self) -> None:
        """Drop the connection."""
        self.writer.transport.abort()


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return status and headers of a response's head."""
    lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines[1:] if line)
    return int(lines[0].split(" ")[1]), {name.lower(): value.strip() for name, _, value in fields}


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """Return a request; underscores in names of headers stand for dashes, Content-Length is added."""
    fields = {"Host": "x", "Content-Length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def fetch(port: int, method: str, path: str, body: bytes = b"") -> HttpAnswer:
    """Send one request on a connection of its own."""
    async with HttpConnection(port) as connection:
        return await connection.exchange(request(method, path, body))
