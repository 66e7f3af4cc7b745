"""Reading one request body: in pieces, inflated as it arrives, within the limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.transport.content_coding import Inflater, request_coding
from gateway.transport.refusal import HttpRefusal

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from starlette.types import Receive

    from gateway.core.calls import Buffer
    from gateway.transport.http_guard import RequestGuard
    from gateway.transport.options import HttpLimits

# Deflate expands at most 1,032 times: a piece this small holds the event loop for milliseconds at worst.
_INLINE_INFLATE_BYTES: Final = 8 * 1024


class ClientGone(Exception):
    """The client went before its request was complete."""


class BodyBudget:
    """Bytes of bodies that all requests of a listener may hold together.

    Invariant: `used_bytes <= limit_bytes`.
    """

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0


class BodyReader:
    """Reads the body of one request and owns its share of the budget until `release`."""

    __slots__ = ("_budget", "_executor", "_guard", "_held_bytes", "_limits", "_receive")

    def __init__(self, guard: RequestGuard, receive: Receive, source: BodySource) -> None:
        self._guard = guard
        self._receive = receive
        self._budget = source.budget
        self._executor = source.executor
        self._limits = source.limits
        self._held_bytes = 0

    async def read(self) -> Buffer:
        """Return the whole body, content coding undone; owned by the caller.

        Raises:
            HttpRefusal: the body is refused, or the connection refuses the request.
            ClientGone: the client went first.
        """
        if self._guard.refusal is not None:
            raise self._guard.refusal
        coding = request_coding(self._guard.headers.get("content-encoding"))
        piece, more = await self._next()
        if coding is not None:
            return await self._read_inflated(Inflater(coding, self._limits), piece, more)
        self._hold(len(piece))
        return await self._read_plain(piece) if more else piece

    def release(self) -> None:
        """Give the budget back; harmless when nothing is held."""
        self._budget.used_bytes -= self._held_bytes
        self._held_bytes = 0

    async def _read_plain(self, piece: bytes) -> bytearray:
        body = bytearray(piece)
        more = True
        while more:
            piece, more = await self._next()
            self._hold(len(piece))
            body += piece
        return body

    async def _read_inflated(self, inflater: Inflater, piece: bytes, more: bool) -> bytearray:
        while True:
            if len(piece) <= _INLINE_INFLATE_BYTES:
                size = inflater.feed(piece)
            else:
                loop = asyncio.get_running_loop()
                size = await loop.run_in_executor(self._executor, inflater.feed, piece)
            self._hold(size - self._held_bytes)
            if not more:
                return inflater.finish()
            piece, more = await self._next()

    async def _next(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if self._guard.refusal is not None:
            raise self._guard.refusal
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message["body"], message["more_body"]

    def _hold(self, size: int) -> None:
        if self._held_bytes + size > self._budget.limit_bytes:
            raise HttpRefusal(413, f"request body exceeds the {self._budget.limit_bytes} bytes of all bodies")
        if self._budget.used_bytes + size > self._budget.limit_bytes:
            raise HttpRefusal(
                503,
                f"request bodies hold {self._budget.used_bytes} of {self._budget.limit_bytes} bytes allowed",
                (("Retry-After", "1"),),
            )
        self._budget.used_bytes += size
        self._held_bytes += size


class BodySource:
    """What all readers of a listener share.

    Args:
        limits: what one body may be.
        executor: where large pieces are inflated.
        budget: what all of them may hold.
    """

    __slots__ = ("budget", "executor", "limits")

    def __init__(self, limits: HttpLimits, executor: Executor, budget: BodyBudget) -> None:
        self.limits = limits
        self.executor = executor
        self.budget = budget

    def reader(self, guard: RequestGuard, receive: Receive) -> BodyReader:
        """Return the reader of one request."""
        return BodyReader(guard, receive, self)
