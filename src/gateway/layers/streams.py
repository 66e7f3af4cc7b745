"""Opening an inner service's stream so that it is closed when the layer's own iteration ends."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.interfaces import InferenceService
    from gateway.core.types import InferRequest, InferResponse


def open_stream(
    service: InferenceService, request: InferRequest
) -> AbstractAsyncContextManager[AsyncIterator[InferResponse]]:
    """Return a context manager over the stream; leaving it closes the stream, which cancels the request."""
    return aclosing(service.stream(request))  # type: ignore[type-var]  # the seam promises it can be closed
