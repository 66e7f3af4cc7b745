"""One admitted request: completed once, by callback, without a task or a chain of futures."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeAlias

from gateway.core.errors import Cancelled, GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from gateway.core.types import InferRequest, InferResponse

_log = logging.getLogger(__name__)

DoneCallback: TypeAlias = "Callable[[Pending], None]"


class Pending:
    """The answer to come for one request.

    Invariants: it is completed exactly once, by `complete`, `fail` or `cancel`, on the event loop's thread,
    and never before the `submit` that returned it has returned. Callbacks run synchronously in the order
    they were added (inner layers first), each once; one that raises is logged and does not stop the next.
    Adding a callback to a completed Pending runs it at once.

    Attributes:
        request: the request it answers.
        response: the answer, once completed well.
        error: the failure, once failed or cancelled.
    """

    __slots__ = ("_callbacks", "_done", "_on_cancel", "error", "request", "response")

    def __init__(self, request: InferRequest, on_cancel: DoneCallback | None = None) -> None:
        """Make one; on cancellation `on_cancel` runs first, to give up queued work."""
        self.request = request
        self.response: InferResponse | None = None
        self.error: GatewayError | None = None
        self._callbacks: list[DoneCallback] = []
        self._on_cancel = on_cancel
        self._done = False

    @property
    def done(self) -> bool:
        """Whether it has been completed, failed or cancelled."""
        return self._done

    def add_done_callback(self, callback: DoneCallback) -> None:
        """Run `callback(self)` on completion, after those added before; at once if already complete."""
        if self._done:
            self._run(callback)
        else:
            self._callbacks.append(callback)

    def complete(self, response: InferResponse) -> bool:
        """Answer well. Return False, changing nothing, if it was answered or cancelled before."""
        if self._done:
            return False
        self.response = response
        self._finish()
        return True

    def fail(self, error: GatewayError) -> bool:
        """Answer with an error. Return False, changing nothing, if it was answered or cancelled before."""
        if self._done:
            return False
        self.error = error
        self._finish()
        return True

    def cancel(self) -> bool:
        """Give up: queued work is removed, running work finishes unseen. False if already complete."""
        if self._done:
            return False
        self.error = Cancelled(f"request for model '{self.request.model_name}' was cancelled by the client")
        self._done = True
        if self._on_cancel is not None:
            self._run(self._on_cancel)
        self._finish()
        return True

    def result(self) -> InferResponse:
        """Return the response of a completed request.

        Raises:
            GatewayError: the failure it was completed with.
            RuntimeError: it is not complete.
        """
        if self.error is not None:
            raise self.error
        if self.response is None:
            raise RuntimeError("the request is not complete")
        return self.response

    def __await__(self) -> Generator[object, None, InferResponse]:
        """Wait for the response; cancelling the waiter cancels the request."""
        if not self._done:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: None if waiter.done() else waiter.set_result(None))
            try:
                yield from waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self.result()

    def _finish(self) -> None:
        self._done = True
        self._on_cancel = None
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # noqa: BLE001 - whatever a layer does wrong, the others must hear
                self._log_failure()

    def _run(self, callback: DoneCallback) -> None:
        try:
            callback(self)
        except Exception:  # noqa: BLE001 - whatever a layer does wrong, the others must hear
            self._log_failure()

    def _log_failure(self) -> None:
        _log.exception("a completion callback failed for model %r", self.request.model_name)
