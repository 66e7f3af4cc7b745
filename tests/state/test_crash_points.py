"""Every step of writing state is broken in every way: 1,000 of the points that `crash_points` knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.state.crash_points import break_chain, break_journal, chain_steps, journal_steps, points

if TYPE_CHECKING:
    from pathlib import Path

CHAIN_POINTS = list(points(chain_steps(), 1))
JOURNAL_POINTS = list(points(journal_steps(), 1))


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_the_journal_is_as_before_or_after_the_write_that_was_interrupted(part: int) -> None:
    """After any fault at any step the documents are there, none goes back, and what was read stays."""
    chosen = JOURNAL_POINTS[part :: len(JOURNAL_POINTS) // 250]
    assert len(chosen) >= 250
    for point in chosen:
        try:
            break_journal(point)
        except Exception as error:
            raise AssertionError(str(point)) from error


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_the_chain_verifies_after_any_interruption(part: int, tmp_path: Path) -> None:
    """After any fault at any step the chain is sound and holds all that was acknowledged, in order."""
    chosen = CHAIN_POINTS[part :: len(CHAIN_POINTS) // 250]
    assert len(chosen) >= 250
    for point in chosen:
        try:
            break_chain(point, tmp_path)
        except Exception as error:
            raise AssertionError(str(point)) from error
