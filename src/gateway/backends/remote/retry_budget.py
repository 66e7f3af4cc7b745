"""How many requests may be sent a second time: a share of those lately, and a few in any case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.core.remote import RetryOptions

KEPT_S: Final = 10.0
"""What requests of longer ago allowed is forgotten: a long calm is no reason for a storm."""


class RetryBudget:
    """Allows `budget_share` retries per request of the last 10 s, and `budget_floor_per_s` beside it.

    Bound: over its life it allows at most `budget_share` times the requests, and `budget_floor_per_s` times
    the seconds plus one second's worth (one retry at least, unless it is 0).
    """

    __slots__ = ("_burst", "_floor", "_floor_at_s", "_floor_per_s", "_new", "_old", "_share", "_turned_s")

    def __init__(self, options: RetryOptions) -> None:
        self._share = options.budget_share
        self._floor_per_s = options.budget_floor_per_s
        self._burst = max(1.0, self._floor_per_s) if self._floor_per_s > 0 else 0.0
        self._floor = self._burst
        self._floor_at_s: float | None = None
        self._new = self._old = 0.0
        self._turned_s: float | None = None

    @property
    def tokens(self) -> float:
        """Retries allowed at the last `turn`, without the floor's."""
        return self._new + self._old

    def request(self) -> None:
        """A request was begun."""
        self._new += self._share

    def turn(self, now_s: float) -> None:
        """Forget what is too old; to be called twice in 10 s, or what was saved meanwhile is lost."""
        if self._turned_s is None:
            self._turned_s = now_s
        elif now_s - self._turned_s >= KEPT_S:
            self._new = self._old = 0.0
            self._turned_s = now_s
        elif now_s - self._turned_s >= KEPT_S / 2:
            self._old, self._new = self._new, 0.0
            self._turned_s = now_s

    def take(self, now_s: float) -> bool:
        """Return whether a request may be sent again, counting it if so."""
        self.turn(now_s)
        if self.tokens >= 1.0 - 1e-9:
            needed = max(0.0, 1.0 - self._old)
            self._old = max(0.0, self._old - 1.0)
            self._new = max(0.0, self._new - needed)
            return True
        return self._take_floor(now_s)

    def _take_floor(self, now_s: float) -> bool:
        if self._floor_at_s is not None:
            gained = (now_s - self._floor_at_s) * self._floor_per_s
            self._floor = min(self._burst, self._floor + gained)
        self._floor_at_s = now_s
        if self._floor < 1.0:
            return False
        self._floor -= 1.0
        return True
