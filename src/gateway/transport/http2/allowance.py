"""How often a client may do what costs it nothing: an allowance that refills with time."""

from __future__ import annotations


class Allowance:
    """A token bucket that looks at the time only when it is empty.

    Args:
        amount: how much comes back per interval, and the most that is saved up.
        interval_s: the interval in seconds.
        now_s: monotonic time.

    Attributes:
        left: what may be spent; whoever spends below zero has to ask for a refill.
    """

    __slots__ = ("_amount", "_filled_s", "_interval_s", "left")

    def __init__(self, amount: int, interval_s: float, now_s: float) -> None:
        self._amount = amount
        self._interval_s = interval_s
        self._filled_s = now_s
        self.left = float(amount)

    def refill(self, now_s: float, extra: int) -> bool:
        """Add what has come back since the last time; return whether the last one spent was covered.

        Args:
            now_s: monotonic time.
            extra: allowance earned in other ways since then.
        """
        back = (now_s - self._filled_s) / self._interval_s * self._amount
        self._filled_s = now_s
        self.left = min(float(self._amount), self.left + back) + extra
        return self.left >= 0
