"""Streaming from a leased version; a module of its own, since mypyc compiles no asynchronous generators."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from gateway.core.errors import NotReady

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.interfaces import Lease
    from gateway.core.types import InferRequest, InferResponse
    from gateway.routing.cold_starts import ColdStarts


async def leased(
    lease_of: Callable[[InferRequest], Lease], request: InferRequest, cold_starts: ColdStarts | None = None
) -> AsyncIterator[InferResponse]:
    """Give a request's stream from the version it gets a lease on, released when the iteration ends.

    Before its first step it waits for a model that is loaded on first use, where `cold_starts` are given.
    """
    lease = await _lease(lease_of, request, cold_starts)
    try:
        async with aclosing(lease.stream(request)) as responses:  # type: ignore[type-var]
            async for response in responses:
                yield response
    finally:
        lease.release()


async def _lease(
    lease_of: Callable[[InferRequest], Lease], request: InferRequest, cold_starts: ColdStarts | None
) -> Lease:
    while True:
        try:
            return lease_of(request)
        except NotReady as refused:
            if cold_starts is None:
                raise
            await cold_starts.ready(request, refused)
