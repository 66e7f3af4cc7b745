"""Events that come in groups: counted as groups, at no cost where they come alone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.statistics import dispersion
from gateway.statistics.dispersion import Spread
from gateway.statistics.mixture import ABOVE, Grouping, log_e, observe, start


def test_single_events_have_an_index_of_one() -> None:
    """Windows with no or one event each look independent."""
    assert dispersion.index(_spread([0] * 90 + [1] * 10)) == 1
    assert dispersion.index(Spread()) == 1


@pytest.mark.parametrize("size", [2, 8, 32])
def test_groups_have_an_index_of_about_their_size(size: int) -> None:
    """Windows in which rarely a whole group is bad tell the size of the group."""
    index = dispersion.index(_spread([0] * 980 + [size] * 20))
    assert 0.85 * size < index < 1.05 * size


def test_an_arm_in_which_everything_fails_is_no_group() -> None:
    """A rate of 100 % has no spread: nothing is divided and the canary goes at once."""
    assert dispersion.index(_spread([10] * 50), _spread([0] * 50)) == 1


def test_the_first_group_counts_for_little() -> None:
    """32 failures at a time are less evidence than two that come one by one."""
    spread = dispersion.add(_spread([0] * 20), 40, 32)
    grouped = observe(start(ABOVE), (32, 0), 0.5, ABOVE, Grouping(1.0, dispersion.index(spread)))
    alone = observe(start(ABOVE), (2, 0), 0.5, ABOVE)
    assert 0 < log_e(grouped) < log_e(alone)


@given(
    st.floats(0.01, 0.99),
    st.floats(1, 50),
    st.lists(st.floats(0, 50), min_size=13, max_size=13),
)
def test_an_index_costs_no_validity(share: float, before: float, now: list[float]) -> None:
    """With any index known before and any raised by the outcome, the evidence averages to at most 1."""
    mean = math.fsum(
        binom.pmf(bad, 12, share)
        * math.exp(log_e(observe(start(ABOVE), (bad, 12 - bad), share, ABOVE, Grouping(before, now[bad]))))
        for bad in range(13)
    )
    assert mean <= 1 + 1e-9


def _spread(events: list[int]) -> Spread:
    spread = Spread()
    for count in events:
        spread = dispersion.add(spread, 10, count)
    return spread
