"""Writing one HTTP response through ASGI: headers, content coding, parts, streams."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.transport.content_coding import compress, response_coding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from concurrent.futures import Executor

    from starlette.types import Send

    from gateway.core.calls import Buffer, HttpResponse
    from gateway.transport.http_guard import RequestGuard
    from gateway.transport.options import HttpServerOptions

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

_INLINE_COMPRESS_BYTES: Final = 64 * 1024  # about a millisecond at level 1
_OCTET_STREAM: Final = "application/octet-stream"


class ResponseWriter:
    """Writes the responses of one listener.

    Args:
        options: compression and the server's name.
        executor: where large responses are compressed.
    """

    def __init__(self, options: HttpServerOptions, executor: Executor) -> None:
        self._options = options
        self._executor = executor
        self._standing: RawHeaders = []
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

    def _standing_headers(self) -> RawHeaders:
        """Return a fresh list with Server and Date; Date changes once a second."""
        now_s = time.time()
        if now_s >= self._standing_until_s:
            self._standing_until_s = int(now_s) + 1.0
            self._standing = [(b"date", formatdate(now_s, usegmt=True).encode("ascii"))]
            if self._options.server_name:
                self._standing.append((b"server", self._options.server_name.encode("latin-1")))
        return self._standing.copy()

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
