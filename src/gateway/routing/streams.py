"""Streaming from a leased version; a module of its own, since mypyc compiles no asynchronous generators."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.interfaces import Lease
    from gateway.core.types import InferRequest, InferResponse


async def leased(
    lease_of: Callable[[InferRequest], Lease], request: InferRequest
) -> AsyncIterator[InferResponse]:
    """Give a request's stream from the version it gets a lease on, released when the iteration ends."""
    lease = lease_of(request)
    try:
        async with aclosing(lease.stream(request)) as responses:  # type: ignore[type-var]
            async for response in responses:
                yield response
    finally:
        lease.release()
