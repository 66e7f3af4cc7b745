"""Events that come in groups: counted as groups, at no cost where they come alone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.statistics import dispersion
from gateway.statistics.dispersion import Spread
from gateway.statistics.mixture import ABOVE, log_e, observe, start


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
    grouped = observe(start(ABOVE), (32, 0), 0.5, ABOVE, dispersion.index(spread))
    alone = observe(start(ABOVE), (2, 0), 0.5, ABOVE)
    assert 0 < grouped.peak < alone.peak


@pytest.mark.parametrize("size", [8, 32])
def test_so_it_does_in_the_first_window(size: int) -> None:
    """Where nothing else is known, all events of a window are taken for one group."""
    first = dispersion.index(dispersion.add(Spread(), 400, size))
    assert first > 0.5 * size
    assert observe(start(ABOVE), (size, 0), 0.5, ABOVE, first).peak < 2


def test_each_window_is_held_against_the_others() -> None:
    """As leaving each out in turn says."""
    events = [0, 0, 8, 1, 0, 0, 16, 0]
    others = [(sum(events) - count) / (len(events) - 1) for count in events]
    about = sum((count - rate) ** 2 for count, rate in zip(events, others, strict=True))
    expected = (dispersion.PRIOR + about) / (dispersion.PRIOR + sum(events))
    assert dispersion.index(_spread(events)) == pytest.approx(expected)


@given(st.floats(0.01, 0.99), st.lists(st.floats(1, 50), min_size=13, max_size=13), st.floats(0.001, 0.999))
def test_an_index_costs_no_validity(share: float, together: list[float], alpha: float) -> None:
    """With any index, chosen by the outcome as badly as may be, 1/alpha is reached with at most alpha."""
    reached = math.fsum(
        binom.pmf(bad, 12, share)
        for bad in range(13)
        if log_e(observe(start(ABOVE), (bad, 12 - bad), share, ABOVE), together[bad]) >= -math.log(alpha)
    )
    assert reached <= alpha + 1e-9


def _spread(events: list[int]) -> Spread:
    spread = Spread()
    for count in events:
        spread = dispersion.add(spread, 10, count)
    return spread
