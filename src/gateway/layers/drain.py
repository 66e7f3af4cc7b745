"""Refuses new requests once the server is going down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import Draining
from gateway.layers.streams import checked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.interfaces import InferenceService
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, InferResponse


class DrainLayer:
    """An InferenceService that refuses with Draining after `drain`; what was admitted goes on."""

    def __init__(self, inner: InferenceService) -> None:
        self._inner = inner
        self._draining = False

    @property
    def draining(self) -> bool:
        """Whether new requests are refused."""
        return self._draining

    def drain(self) -> None:
        """Refuse every request from now on; there is no way back."""
        self._draining = True

    def submit(self, request: InferRequest) -> Pending:
        """Pass the request on; raises Draining, and as the seam says."""
        self._check(request)
        return self._inner.submit(request)

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Pass the request on; as `submit`, at the first step."""
        return checked(self._inner, request, self._check)

    def _check(self, request: InferRequest) -> None:
        if self._draining:
            raise _refusal(request)


def _refusal(request: InferRequest) -> Draining:
    return Draining(
        f"request for model '{request.model_name}' refused: the server is shutting down; retry elsewhere"
    )
