"""Freeze windows follow the wall clock of their zone, across daylight saving."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.core.rollout import FreezeWindow
from gateway.rollouts.freeze import frozen_until, next_freeze

BERLIN = ZoneInfo("Europe/Berlin")
WEEKEND = (FreezeWindow("0 17 * * FRI", 63 * 3600.0, "Europe/Berlin"),)


def at(*when: int) -> float:
    return datetime(*when, tzinfo=BERLIN).timestamp()  # type: ignore[misc,arg-type]  # year, month, day, ...


@pytest.mark.parametrize(
    ("when", "frozen"),
    [
        ((2026, 3, 27, 16, 59), False),
        ((2026, 3, 27, 17, 0), True),
        ((2026, 3, 29, 12, 0), True),
        ((2026, 3, 30, 8, 59), True),  # the night was an hour shorter: 63 hours end at nine
        ((2026, 3, 30, 9, 0), False),
        ((2026, 10, 26, 6, 59), True),  # and an hour longer: they end at seven
        ((2026, 10, 26, 7, 0), False),
    ],
)
def test_a_weekend_is_frozen_for_as_long_as_it_says(when: tuple[int, ...], frozen: bool) -> None:
    """The beginning is local time, the length elapsed time."""
    assert (frozen_until(WEEKEND, at(*when)) is not None) is frozen


def test_the_end_of_the_latest_of_overlapping_windows_counts() -> None:
    """Two windows that overlap freeze until both are over."""
    both = (*WEEKEND, FreezeWindow("0 0 * * SUN", 48 * 3600.0, "Europe/Berlin"))
    assert frozen_until(both, at(2026, 5, 17, 12)) == at(2026, 5, 19)


@pytest.mark.parametrize(
    "window", [FreezeWindow("no cron", 60.0), FreezeWindow("* * * * *", 60.0, "No/Zone")]
)
def test_a_window_that_nobody_can_read_freezes(window: FreezeWindow) -> None:
    """To stop is the safe mistake."""
    assert frozen_until((window,), at(2026, 5, 17)) == float("inf")


def test_the_next_window_is_announced() -> None:
    """Beginning and end of the next one."""
    assert next_freeze(WEEKEND, at(2026, 5, 13)) == (at(2026, 5, 15, 17), at(2026, 5, 18, 8))
