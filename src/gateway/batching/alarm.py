"""One timer that is only ever brought forward: it may ring too early, never late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.clock import Clock, Timer

TIMER_STEP_S: Final = 0.001
"""A timer is never set closer than its resolution, or an early one would spin until its time has come."""


class Alarm:
    """Runs a callback no later than the earliest time asked for since it last ran."""

    def __init__(self, clock: Clock, callback: Callable[[], None]) -> None:
        self._clock = clock
        self._callback = callback
        self._timer: Timer | None = None
        self._timer_s = 0.0
        self._closed = False

    def no_later(self, when_s: float | None, now_s: float) -> None:
        """Have it ring no later than `when_s`; None asks for nothing. Harmless once closed."""
        if when_s is None or self._closed or (self._timer is not None and self._timer_s <= when_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = max(when_s, now_s + TIMER_STEP_S)
        self._timer = self._clock.call_at(self._timer_s, self._ring)

    def close(self) -> None:
        """Never ring again."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._timer = None
        self._callback()
