"""Raw HTTP/1.1 conversations for tests: bytes out, responses in."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.core.calls import HttpResponse, HttpRoute

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from gateway.core.calls import CancelHook, HttpReply, HttpRequest


@dataclass(frozen=True)
class Received:
    """One response off the wire; `parts` are the chunks of a chunked body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    parts: tuple[bytes, ...] = ()

    @property
    def error(self) -> str:
        assert self.headers["content-type"] == "application/json"
        document: dict[str, str] = json.loads(self.body)
        assert list(document) == ["error"]
        return document["error"]


class Wire:
    """A client connection that sends exactly the bytes it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, context: ssl.SSLContext | None = None) -> Wire:
        name = None if context is None else "localhost"
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def half_close(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()

    async def response(self, *, head: bool = False) -> Received:
        status, headers = await self.head()
        if head:
            return Received(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            parts = tuple([part async for part in self.chunks()])
            return Received(status, headers, b"".join(parts), parts)
        return Received(status, headers, await self.reader.readexactly(int(headers["content-length"])))

    async def head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = (line.lower().partition(": ") for line in lines[1:-2])
        return int(lines[0].split()[1]), {name: value for name, _, value in fields}

    async def chunks(self) -> Any:
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()

    async def closed(self) -> bool:
        """Wait for the server to close; False when it sent something first."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    """Return the bytes of a POST request with a Content-Length."""
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def get(path: str, *headers: str) -> bytes:
    """Return the bytes of a GET request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode("latin-1")


def chunked(path: str, *parts: bytes) -> bytes:
    """Return the bytes of a POST request with a chunked body, one chunk a part."""
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


class Echo:
    """Methods of the tests' own: some answer with their request, some wait until the test answers.

    Attributes:
        requests: every request seen.
        replies: replies of the `held` route, in order of arrival.
        arrived: set whenever a request reaches a method.
        cancelled: set when a client's going is noticed.
    """

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.replies: list[HttpReply] = []
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()

    def see(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        self.arrived.set()
        return HttpResponse(200, (bytes(request.body),), request.headers.get("content-type", ""))

    def begin(self, request: HttpRequest, reply: HttpReply) -> CancelHook:
        reply(self.see(request))
        return self.cancelled.set

    def held(self, request: HttpRequest, reply: HttpReply) -> CancelHook:
        self.replies.append(reply)
        self.see(request)
        return self.cancelled.set

    def broken_begin(self, request: HttpRequest, reply: HttpReply) -> CancelHook:
        raise RuntimeError("secret of begin")

    async def handle(self, request: HttpRequest) -> HttpResponse:
        return self.see(request)

    async def broken(self, request: HttpRequest) -> HttpResponse:
        raise RuntimeError("secret of handler")

    async def wait(self, request: HttpRequest) -> HttpResponse:
        self.see(request)
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError

    async def events(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, content_type="text/event-stream", stream=self._events(int(request.query)))

    async def _events(self, count: int) -> Any:
        try:
            for number in range(count):
                yield b"data: %d\n\n" % number
            self.arrived.set()
            if count > 2:
                await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    def routes(self) -> list[HttpRoute]:
        return [
            HttpRoute("POST", "/v2/models/{model}/infer", begin=self.begin),
            HttpRoute("POST", "/v2/models/{model}/versions/{version:int}/infer", begin=self.begin),
            HttpRoute("GET", "/v2/models/{model}", handler=self.handle),
            HttpRoute("POST", "/held", begin=self.held),
            HttpRoute("POST", "/wait", handler=self.wait),
            HttpRoute("POST", "/handle", handler=self.handle),
            HttpRoute("GET", "/handle", handler=self.handle),
            HttpRoute("POST", "/broken-begin", begin=self.broken_begin),
            HttpRoute("POST", "/broken", handler=self.broken),
            HttpRoute("GET", "/events", handler=self.events),
        ]
