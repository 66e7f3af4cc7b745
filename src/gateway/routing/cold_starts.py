"""Requests that wait for a lazy model to be loaded: bounded, timed, cancellable, without a task each."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from gateway.core.errors import DeadlineExceeded, GatewayError, NotReady, Overloaded
from gateway.core.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from gateway.core.clock import Clock, Timer
    from gateway.core.interfaces import InferenceService
    from gateway.core.types import InferRequest

    Attempt: TypeAlias = Callable[[], None]
    """Tries again what met a model that was not READY; raises NotReady while that is still so."""
    Fail: TypeAlias = Callable[[GatewayError], object]

_log = logging.getLogger(__name__)

MIB: Final = 1 << 20


class Waker(Protocol):
    """Loads models when they are asked for."""

    def is_lazy(self, model: str) -> bool:
        """Whether some version of the model is loaded on first use."""

    def wake(self, model: str, version: str = "") -> None:
        """Have it loaded; harmless when it is on its way.

        Raises:
            GatewayError: that is not to be hoped for, and why.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStartOptions:
    """Bounds of what waits for lazy models.

    Attributes:
        max_requests: requests that wait for one model.
        max_bytes: received bytes that they keep in memory; one request alone may have more.
        max_total_bytes: likewise of all that wait, whichever model for.
        max_wait_s: longest wait of a request without an earlier deadline.
    """

    max_requests: int = 256
    max_bytes: int = 64 * MIB
    max_total_bytes: int = 1024 * MIB
    max_wait_s: float = 60.0


@dataclass(eq=False, slots=True)
class _Waiter:
    """One request that waits."""

    request: InferRequest
    nbytes: int
    since_s: float
    until_s: float
    attempt: Attempt
    fail: Fail


_DEFAULTS: Final = ColdStartOptions()


class ColdStarts:
    """The waiting room in front of lazy models. Event loop only.

    Each request either begins as soon as its model is READY, in the order of arrival, or fails once: with
    the reason that the load failed for, at its deadline, or when the longest wait is over. Requests to models
    that are READY never come here.

    Args:
        service: takes the requests once their model is READY; raises NotReady while it is not.
        waker: loads models.
        clock: times the waits.
        options: bounds.
    """

    def __init__(
        self, service: InferenceService, waker: Waker, clock: Clock, options: ColdStartOptions = _DEFAULTS
    ) -> None:
        self.waited: Counter[str] = Counter()
        """Requests that had to wait, by model."""
        self._service = service
        self._waker = waker
        self._clock = clock
        self._options = options
        self._rooms: dict[str, list[_Waiter]] = {}
        self._nbytes = 0
        self._alarm: Timer | None = None
        self._alarm_s = math.inf

    def waiting(self) -> int:
        """Return how many requests wait now."""
        return sum(len(room) for room in self._rooms.values())

    def submit(self, request: InferRequest, refused: NotReady) -> Pending:
        """Take a request whose model is not READY; as `InferenceService.submit`.

        Raises:
            NotReady: `refused`, if the model is not lazy; or the reason that it cannot be loaded.
            Overloaded: too many wait for it.
            DeadlineExceeded: its deadline has passed already.
        """
        return _Deferred(request, self, self._service).begin(refused)

    async def ready(self, request: InferRequest, refused: NotReady) -> None:
        """Wait until a model that is not READY may be; ask again then. Raises as `submit`."""
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        leave = self.enter(
            request,
            refused,
            attempt=lambda: None if changed.done() else changed.set_result(None),
            fail=lambda error: None if changed.done() else changed.set_exception(error),
        )
        try:
            await changed
        finally:
            leave()

    def enter(
        self, request: InferRequest, refused: NotReady, *, attempt: Attempt, fail: Fail
    ) -> Callable[[], bool]:
        """Wait for a request's model: exactly one of `attempt`, without NotReady, and `fail` ends it, later.

        Of the request only its model, version, size and deadline are looked at.

        Returns:
            What takes it out again; that returns False when it was out already.

        Raises:
            GatewayError: as `submit`.
        """
        model, deadline_s = request.model_name, request.deadline_s
        if not self._waker.is_lazy(model):
            raise refused
        now_s = self._clock.now_s()
        if deadline_s is not None and deadline_s <= now_s:
            raise DeadlineExceeded(f"request for model '{model}' arrived after its deadline")
        nbytes = _size(request)
        self._check_room(model, nbytes)
        self._waker.wake(model, request.model_version)
        until_s = now_s + self._options.max_wait_s
        if deadline_s is not None:
            until_s = min(until_s, deadline_s)
        waiter = _Waiter(request, nbytes, now_s, until_s, attempt, fail)
        self._nbytes += nbytes
        self._rooms.setdefault(model, []).append(waiter)
        self.waited[model] += 1
        self._ring_by(until_s)
        return lambda: self._leave(waiter)

    def changed(self, model: str) -> None:
        """Let those that wait for a model try again: a version of it has come, failed or gone."""
        for waiter in tuple(self._rooms.get(model, ())):
            self._try(waiter)

    def _check_room(self, model: str, nbytes: int) -> None:
        room, options = self._rooms.get(model, ()), self._options
        if len(room) >= options.max_requests or (
            room and nbytes + sum(waiter.nbytes for waiter in room) > options.max_bytes
        ):
            raise Overloaded(f"too many requests wait for model '{model}', which is being loaded")
        if self._nbytes and nbytes + self._nbytes > options.max_total_bytes:
            raise Overloaded(f"too much waits for models that are being loaded, '{model}' among them")

    def _try(self, waiter: _Waiter) -> None:
        try:
            if not self._attempted(waiter):
                return
            error: GatewayError | None = None
        except GatewayError as refusal:
            error = refusal
        except Exception:  # noqa: BLE001 - logged: one request's fault must not keep the others waiting
            _log.exception("a request that waited for model %r could not begin", waiter.request.model_name)
            error = GatewayError("internal error; the server's log has the cause")
        if self._leave(waiter) and error is not None:
            waiter.fail(error)

    def _attempted(self, waiter: _Waiter) -> bool:
        """Return whether the request has begun; False while its model is still being loaded."""
        try:
            waiter.attempt()
        except NotReady:
            self._waker.wake(waiter.request.model_name, waiter.request.model_version)
            return False
        return True

    def _leave(self, waiter: _Waiter) -> bool:
        room = self._rooms.get(waiter.request.model_name, [])
        if waiter not in room:
            return False
        room.remove(waiter)
        self._nbytes -= waiter.nbytes
        if not room:
            del self._rooms[waiter.request.model_name]
        return True

    # Deadlines: one timer for all, set to the first of them.

    def _ring_by(self, when_s: float) -> None:
        if when_s >= self._alarm_s:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_s = when_s
        self._alarm = self._clock.call_at(when_s, self._expire)

    def _expire(self) -> None:
        self._alarm, self._alarm_s = None, math.inf
        now_s = self._clock.now_s()
        for waiter in tuple(self._everyone()):
            if waiter.until_s <= now_s and self._leave(waiter):
                waiter.fail(_late(waiter, now_s))
        self._ring_by(min((waiter.until_s for waiter in self._everyone()), default=math.inf))

    def _everyone(self) -> Iterator[_Waiter]:
        for room in self._rooms.values():
            yield from room


def _size(request: InferRequest) -> int:
    return request.received_bytes or sum(tensor.array.nbytes for tensor in request.inputs)


def _late(waiter: _Waiter, now_s: float) -> GatewayError:
    model, waited_s = waiter.request.model_name, now_s - waiter.since_s
    deadline_s = waiter.request.deadline_s
    if deadline_s is not None and deadline_s <= now_s:
        return DeadlineExceeded(
            f"request for model '{model}' reached its deadline after {waited_s:.3f} s of waiting for the "
            "model to be loaded"
        )
    return NotReady(f"model '{model}' is still being loaded after {waited_s:.0f} s")


class _Deferred:
    """A request that is submitted when its model is READY; its Pending is completed by the real one."""

    def __init__(self, request: InferRequest, room: ColdStarts, service: InferenceService) -> None:
        self._request = request
        self._room = room
        self._service = service
        self._pending = Pending(request, self._cancelled)
        self._real: Pending | None = None
        self._leave: Callable[[], bool] = bool

    def begin(self, refused: NotReady) -> Pending:
        """Begin to wait; raises as `ColdStarts.submit`."""
        fail = self._pending.fail
        self._leave = self._room.enter(self._request, refused, attempt=self._attempt, fail=fail)
        return self._pending

    def _attempt(self) -> None:
        real = self._real = self._service.submit(self._request)
        real.add_done_callback(self._answered)

    def _answered(self, real: Pending) -> None:
        if real.error is not None:
            self._pending.fail(real.error)
        elif real.response is not None:
            self._pending.complete(real.response)

    def _cancelled(self, _: Pending) -> None:
        if not self._leave() and self._real is not None:
            self._real.cancel()
