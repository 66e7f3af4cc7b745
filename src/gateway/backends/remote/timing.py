"""Waiting by a `Clock`: pauses, and limits on how long something may take."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from gateway.core.clock import Clock, Timer


async def pause(clock: Clock, seconds: float) -> None:
    """Wait `seconds`; always gives way once. Cancelling calls the timer off."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    await wait_set(clock, asyncio.Event(), clock.now_s() + seconds)


async def wait_set(clock: Clock, event: asyncio.Event, until_s: float | None) -> bool:
    """Wait until `event` is set, or until `until_s`; return whether it is set."""
    if until_s is None:
        return await event.wait()
    try:
        with TimeLimit(clock, until_s):
            return await event.wait()
    except TimeoutError:
        return event.is_set()


class TimeLimit:
    """Ends its block with TimeoutError at a time of a `Clock`, as `asyncio.timeout_at` does at the loop's.

    The block is cancelled; a cancellation from elsewhere goes through, also one that comes at the same time.

    Attributes:
        expired: the time has come while the block ran.
    """

    __slots__ = ("_cancelling", "_clock", "_task", "_timer", "_when_s", "expired")

    def __init__(self, clock: Clock, when_s: float | None) -> None:
        """Prepare a limit; None: none."""
        self._clock = clock
        self._when_s = when_s
        self._timer: Timer | None = None
        self.expired = False

    def __enter__(self) -> Self:
        """Begin, in the task that runs the block."""
        task = asyncio.current_task()
        assert task is not None, "a time limit needs a task to end"
        self._task = task
        self._cancelling = task.cancelling()
        if self._when_s is not None:
            self._timer = self._clock.call_at(self._when_s, self._expire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Call the timer off.

        Raises:
            TimeoutError: the limit, and nobody else, cancelled the block.
        """
        if self._timer is not None:
            self._timer.cancel()
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def ending(self) -> bool:
        """Whether the block is being ended, by this limit or by whoever cancelled the task.

        If not, a CancelledError in it only says that what it awaits was cancelled.
        """
        return self._task.cancelling() > self._cancelling

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()
