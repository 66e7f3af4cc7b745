"""When a registry is asked again: jitter, backoff, hints, and bounds on how long and how much at once."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from gateway.core.clock import Clock

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class PollOptions:
    """How often and how patiently a registry is asked.

    Attributes:
        interval_s: seconds between two looks at a model.
        jitter: share of a pause by which it varies, so that gateways do not ask in step; 0.2 is ±20 %.
        timeout_s: a look that takes longer has failed.
        start_timeout_s: what the registry has not answered by then is taken from the last run at start.
        max_backoff_s: pauses after failures double up to this.
        hint_spacing_s: hints make a look at a model no sooner than so long after the last one began.
        concurrency: looks under way at once at models that answer.
        retry_concurrency: looks under way at once at models whose last look failed; they take no turns from
            the others.
    """

    interval_s: float = 10.0
    jitter: float = 0.2
    timeout_s: float = 15.0
    start_timeout_s: float = 5.0
    max_backoff_s: float = 60.0
    hint_spacing_s: float = 1.0
    concurrency: int = 16
    retry_concurrency: int = 2


def pause_s(options: PollOptions, failures: int, uniform: float) -> float:
    """Return the seconds until the next look. Pure.

    Args:
        options: settings.
        failures: looks in a row that failed.
        uniform: a random number in [0, 1).
    """
    # The exponent is bounded because the doubling would leave the range of floats.
    longest_s = max(options.interval_s, options.max_backoff_s)
    base_s = min(longest_s, options.interval_s * 2.0 ** min(max(0, failures - 1), 32))
    return base_s * (1 + options.jitter * (2 * uniform - 1))


class Turn:
    """When one model is looked at next. Event loop only.

    Hints given while a look is under way are kept, as that look may have come too early; any number of them
    makes one look.

    Args:
        clock: time and timers.
        spacing_s: a hint makes a look no sooner than so long after the last one began.
    """

    def __init__(self, clock: Clock, spacing_s: float) -> None:
        self._clock = clock
        self._spacing_s = spacing_s
        self._due_s: float | None = clock.now_s()
        self._began_s = float("-inf")
        self._hinted = False
        self._moved = asyncio.Event()

    def begin(self) -> None:
        """A look begins now."""
        self._began_s = self._clock.now_s()
        self._due_s = None
        self._hinted = False

    def plan(self, delay_s: float) -> None:
        """The look is over: the next is due in `delay_s`, or earlier where a hint came meanwhile."""
        self._due_s = self._clock.now_s() + delay_s
        self._moved.set()
        if self._hinted:
            self._bring_forward(self._began_s + self._spacing_s)

    def hint(self) -> None:
        """Something may have changed: look as soon as the spacing allows."""
        self._hinted = True
        self._bring_forward(self._began_s + self._spacing_s)

    def sooner(self, delay_s: float) -> None:
        """Look within `delay_s`; harmless when that is due anyway, or while a look is under way."""
        self._bring_forward(self._clock.now_s() + delay_s)

    def remaining_s(self) -> float | None:
        """Return the seconds until the next look; None while one is under way."""
        return None if self._due_s is None else max(0.0, self._due_s - self._clock.now_s())

    async def wait(self) -> None:
        """Wait until a look is due."""
        while self._due_s is not None and self._due_s > self._clock.now_s():
            self._moved.clear()
            timer = self._clock.call_at(self._due_s, self._moved.set)
            try:
                await self._moved.wait()
            finally:
                timer.cancel()

    def _bring_forward(self, due_s: float) -> None:
        if self._due_s is not None and due_s < self._due_s:
            self._due_s = max(due_s, self._clock.now_s())
            self._moved.set()


class Lanes:
    """Bounds the looks under way, those at models that failed apart from the others.

    So a registry that answers for some models and hangs for others is asked for the former as ever.
    """

    def __init__(self, options: PollOptions) -> None:
        self._sound = asyncio.Semaphore(options.concurrency)
        self._failed = asyncio.Semaphore(options.retry_concurrency)

    @contextlib.asynccontextmanager
    async def enter(self, failures: int) -> AsyncGenerator[None, None]:
        """Wait for a place, and hold it until the context is left."""
        async with self._failed if failures else self._sound:
            yield


async def within(clock: Clock, seconds: float, work: Coroutine[None, None, Answer]) -> Answer:
    """Return what `work` returns, if it does within `seconds` of `clock`; else it is cancelled.

    Cancelling this cancels `work`; either way it has ended when this returns.

    Raises:
        TimeoutError: it took longer, or cancelled itself.
    """
    task = asyncio.ensure_future(work)
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = clock.call_at(clock.now_s() + seconds, expire)
    try:
        return await task
    except asyncio.CancelledError:
        own = asyncio.current_task()
        if own is not None and own.cancelling():
            raise
        why = f"no answer within {seconds:g} s" if expired else "the question was called off"
        raise TimeoutError(why) from None
    finally:
        timer.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


class Jittered:
    """Pauses with jitter from a source of random numbers in [0, 1)."""

    def __init__(self, options: PollOptions, uniform: Callable[[], float]) -> None:
        self._options = options
        self._uniform = uniform

    def after(self, failures: int) -> float:
        """Return the seconds until the next look after so many failures in a row."""
        return pause_s(self._options, failures, self._uniform())

    def spread(self) -> float:
        """Return a moment within one interval, for many looks that would all be due now."""
        return self._options.interval_s * self._uniform()
