"""Slow start: an endpoint that is new or back gets its full share only after a while."""

from __future__ import annotations

from typing import Final

MIN_WEIGHT: Final = 0.1
"""What it begins with, as Envoy does: enough to warm up, and to be found out if it is still bad."""


def slow_start_weight(since_s: float, now_s: float, slow_start_s: float) -> float:
    """Return the share, in [0.1, 1], of an endpoint's usual load that it may have; grows linearly.

    Args:
        since_s: monotonic time at which it came.
        now_s: monotonic time.
        slow_start_s: after so long it has all; 0: at once.
    """
    elapsed_s = now_s - since_s
    if elapsed_s >= slow_start_s:
        return 1.0
    return max(MIN_WEIGHT, elapsed_s / slow_start_s)
