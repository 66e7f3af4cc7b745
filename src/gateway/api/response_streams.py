"""Ownership of response streams: whoever opens one closes it, which cancels the request behind it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from gateway.core.types import InferResponse


@runtime_checkable
class Closeable(Protocol):
    """An iterator that can be given up; every asynchronous generator is one."""

    def aclose(self) -> Awaitable[None]:
        """Give up; what has not been answered is cancelled."""


async def close(responses: AsyncIterator[InferResponse]) -> None:
    """Close a stream of responses, if it has anything to close."""
    if isinstance(responses, Closeable):
        await responses.aclose()


@asynccontextmanager
async def closing(responses: AsyncIterator[InferResponse]) -> AsyncIterator[AsyncIterator[InferResponse]]:
    """Close `responses` when the block ends, whichever way."""
    try:
        yield responses
    finally:
        await close(responses)
