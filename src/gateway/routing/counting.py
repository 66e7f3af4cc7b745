"""Counts what becomes of requests by the arm that they were assigned to: the evidence that rollouts go by.

A request counts for the arm and the step that it was assigned in, whoever answers it and whatever is in force
when it ends (intention to treat):

- answered by its arm: in `requests` and `units`;
- answered by stable in its place: the same, and in `errors` and `fallbacks`;
- failed by BackendError, NotReady, Overloaded of the version's queue, DeadlineExceeded, or an error nobody
  foresaw: in `requests`, `units` and `errors`;
- refused as InvalidRequest by the version of an arm but stable, though stable's signature would take it: the
  same, for its clients did nothing new; a canary that refuses what it should take must not look idle;
- failed otherwise by InvalidRequest, NotFound, PermissionDenied or Unsupported, the client's own faults, by
  Cancelled, or by Draining, since the server is going down: in none of these.

All of them are in `requests_all`, and their buckets, each once, in `keys`. Requests that chose their arm
themselves are in nothing, and neither are those that found no version of stable READY.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from gateway.core.errors import Cancelled, Draining, InvalidRequest, NotFound, PermissionDenied, Unsupported
from gateway.core.evidence import ArmCounts
from gateway.core.rollout import PPM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.evidence import RoutePlan

MAX_KEYS: Final = 1 << 16
"""Keys told apart in one window, some megabytes. Every request of a further key is a unit of its own."""

NOT_THE_ARMS_FAULT: Final = (InvalidRequest, NotFound, PermissionDenied, Unsupported, Cancelled, Draining)

_SEEN: Final = 1
_FAILED: Final = 2
_MEASURED: Final = 4
_EXCEEDED: Final = 3  # the first threshold's bit


class ArmCounter:
    """The totals of one arm; written by EvidenceCounter."""

    __slots__ = (
        "crashes",
        "errors",
        "exceeded",
        "fallbacks",
        "keys",
        "measured",
        "requests",
        "requests_all",
        "units",
    )

    def __init__(self, thresholds: int) -> None:
        self.requests = 0
        self.units = 0
        self.errors = 0
        self.exceeded = [0] * thresholds
        self.measured = 0
        self.crashes = 0
        self.fallbacks = 0
        self.requests_all = 0
        self.keys = 0

    def counts(self) -> ArmCounts:
        """Return the totals as they are now."""
        return ArmCounts(
            requests=self.requests,
            units=self.units,
            errors=self.errors,
            exceeded=tuple(self.exceeded),
            measured=self.measured,
            crashes=self.crashes,
            fallbacks=self.fallbacks,
            requests_all=self.requests_all,
            keys=self.keys,
        )


class EvidenceCounter:
    """The totals of all arms of one step of one rollout. Event loop only.

    Where the unit is the key, a key counts once per window in each of `units`, `errors`, `measured` and each
    threshold of `exceeded`. Windows follow each other without gaps, for all arms together, so that no arm is
    told apart more finely than another. Buckets are remembered as long as the totals, a bit each, and
    count for the arm that they came to first.

    Args:
        plan: whose thresholds, unit and window count.
        max_keys: keys remembered in one window.

    Attributes:
        saturated: requests of keys beyond these, each counted as a unit.
    """

    __slots__ = (
        "_arms",
        "_buckets",
        "_by_key",
        "_keys",
        "_max_keys",
        "_thresholds_s",
        "_window_ends_s",
        "_window_s",
        "saturated",
    )

    def __init__(self, plan: RoutePlan, max_keys: int = MAX_KEYS) -> None:
        self.saturated = 0
        self._thresholds_s = list(plan.latency_thresholds_s)
        self._by_key = plan.unit_is_key
        self._max_keys = max_keys
        self._window_s = plan.window_s
        self._window_ends_s = 0.0
        self._keys: dict[int, int] = {}
        self._buckets = bytearray(PPM >> 3)
        self._arms = {arm.name: ArmCounter(len(self._thresholds_s)) for arm in plan.arms}

    def fits(self, plan: RoutePlan) -> bool:
        """Whether a plan of the same step counts alike, so that its requests belong into the same totals."""
        return (
            self._thresholds_s == list(plan.latency_thresholds_s)
            and self._by_key == plan.unit_is_key
            and self._window_s == plan.window_s
            and self._arms.keys() == {arm.name for arm in plan.arms}
        )

    def arm(self, name: str) -> ArmCounter:
        """Return the totals of an arm."""
        return self._arms[name]

    def begin_window(self) -> None:
        """Tell keys apart anew from now on: some have changed arms."""
        self._keys.clear()

    def took_part(self, arm: ArmCounter, bucket: int) -> None:
        """Count a request that has ended, however; what is left out of all else counts here.

        Args:
            arm: of the arm that it was assigned to.
            bucket: of its key, from 0 up to but not including PPM.
        """
        arm.requests_all += 1
        place = bucket >> 3
        known = self._buckets[place]
        bit = 1 << (bucket & 7)
        if not known & bit:
            self._buckets[place] = known | bit
            arm.keys += 1

    def finished(
        self, arm: ArmCounter, unit: int | None, now_s: float, latency_s: float | None, failed: bool
    ) -> None:
        """Count a request that ended well or failed, besides `took_part`.

        Args:
            arm: of the arm that it was assigned to.
            unit: hash of its key; None makes it a unit of its own.
            now_s: monotonic time.
            latency_s: from its arrival to its answer; None: it had none, or it is not to be counted.
            failed: it counts as an error.
        """
        arm.requests += 1
        seen = 0
        if unit is not None and self._by_key:
            seen = self._seen(unit, now_s)
        marks = seen
        if not seen & _SEEN:
            arm.units += 1
            marks |= _SEEN
        if failed and not seen & _FAILED:
            arm.errors += 1
            marks |= _FAILED
        if latency_s is not None:
            marks = self._measure(arm, marks, latency_s)
        if marks != seen and unit is not None and self._by_key:
            if seen or len(self._keys) < self._max_keys:
                self._keys[unit] = marks
            else:
                self.saturated += 1

    def totals(self) -> Mapping[str, ArmCounts]:
        """Return the totals of every arm as they are now."""
        return {name: arm.counts() for name, arm in self._arms.items()}

    def _seen(self, unit: int, now_s: float) -> int:
        """Return what a key has been counted for in the window of this moment."""
        if now_s >= self._window_ends_s:
            self._keys.clear()
            self._window_ends_s = now_s - now_s % self._window_s + self._window_s
            return 0
        return self._keys.get(unit, 0)

    def _measure(self, arm: ArmCounter, marks: int, latency_s: float) -> int:
        if not marks & _MEASURED:
            arm.measured += 1
            marks |= _MEASURED
        # Ascending thresholds: those before the first that is not below the latency are exceeded.
        for index in range(bisect_left(self._thresholds_s, latency_s)):
            bit = 1 << (_EXCEEDED + index)
            if not marks & bit:
                arm.exceeded[index] += 1
                marks |= bit
        return marks
