"""Iterating over an inner service's stream, so that it is closed when the layer's own iteration ends.

Generators of their own, since mypyc compiles classes with asynchronous generators not at all.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.interfaces import InferenceService
    from gateway.core.types import InferRequest, InferResponse
    from gateway.layers.telemetry import RequestTelemetry


def open_stream(
    service: InferenceService, request: InferRequest
) -> AbstractAsyncContextManager[AsyncIterator[InferResponse]]:
    """Return a context manager over the stream; leaving it closes the stream, which cancels the request."""
    return aclosing(service.stream(request))  # type: ignore[type-var]  # the seam promises it can be closed


async def checked(
    service: InferenceService, request: InferRequest, check: Callable[[InferRequest], object]
) -> AsyncIterator[InferResponse]:
    """Give the stream of a request that `check` lets pass; it is asked at the first step."""
    check(request)
    async with open_stream(service, request) as responses:
        async for response in responses:
            yield response


async def charged(
    service: InferenceService,
    request: InferRequest,
    charge: Callable[[InferRequest], object],
    give_back: Callable[[InferRequest], object],
) -> AsyncIterator[InferResponse]:
    """As `checked`, with `give_back` when the iteration ends or is closed."""
    charge(request)
    try:
        async with open_stream(service, request) as responses:
            async for response in responses:
                yield response
    finally:
        give_back(request)


async def reported(
    service: InferenceService, request: InferRequest, telemetry: RequestTelemetry
) -> AsyncIterator[InferResponse]:
    """Give a stream and report its end; one closed before its final response counts as cancelled."""
    telemetry.begin(request)
    last: InferResponse | None = None
    error: BaseException | None = None
    try:
        async with open_stream(service, request) as responses:
            async for response in responses:
                last = response
                yield response
    except BaseException as raised:
        # A reader that stops after the final response has had its whole answer.
        answered = last is not None and last.final and isinstance(raised, GeneratorExit)
        error = None if answered else raised
        raise
    finally:
        telemetry.end(request, last, error)
