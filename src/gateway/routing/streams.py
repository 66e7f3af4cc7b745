"""Streaming from a leased version; a module of its own, since mypyc compiles no asynchronous generators."""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from gateway.core.errors import Cancelled, GatewayError, NotReady
from gateway.routing.fallback import Flight, may_stand_in, refused_alone, stand_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from gateway.core.interfaces import Lease, ModelCatalog
    from gateway.core.types import InferRequest, InferResponse
    from gateway.routing.cold_starts import ColdStarts

T = TypeVar("T")


async def leased(
    lease_of: Callable[[InferRequest], Lease], request: InferRequest, cold_starts: ColdStarts | None = None
) -> AsyncGenerator[InferResponse, None]:
    """Give a request's stream from the version it gets a lease on, released when the iteration ends.

    Before its first step it waits for a model that is loaded on first use, where `cold_starts` are given.
    """
    lease = await _opened(lease_of, request, cold_starts)
    async with aclosing(_held(lease, request)) as responses:
        async for response in responses:
            yield response


async def routed(
    open_of: Callable[[InferRequest], Flight | Lease],
    catalog: ModelCatalog,
    request: InferRequest,
    cold_starts: ColdStarts | None = None,
) -> AsyncGenerator[InferResponse, None]:
    """As `leased`, from the arm that the request is assigned to, where its model has a route.

    Stable answers instead if that fails before its first response, and the route says so.
    """
    opened = await _opened(open_of, request, cold_starts)
    given = _flown(opened, catalog) if isinstance(opened, Flight) else _held(opened, request)
    async with aclosing(given) as responses:
        async for response in responses:
            yield response


async def _held(lease: Lease, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
    try:
        async with aclosing(lease.stream(request)) as responses:  # type: ignore[type-var]
            async for response in responses:
                yield response
    finally:
        lease.release()


async def _flown(flight: Flight, catalog: ModelCatalog) -> AsyncGenerator[InferResponse, None]:
    """Give the responses of a request, marked with their arm, and count how it ended."""
    route, request = flight.route, flight.request
    answered_s: float | None = None
    final = False
    ended: BaseException | None = None
    alone = False
    try:
        while True:
            again = flight.has_second_chance()
            try:
                async with aclosing(_held(flight.lease, request)) as responses:
                    async for response in responses:
                        if answered_s is None:
                            answered_s = route.now_s()
                        route.mark(request, response)
                        final = response.final
                        yield response
                return
            except GatewayError as error:
                alone = answered_s is None and refused_alone(catalog, flight, error)
                fails_here = alone or may_stand_in(route, request, error)
                if answered_s is not None or not again or not fails_here:
                    raise
                ended = error
            flight = stand_in(catalog, route, request)
            ended = None
    except (GeneratorExit, CancelledError):
        # A reader that stops after the final response has had its whole answer.
        ended = None if final else Cancelled(f"the stream of '{request.model_name}' was closed by its reader")
        raise
    except BaseException as error:
        # Where stable cannot be had either, the arm's own failure is what counts.
        ended = ended or error
        raise
    finally:
        route.ended(request, answered_s, ended, alone)


async def _opened(
    open_of: Callable[[InferRequest], T], request: InferRequest, cold_starts: ColdStarts | None
) -> T:
    while True:
        try:
            return open_of(request)
        except NotReady as refused:
            if cold_starts is None:
                raise
            await cold_starts.ready(request, refused)
