"""Writing one HTTP response through ASGI: headers, content coding, parts, streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from email.utils import formatdate
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.core.calls import Buffer
from gateway.transport.content_coding import Coding, compress, response_coding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Executor

    from starlette.types import Send

    from gateway.core.calls import HttpResponse
    from gateway.transport.http_guard import RequestGuard
    from gateway.transport.options import HttpServerOptions

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

_INLINE_COMPRESS_BYTES: Final = 64 * 1024  # about a millisecond at level 1
_MAX_HEADS: Final = 256
_OCTET_STREAM: Final = "application/octet-stream"


class Encoded(NamedTuple):
    """A body ready to be sent.

    Attributes:
        parts: what is sent, one after the other.
        headers: header lines that the coding adds, each ended by CRLF.
    """

    parts: Sequence[Buffer]
    headers: bytes = b""


class ResponseWriter:
    """Composes and writes the responses of one listener.

    Args:
        options: compression and the server's name.
        executor: where large responses are compressed.
    """

    def __init__(self, options: HttpServerOptions, executor: Executor) -> None:
        self._options = options
        self._executor = executor
        self._standing: RawHeaders = []
        self._standing_lines = b""
        self._heads: dict[tuple[object, ...], bytes] = {}
        self._repeated: dict[object, bytes] = {}
        self._standing_until_s = 0.0

    async def write(self, response: HttpResponse, guard: RequestGuard, send: Send) -> None:
        """Send `response`; waits while the client is slow.

        Its buffers must not change until the connection has sent them, which may be after the return.
        Cancelling leaves the connection unusable; a stream is closed in every case.
        """
        headers = self._standing_headers()
        if response.content_type:
            headers.append((b"content-type", response.content_type.encode("latin-1")))
        for name, value in response.headers:
            headers.append((name.lower().encode("latin-1"), value.encode("latin-1", "replace")))
        if response.stream is not None:
            await _write_stream(response, response.stream, headers, send)
            return
        parts = await self._encode(response, guard.headers.get("accept-encoding", ""), headers)
        guard.transport.cork()
        try:
            await _write_parts(response.status, parts, headers, send)
        finally:
            guard.transport.uncork()

    def encode_nowait(
        self, response: HttpResponse, accept_encoding: str
    ) -> Encoded | asyncio.Future[Encoded]:
        """Return the body as it is to be sent; a future where a large one is compressed in a thread.

        Raises:
            TypeError: the response has a stream, which only coroutine methods may answer with.
        """
        if response.stream is not None:
            raise TypeError("a method answered by callback cannot stream")
        parts = response.body
        size = sum(map(len, parts))
        if not self._may_compress(response, size):
            return Encoded(parts)
        coding = response_coding(accept_encoding)
        if coding is None:
            return Encoded(parts, b"vary: accept-encoding\r\n")
        level = self._options.compression_level
        if size <= _INLINE_COMPRESS_BYTES:
            return _coded(parts, coding, level)
        return asyncio.get_running_loop().run_in_executor(self._executor, _coded, parts, coding, level)

    def head(self, response: HttpResponse, encoded: Encoded, *, keep_alive: bool) -> bytes:
        """Return status line and headers, the empty line included; those of this second are remembered."""
        self._refresh()
        size = sum(map(len, encoded.parts))
        key = (
            response.status,
            response.content_type,
            tuple(response.headers),
            encoded.headers,
            size,
            keep_alive,
        )
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            head = self._heads[key] = self._composed(response, encoded.headers, size, keep_alive=keep_alive)
        return head

    def repeated_head(self, response: HttpResponse) -> bytes | None:
        """Return the head of a response on a connection that stays open, if its `kind` says what it is."""
        if response.kind is None or self._options.compress_octet_stream:
            return None
        self._refresh()
        head = self._repeated.get(response.kind)
        if head is None:
            if len(self._repeated) >= _MAX_HEADS:
                self._repeated.clear()
            size = sum(map(len, response.body))
            head = self._repeated[response.kind] = self._composed(response, b"", size, keep_alive=True)
        return head

    def _composed(self, response: HttpResponse, coding_lines: bytes, size: int, *, keep_alive: bool) -> bytes:
        lines = [STATUS_LINE[response.status], self._standing_lines]
        if response.content_type:
            lines.append(b"content-type: %b\r\n" % response.content_type.encode("latin-1"))
        for name, value in response.headers:
            lines.append(b"%b: %b\r\n" % (name.lower().encode("latin-1"), value.encode("latin-1", "replace")))
        lines.append(coding_lines)
        lines.append(b"content-length: %d\r\n" % size)
        lines.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
        return b"".join(lines)

    def _standing_headers(self) -> RawHeaders:
        """Return a fresh list with Server and Date."""
        self._refresh()
        return self._standing.copy()

    def _refresh(self) -> None:
        """Write Date, which changes once a second, and Server anew."""
        now_s = time.time()
        if now_s >= self._standing_until_s:
            self._standing_until_s = int(now_s) + 1.0
            self._standing = [(b"date", formatdate(now_s, usegmt=True).encode("ascii"))]
            if self._options.server_name:
                self._standing.append((b"server", self._options.server_name.encode("latin-1")))
            self._heads.clear()
            self._repeated.clear()
            self._standing_lines = b"".join(b"%b: %b\r\n" % field for field in self._standing)

    async def _encode(
        self, response: HttpResponse, accept_encoding: str, headers: RawHeaders
    ) -> Sequence[Buffer]:
        parts = response.body
        size = sum(map(len, parts))
        if not self._may_compress(response, size):
            return parts
        headers.append((b"vary", b"accept-encoding"))
        coding = response_coding(accept_encoding)
        if coding is None:
            return parts
        headers.append((b"content-encoding", coding.encode("ascii")))
        level = self._options.compression_level
        if size <= _INLINE_COMPRESS_BYTES:
            return (compress(parts, coding, level),)
        loop = asyncio.get_running_loop()
        return (await loop.run_in_executor(self._executor, compress, parts, coding, level),)

    def _may_compress(self, response: HttpResponse, size: int) -> bool:
        least = self._options.compression_min_bytes
        if least is None or size < least:
            return False
        if response.content_type == _OCTET_STREAM:
            return self._options.compress_octet_stream
        return response.compressible


def _coded(parts: Sequence[Buffer], coding: Coding, level: int) -> Encoded:
    lines = b"vary: accept-encoding\r\ncontent-encoding: %b\r\n" % coding.encode("ascii")
    return Encoded((compress(parts, coding, level),), lines)


async def _write_parts(status: int, parts: Sequence[Buffer], headers: RawHeaders, send: Send) -> None:
    headers.append((b"content-length", b"%d" % sum(map(len, parts))))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for part in parts[:-1]:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    last = parts[-1] if parts else b""
    await send({"type": "http.response.body", "body": last, "more_body": False})


async def _write_stream(
    response: HttpResponse, stream: AsyncIterator[bytes], headers: RawHeaders, send: Send
) -> None:
    try:
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        for part in response.body:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        async for piece in stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        close = getattr(stream, "aclose", None)  # async generators have it, plain iterators need not
        if close is not None:
            await close()
