"""Finding the request that makes its batch fail: what to run again, and how much that may cost."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

WINDOW_S: Final = 60
"""The minute over which extra compute is bounded."""

QUIET_MINUTE_S: Final = 10.0
"""Compute that every minute counts as having had: a model just loaded, or little used, has hardly any
ordinary compute to take a share of, and a device with time to spare. At a budget of 10 % it may add 1 s."""


def halves(members: Sequence[T]) -> list[list[T]]:
    """Return what to run instead of a failed batch: two halves, the first the larger; one part of one.

    Started from a batch of n and applied to every part that fails with more than one member, it runs each
    member at most `ceil(log2 n) + 1` times, the first failed run included: parts shrink to `ceil(n / 2)`.

    Args:
        members: those still to be answered, at least one; some of the batch may have been cancelled.
    """
    middle = (len(members) + 1) // 2
    return [part for part in (list(members[:middle]), list(members[middle:])) if part]


class BisectionBudget:
    """Bounds the seconds spent on parts of failed batches to a share of the last minute's ordinary compute.

    Reserved before a run, settled after it: as long as no part takes longer than what was reserved for it
    (the time of the whole failed batch), the bound holds at every moment.
    """

    def __init__(self, share: float) -> None:
        """Allow `share` of the last minute's ordinary run seconds, taken as at least `QUIET_MINUTE_S`."""
        self._share = share
        self._ordinary = _SlidingSum(WINDOW_S)
        self._extra = _SlidingSum(WINDOW_S + 1)  # whole seconds: one more errs on the side of less
        self._reserved_s = 0.0

    def ran(self, seconds: float, now_s: float) -> None:
        """Take note of an ordinary run."""
        self._ordinary.add(seconds, now_s)

    def reserve(self, seconds: float, now_s: float) -> bool:
        """Set aside `seconds` for a part; False, changing nothing, when the budget does not have them."""
        allowed_s = self._share * max(self._ordinary.total(now_s), QUIET_MINUTE_S)
        if self._extra.total(now_s) + self._reserved_s + seconds > allowed_s:
            return False
        self._reserved_s += seconds
        return True

    def settle(self, reserved_s: float, seconds: float, now_s: float) -> None:
        """Replace a reservation by what the part took; 0 if it was not run after all."""
        self._reserved_s -= reserved_s
        self._extra.add(seconds, now_s)


class Part(Generic[T]):
    """A part of a failed batch that is run by itself.

    Attributes:
        members: those it holds.
        reserved_s: what the budget has set aside for it.
    """

    __slots__ = (
        "members",
        "reserved_s",
    )

    def __init__(
        self,
        members: list[T],
        reserved_s: float,
    ) -> None:
        self.members = members
        self.reserved_s = reserved_s


class Bisection(Generic[T]):
    """The one bisection that a queue may have under way: the parts of a failed batch still to be run.

    Every part handed out by `take` comes back through `finished`, exactly once, after `divide` was tried if
    it failed. The bisection is over when no part is left; then another batch may begin one.
    """

    def __init__(self, share: float) -> None:
        """Start without one; `share` as for `BisectionBudget`."""
        self._budget = BisectionBudget(share)
        self._parts: deque[Part[T]] = deque()
        self._running = 0

    def __bool__(self) -> bool:
        """Whether one is under way."""
        return bool(self._parts or self._running)

    def ran(self, seconds: float, now_s: float) -> None:
        """Take note of an ordinary run: what the budget is a share of."""
        self._budget.ran(seconds, now_s)

    def divide(self, members: Sequence[T], expected_s: float, now_s: float) -> bool:
        """Queue the halves of a failed run.

        Args:
            members: those still to be answered.
            expected_s: what each half may take.
            now_s: the time.

        Returns:
            False, changing nothing, when the budget does not allow it: then all of them have to fail.
        """
        parts = halves(members)
        if not self._budget.reserve(expected_s * len(parts), now_s):
            return False
        self._parts.extend([Part(part, expected_s) for part in parts])
        return True

    def take(self) -> Part[T] | None:
        """Hand out the next part to run, or None."""
        if not self._parts:
            return None
        self._running += 1
        return self._parts.popleft()

    def finished(self, part: Part[T], seconds: float, now_s: float) -> None:
        """Take back a part that took `seconds`; 0 if it was not run after all."""
        self._running -= 1
        self._budget.settle(part.reserved_s, seconds, now_s)

    def waiting(self) -> Iterator[T]:
        """Give the members of the parts not yet run."""
        for part in self._parts:
            yield from part.members

    def withdraw(self, gone: Callable[[T], bool], now_s: float) -> list[T]:
        """Take the members that are `gone` out of the parts not yet run and return them."""
        withdrawn = [member for member in self.waiting() if gone(member)]
        if withdrawn:
            parts, self._parts = self._parts, deque()
            for part in parts:
                part.members = [member for member in part.members if member not in withdrawn]
                if part.members:
                    self._parts.append(part)
                else:
                    self._budget.settle(part.reserved_s, 0.0, now_s)
        return withdrawn

    def drain(self, now_s: float) -> list[T]:
        """Give up the parts not yet run and return their members."""
        members: list[T] = []
        while self._parts:
            part = self._parts.popleft()
            self._budget.settle(part.reserved_s, 0.0, now_s)
            members.extend(part.members)
        return members


class _SlidingSum:
    """A sum over the last `window_s` seconds, in whole-second buckets: bounded memory whatever the rate."""

    __slots__ = ("_buckets", "_window_s")

    def __init__(self, window_s: int) -> None:
        self._window_s = window_s
        self._buckets: dict[int, float] = {}

    def add(self, amount: float, now_s: float) -> None:
        second = int(now_s)
        if second not in self._buckets:
            self._trim(second)
        self._buckets[second] = self._buckets.get(second, 0.0) + amount

    def total(self, now_s: float) -> float:
        self._trim(int(now_s))
        return sum(self._buckets.values())

    def _trim(self, second: int) -> None:
        oldest = second - self._window_s
        for bucket in [bucket for bucket in self._buckets if bucket <= oldest]:
            del self._buckets[bucket]
