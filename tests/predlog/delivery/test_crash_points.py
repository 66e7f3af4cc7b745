"""Every step of a lane's log is broken in every way: 1,000 of the points that `crash_points` knows."""

from __future__ import annotations

import pytest

from tests.predlog.delivery.crash_points import break_at, points

POINTS = list(points(3))


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_row_is_delivered_or_dropped_or_lost_with_its_process(part: int) -> None:
    """After any fault at any step each row is accounted for exactly once."""
    chosen = POINTS[part :: len(POINTS) // 250][:250]
    assert len(chosen) == 250
    for point in chosen:
        try:
            break_at(point)
        except Exception as error:
            raise AssertionError(str(point)) from error
