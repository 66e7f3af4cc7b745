"""When windows of time that begin by a cron expression opened, by the wall clock of a time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

UNREADABLE: Final = float("-inf")


@lru_cache(maxsize=256)
def last_begin(cron: str, timezone: str, minute: int) -> float | None:
    """Return the last beginning before the end of a minute of the epoch; None if there was none.

    Args:
        cron: five fields.
        timezone: IANA name.
        minute: since the epoch; cron has no finer grain.

    Returns:
        Seconds since the epoch; UNREADABLE where expression or zone cannot be read.
    """
    try:
        local = datetime.fromtimestamp(minute * 60 + 60, tz=UTC).astimezone(ZoneInfo(timezone))
        return next(CronSim(cron, local, reverse=True)).timestamp()
    except StopIteration:
        return None
    except (CronSimError, KeyError, ValueError, OSError, OverflowError):
        return UNREADABLE
