"""Freeze windows: when nothing starts, advances or is promoted, by the wall clock of a time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from gateway.core.cron import UNREADABLE, last_begin

if TYPE_CHECKING:
    from gateway.core.rollout import FreezeWindow


def frozen_until(windows: tuple[FreezeWindow, ...], wall_s: float) -> float | None:
    """Return when the freeze ends that is in force at `wall_s`, None when there is none.

    A window lasts `for_s` of elapsed time from its beginning, whatever the clocks do meanwhile. One that
    cannot be read (no such zone, no such day) freezes for good: to stop is the safe mistake.

    Args:
        windows: of one rollout; they may overlap.
        wall_s: seconds since the epoch.
    """
    ends = [end for window in windows if (end := _end_of(window, wall_s)) is not None]
    return max(ends, default=None)


def _end_of(window: FreezeWindow, wall_s: float) -> float | None:
    # One answer per window and minute: cron has no finer grain, and decisions ask once a second.
    began_s = last_begin(window.cron, window.timezone, int(wall_s // 60))
    if began_s is None:
        return None
    if began_s == UNREADABLE:
        return float("inf")
    end_s = began_s + window.for_s
    return end_s if began_s <= wall_s < end_s else None


def next_freeze(windows: tuple[FreezeWindow, ...], wall_s: float) -> tuple[float, float] | None:
    """Return beginning and end of the next window that opens after `wall_s`; None when none does."""
    found = [span for window in windows if (span := _next_span(window, wall_s)) is not None]
    return min(found, default=None)


def _next_span(window: FreezeWindow, wall_s: float) -> tuple[float, float] | None:
    try:
        local = datetime.fromtimestamp(wall_s, tz=UTC).astimezone(ZoneInfo(window.timezone))
        begin = next(CronSim(window.cron, local))
    except (StopIteration, CronSimError, KeyError, ValueError, OSError, OverflowError):
        return None
    end = begin.astimezone(UTC) + timedelta(seconds=window.for_s)
    return begin.timestamp(), end.timestamp()
