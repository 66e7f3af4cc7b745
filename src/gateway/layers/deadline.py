"""Refuses work that has expired already, and bounds how long any request may ask to wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import DeadlineExceeded
from gateway.layers.streams import checked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.clock import Clock
    from gateway.core.interfaces import InferenceService
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, InferResponse


class DeadlineLayer:
    """An InferenceService that refuses expired requests with DeadlineExceeded.

    With a maximum, a request without a deadline gets the maximum and a later one is brought forward to it:
    the request's `deadline_s` is written before it is passed on. Expiry in queue is the batcher's business.

    Args:
        inner: the next service.
        clock: the clock that deadlines are told in.
        max_deadline_s: longest time from now that a request may wait to be started, in seconds; None: any.
    """

    def __init__(self, inner: InferenceService, clock: Clock, max_deadline_s: float | None = None) -> None:
        self._inner = inner
        self._clock = clock
        self._max_deadline_s = max_deadline_s

    def submit(self, request: InferRequest) -> Pending:
        """Pass the request on; raises DeadlineExceeded, and as the seam says."""
        if request.deadline_s is not None or self._max_deadline_s is not None:
            self._bound(request)
        return self._inner.submit(request)

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Pass the request on; as `submit`, at the first step."""
        return checked(self._inner, request, self._bound)

    def _bound(self, request: InferRequest) -> None:
        now_s = self._clock.now_s()
        deadline_s = request.deadline_s
        if deadline_s is not None and deadline_s <= now_s:
            raise DeadlineExceeded(
                f"request for model '{request.model_name}' arrived {(now_s - deadline_s) * 1e3:.1f} ms "
                "after its deadline; nothing was run"
            )
        if self._max_deadline_s is not None:
            latest_s = now_s + self._max_deadline_s
            request.deadline_s = latest_s if deadline_s is None else min(deadline_s, latest_s)
