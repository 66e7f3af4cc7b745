"""Time as a dependency: monotonic seconds and timers, so that tests can own time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer(Protocol):
    """A scheduled callback that can still be called off."""

    def cancel(self) -> None:
        """Call the timer off; harmless when it has fired or been cancelled already."""


class Clock(Protocol):
    """Monotonic time and timers of one event loop."""

    def now_s(self) -> float:
        """Return monotonic seconds; only differences mean anything."""

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` on the event loop at or soon after `when_s` (resolution about 1 ms)."""


class LoopClock:
    """The real clock: `time.monotonic` (uvloop's own `time()` is cached and in milliseconds)."""

    def now_s(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Timer:
        """Schedule on the running loop; must be called from the loop's thread."""
        delay_s = max(0.0, when_s - time.monotonic())
        return asyncio.get_running_loop().call_later(delay_s, callback)
