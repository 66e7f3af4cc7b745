"""Bounds what the whole server has under way, in requests and in received bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.errors import Overloaded, PayloadTooLarge
from gateway.layers.streams import charged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.interfaces import InferenceService
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, InferResponse


@dataclass(frozen=True, kw_only=True)
class AdmissionLimits:
    """Limits over all requests of the server.

    Attributes:
        max_inflight_requests: requests admitted and not answered.
        max_inflight_bytes: received bytes that they keep in memory.
        retry_after_s: what a refused client is told to wait.
    """

    max_inflight_requests: int = 16_384
    max_inflight_bytes: int = 2 << 30
    retry_after_s: float = 1.0


class AdmissionLayer:
    """An InferenceService that refuses with Overloaded beyond the limits. Event loop only.

    Invariants: `inflight_requests` and `inflight_bytes` are the sums over requests admitted and not
    completed, never above the limits; each request is charged once and given back once, however it ends.
    """

    def __init__(self, inner: InferenceService, limits: AdmissionLimits) -> None:
        self._inner = inner
        self._limits = limits
        self._requests = 0
        self._bytes = 0

    @property
    def inflight_requests(self) -> int:
        """Requests admitted and not answered."""
        return self._requests

    @property
    def inflight_bytes(self) -> int:
        """Received bytes of those requests."""
        return self._bytes

    def submit(self, request: InferRequest) -> Pending:
        """Charge the request until its completion and pass it on.

        Raises:
            Overloaded: a limit is reached; the message tells which, and what was got.
            PayloadTooLarge: the request alone is larger than the limit.
        """
        self._charge(request)
        try:
            pending = self._inner.submit(request)
        except BaseException:
            self._give_back(request)
            raise
        pending.add_done_callback(self._completed)
        return pending

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Charge the request until the iteration ends or is closed; raises as `submit` at the first step."""
        return charged(self._inner, request, self._charge, self._give_back)

    def _charge(self, request: InferRequest) -> None:
        total = self._bytes + request.received_bytes
        if self._requests >= self._limits.max_inflight_requests or total > self._limits.max_inflight_bytes:
            raise self._refusal(request)
        self._requests += 1
        self._bytes = total

    def _completed(self, pending: Pending) -> None:
        self._give_back(pending.request)

    def _give_back(self, request: InferRequest) -> None:
        self._requests -= 1
        self._bytes -= request.received_bytes

    def _refusal(self, request: InferRequest) -> Overloaded | PayloadTooLarge:
        limits, size = self._limits, request.received_bytes
        name = f"request for model '{request.model_name}' refused: "
        if size > limits.max_inflight_bytes:
            return PayloadTooLarge(
                f"{name}it holds {size} bytes, the server admits {limits.max_inflight_bytes} at once"
            )
        if self._requests >= limits.max_inflight_requests:
            what = f"{self._requests} requests are under way, the limit is {limits.max_inflight_requests}"
        else:
            what = (
                f"it holds {size} bytes and {self._bytes} are under way, "
                f"the limit is {limits.max_inflight_bytes}"
            )
        return Overloaded(name + what, retry_after_s=limits.retry_after_s)
