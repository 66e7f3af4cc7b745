"""How many attempts one endpoint may have under way, found from how long requests wait in its queue."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.core.remote import ConcurrencyOptions

_MIN_STEP: Final = 0.5
_MAX_STEP: Final = 2.0
_GAIN: Final = 0.7
_ADDED: Final = 0.5
_ADDED_OF_ROOT: Final = 0.25
_FELL: Final = 0.5
_STILL: Final = 0.8
_LEAST: Final = 4
_EARLY: Final = 0.75
"""Reports come with jitter: one that is early by a quarter of the interval is as good as in time."""
_REFUSED: Final = 0.8
_SILENT_AFTER: Final = 5.0


class ConcurrencyLimit:
    """The limit of one endpoint.

    An endpoint with `c` runs at once, kept busy with `limit` requests, has them wait `limit / c - 1` times
    as long as they run. So the limit at which they wait `target` times as long is
    `limit * (1 + target) / (1 + wait / compute)`: one step from any limit that keeps it busy, taken by 0.7
    of the way, by a factor between 0.5 and 2 at most. A limit that was not reached is not raised: nothing
    was learned about more. To each step a little is added, 0.5 or a quarter of the limit's root: limits of
    several gateways that only followed one factor would keep whatever ratio they have, with what is added
    they become equal in half a minute or so. For that the wait is a little longer than aimed at, and the
    smallest limits are larger by one.

    Waiting is what the endpoint itself reports, so neither the network nor the longer runs of larger
    batches look like a queue. Waiting that a lower limit does not shorten is not for a queue of ours, but
    for a batch to fill, or behind others: when the limit fell to a half and the wait is still 0.8 of the
    longest, or a lone request waits, that wait is taken off from then on, and the limit is what it was.

    A refusal lowers it at once by a fifth, once an interval. From an endpoint that reports nothing it
    comes back with answers, by one for each `limit` of them, to `initial` at most.

    Bound: always in [min, max].

    Attributes:
        limit: attempts that may be under way.
    """

    __slots__ = (
        "_adapted_s", "_compute_s", "_count", "_cut_s", "_exact", "_fell_from", "_options", "_others_s",
        "_reached", "_wait_s", "limit",
    )  # fmt: skip

    def __init__(self, options: ConcurrencyOptions, now_s: float) -> None:
        self._options = options
        self._exact = float(options.initial)
        self.limit = options.initial
        self._reached = False
        self._wait_s = self._compute_s = 0.0
        self._count = 0
        self._others_s = 0.0
        self._fell_from: tuple[float, float] | None = None
        self._adapted_s = now_s
        self._cut_s = now_s - options.interval_s

    def restart(self) -> None:
        """The endpoint is back: what was learned above the initial limit is not trusted any more."""
        self._set(min(self._exact, self._options.initial))
        self._forget()

    def began(self, inflight: int) -> None:
        """An attempt was begun; there are now so many."""
        self._reached = self._reached or inflight >= self.limit

    def answered(self, now_s: float) -> None:
        """An attempt was answered."""
        below = self._exact < self._options.initial
        if below and now_s - self._adapted_s > _SILENT_AFTER * self._options.interval_s:
            self._set(min(self._options.initial, self._exact + 1.0 / self._exact))

    def refused(self, inflight: int, now_s: float) -> None:
        """The endpoint refused an attempt as it was full; there were so many, this one included."""
        if now_s - self._cut_s >= self._options.interval_s:
            self._cut_s = now_s
            self._set(min(self._exact, inflight) * _REFUSED)

    def reported(self, wait_s: float, compute_s: float, count: int, now_s: float) -> None:
        """Take note of averages over `count` requests that the endpoint finished, and adapt if it is time."""
        self._wait_s += wait_s * count
        self._compute_s += compute_s * count
        self._count += count
        if self._count < _LEAST or now_s - self._adapted_s < _EARLY * self._options.interval_s:
            return
        if self._compute_s > 0:
            self._adapt(self._wait_s / self._count, self._compute_s / self._count)
        self._forget()
        self._adapted_s = now_s

    def _adapt(self, wait_s: float, compute_s: float) -> None:
        self._others_s = min(self._others_s, wait_s)
        ratio = (wait_s - self._others_s) / compute_s
        step = min(_MAX_STEP, max(_MIN_STEP, (1.0 + self._options.target_wait_share) / (1.0 + ratio)))
        if step < 1.0 and self._is_in_vain(wait_s):
            self._others_s = wait_s
            return
        if step >= 1.0:
            self._fell_from = None
        change = self._exact * (step - 1.0)
        if self._reached:
            change += max(_ADDED, _ADDED_OF_ROOT * math.sqrt(self._exact))
        elif change > 0:
            return
        self._set(self._exact + _GAIN * change)

    def _is_in_vain(self, wait_s: float) -> bool:
        """Return whether lowering the limit did not shorten the wait; it is then what it was before."""
        if self._fell_from is None:
            self._fell_from = (self._exact, wait_s)
        limit, longest_s = self._fell_from
        longest_s = max(longest_s, wait_s)
        self._fell_from = limit, longest_s
        if self.limit > 1 and self._exact > _FELL * limit:
            return False
        self._fell_from = None
        if self.limit > 1 and wait_s < _STILL * longest_s:
            return False
        self._set(limit)
        return True

    def _forget(self) -> None:
        self._wait_s = self._compute_s = 0.0
        self._count = 0
        self._reached = False

    def _set(self, exact: float) -> None:
        if self._options.adaptive:
            self._exact = min(float(self._options.max), max(float(self._options.min), exact))
            self.limit = int(self._exact + 0.5)
