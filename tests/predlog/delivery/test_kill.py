"""kill -9 of a real process that delivers: what it had on disk arrives, once in effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.predlog.delivery.killing import kill_many

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.soak
@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Five lives of the 50 of `loadtests.predlog_crashes`, with a monitor that comes and goes."""
    tally = kill_many(tmp_path, 5, seed=3)
    assert tally.faults == []
    assert tally.kills == 5
