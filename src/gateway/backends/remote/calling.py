"""Requests to a fleet: attempts, retries elsewhere, hedges; exactly one answer of each."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from gateway.backends.remote.attempts import END, End, StreamAttempt, attempt
from gateway.backends.remote.members import ConnectionT
from gateway.backends.remote.racing import Race
from gateway.backends.remote.timing import pause, wait_set
from gateway.core.errors import BackendUnavailable, DeadlineExceeded, GatewayError, Overloaded
from gateway.core.remote import AttemptError, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from gateway.backends.remote.attempts import Operation, StreamOperation
    from gateway.backends.remote.policy import FleetPolicy
    from gateway.backends.remote.slots import Slot, Slots, Wanted
    from gateway.core.clock import Clock
    from gateway.core.remote import Address, FleetOptions, RemoteObserver

T = TypeVar("T")


class _Request:
    """What became of a request so far.

    Attributes:
        wanted: the request.
        tried: where it was sent, in order.
        refused: how many of those endpoints said that they are overloaded.
    """

    __slots__ = ("refused", "tried", "wanted")

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.tried: list[Address] = []
        self.refused = 0

    def failed(self, error: AttemptError) -> None:
        """Take note of the end of an attempt."""
        self.refused += error.outcome is Outcome.REFUSED


class Caller(Generic[ConnectionT]):
    """Sends requests to the endpoints of one fleet.

    A request that failed in a way that another endpoint may do better at is sent again while its attempts,
    the fleet's retry budget and its deadline last: after a pause with full jitter, and not to an endpoint
    that it has met while there is another. What may have begun to run is sent again only if it is
    repeatable. Where hedging is on, a repeatable request that takes longer than most gets a second attempt
    beside the first, and the first answer counts.

    When a method returns or raises, nothing of the request is under way any more, and every slot that it
    took was given back.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a fleet, put together once
        self,
        options: FleetOptions,
        policy: FleetPolicy,
        slots: Slots[ConnectionT],
        clock: Clock,
        observer: RemoteObserver,
        random: Callable[[], float],
    ) -> None:
        self._options = options
        self._policy = policy
        self._slots = slots
        self._clock = clock
        self._observer = observer
        self._random = random

    async def call(self, operation: Operation[ConnectionT, T], wanted: Wanted) -> T:
        """Return what the operation returns at some endpoint; cancelling cancels every attempt.

        Raises:
            BackendUnavailable: it failed at each endpoint tried, or none is available.
            Overloaded: no endpoint has room, or each one tried was full.
            DeadlineExceeded: the deadline is over.
            GatewayError: an endpoint's answer.
        """
        self._policy.request_began()
        request = _Request(wanted)
        while True:
            slot = await self._slots.get(wanted, request.tried, self._send_by_s(wanted))
            try:
                return await self._attempts(operation, request, slot)
            except AttemptError as error:
                await self._before_again(request, error)

    async def stream(
        self, operation: StreamOperation[ConnectionT, T], wanted: Wanted
    ) -> AsyncGenerator[T, None]:
        """Give the items of an operation; it is sent again only before the first. Closing cancels it.

        Raises:
            GatewayError: as `call`, from any step.
        """
        self._policy.request_began()
        request = _Request(wanted)
        items, item = await self._opened(operation, request)
        try:
            while item is not END:
                yield item
                try:
                    item = await items.next()
                except AttemptError as error:
                    request.failed(error)
                    raise self._final(request, error) from error
        finally:
            await items.aclose()

    async def _opened(
        self, operation: StreamOperation[ConnectionT, T], request: _Request
    ) -> tuple[StreamAttempt[T], T | Literal[End.END]]:
        while True:
            slot = await self._slots.get(request.wanted, request.tried, self._send_by_s(request.wanted))
            items = StreamAttempt(operation, slot, self._time(request, slot), self._clock)
            try:
                return items, await items.next()
            except AttemptError as error:
                await items.aclose()
                await self._before_again(request, error)
            except BaseException:
                await items.aclose()
                raise

    async def _attempts(
        self, operation: Operation[ConnectionT, T], request: _Request, slot: Slot[ConnectionT]
    ) -> T:
        hedge_after_s = self._hedge_after_s(request)
        if hedge_after_s is None:
            return await self._attempt(operation, request, slot)
        return await self._hedged(operation, request, slot, hedge_after_s)

    async def _attempt(
        self, operation: Operation[ConnectionT, T], request: _Request, slot: Slot[ConnectionT]
    ) -> T:
        limits = self._time(request, slot)
        result = await attempt(operation, slot, limits, self._clock)
        self._policy.note_latency(request.wanted.key, self._clock.now_s() - slot.began_s)
        return result

    async def _hedged(
        self,
        operation: Operation[ConnectionT, T],
        request: _Request,
        first: Slot[ConnectionT],
        after_s: float,
    ) -> T:
        async with asyncio.TaskGroup() as group:
            race = Race[T](group)
            race.start(partial(self._attempt, operation, request, first), first)
            if not await wait_set(self._clock, race.over, first.began_s + after_s):
                second = self._hedge(request)
                if second is not None:
                    race.start(partial(self._attempt, operation, request, second), second)
            await race.over.wait()
            race.stop()
        if race.winner == 1:
            self._observer.on_decision(self._options.name, "hedge_won")
            # The first would have taken at least so long: leaving it out would lower the quantile.
            self._policy.note_latency(request.wanted.key, self._clock.now_s() - first.began_s)
        return race.answer()

    def _hedge_after_s(self, request: _Request) -> float | None:
        """Return how long a first attempt may take alone; None: this request is not hedged."""
        if not request.wanted.repeatable or request.tried:
            return None
        return self._policy.hedge_after_s(request.wanted.key)

    def _hedge(self, request: _Request) -> Slot[ConnectionT] | None:
        """Return a slot for a second attempt, if another endpoint has room and the budget allows it."""
        address = self._slots.other(request.wanted, request.tried)
        if address is None:
            return None
        if not self._policy.may_hedge():
            self._observer.on_decision(self._options.name, "hedge_refused_budget")
            return None
        self._observer.on_decision(self._options.name, "hedge")
        return self._slots.begin(address)

    async def _before_again(self, request: _Request, error: AttemptError) -> None:
        """Wait until the request may be sent again.

        Raises:
            GatewayError: it may not; the answer.
        """
        request.failed(error)
        pause_s = self._pause_s(request, error)
        if pause_s is None:
            raise self._final(request, error) from error
        self._observer.on_decision(self._options.name, "retry")
        await pause(self._clock, pause_s)

    def _pause_s(self, request: _Request, error: AttemptError) -> float | None:
        """Return the seconds before the next attempt, having paid for it; None: there is none."""
        options, wanted = self._options.retry, request.wanted
        sent = len(request.tried)
        if sent >= options.attempts or (error.sent and not wanted.repeatable):
            return None
        pushback_s = error.pushback_s or 0.0
        if pushback_s < 0:
            self._observer.on_decision(self._options.name, "retry_refused_pushback")
            return None
        longest_s = min(options.max_backoff_s, options.backoff_s * 2.0 ** (sent - 1))
        pause_s = max(pushback_s, longest_s * self._random())
        send_by_s = self._send_by_s(wanted)
        now_s = self._clock.now_s()
        if send_by_s is not None and now_s + pause_s >= send_by_s:
            return None
        if not self._policy.may_retry(now_s):
            self._observer.on_decision(self._options.name, "retry_refused_budget")
            return None
        return pause_s

    def _final(self, request: _Request, error: AttemptError) -> GatewayError:
        """Return the answer to a request that is not sent again."""
        key, tried = request.wanted.key, len(set(request.tried))
        send_by_s = self._send_by_s(request.wanted)
        late = send_by_s is not None and self._clock.now_s() + self._options.deadline_margin_s >= send_by_s
        if late and error.outcome is Outcome.TIMED_OUT:
            return DeadlineExceeded(f"{key}: no answer before the deadline, {tried} endpoints tried")
        of = f"{tried} of {max(tried, len(self._policy.views()))} endpoints"
        if request.refused == len(request.tried):
            return Overloaded(f"{key}: {of} tried, each overloaded: {error}", retry_after_s=_after(error))
        return BackendUnavailable(f"{key}: failed, {of} tried: {error}")

    def _time(self, request: _Request, slot: Slot[ConnectionT]) -> tuple[float | None, float | None]:
        """Note an attempt, and return how long it may take and when it is ended should it not end itself.

        Raises:
            DeadlineExceeded: no time is left; the slot was given back.
        """
        now_s, margin_s = self._clock.now_s(), self._options.deadline_margin_s
        timeout_s = self._options.attempt_timeout_s
        send_by_s = self._send_by_s(request.wanted)
        if send_by_s is not None:
            timeout_s = send_by_s - now_s if timeout_s is None else min(timeout_s, send_by_s - now_s)
            if timeout_s <= 0:
                slot.abandon()
                raise DeadlineExceeded(f"{request.wanted.key}: the deadline was over before it was sent")
        request.tried.append(slot.address)
        return timeout_s, None if timeout_s is None else now_s + timeout_s + margin_s

    def _send_by_s(self, wanted: Wanted) -> float | None:
        """Return the time by which endpoints are told to have answered."""
        return None if wanted.deadline_s is None else wanted.deadline_s - self._options.deadline_margin_s


def _after(error: AttemptError) -> float | None:
    return error.pushback_s if error.pushback_s is not None and error.pushback_s >= 0 else None
