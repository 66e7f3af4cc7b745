"""A kill at any write and between any two looks: 24 of the 1,000 points that `crash_points` tries."""

from __future__ import annotations

import pytest

from tests.rollouts.shell.crash_points import kill_at, spread


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_a_gateway_that_was_killed_goes_on_where_it_was_and_its_records_are_whole(part: int) -> None:
    chosen = spread(24)[part::2]
    assert len(chosen) == 12
    for point in chosen:
        try:
            kill_at(point)
        except Exception as error:
            raise AssertionError(str(point)) from error
