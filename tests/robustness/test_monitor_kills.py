"""A gateway and its monitor that are killed in turn: every row that was safe is counted, once."""

from __future__ import annotations

import pytest

from loadtests.monitor_kills import kill_both

KILLS = 4


@pytest.mark.soak
@pytest.mark.timeout(120)
def test_rows_are_counted_once_whoever_is_killed() -> None:
    """By SIGKILL, at random moments, with one of them stopped for a while between."""
    report = kill_both(KILLS, seed=5)
    assert report.problems == []
    assert set(report.kills) == {"gateway", "monitor"}
    assert report.applied
