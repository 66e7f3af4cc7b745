"""The ratio of two rates: valid for independent units exactly, whatever the rates and shares."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.statistics import ratio
from gateway.statistics.mixture import ABOVE, BELOW, log_e, start
from gateway.statistics.ratio import Window

units = st.integers(1, 25)
rates = st.integers(0, 100).map(lambda percent: percent / 100)


@given(units, units, rates, st.floats(0.2, 4), rates)
def test_evidence_of_harm_averages_to_at_most_one_without_harm(
    canary: int, stable: int, rate: float, most: float, part: float
) -> None:
    """Over all outcomes of two arms whose ratio is at most the bound, the evidence averages to at most 1."""
    other = min(rate * most * part, 1.0)
    mean = math.fsum(
        chance * math.exp(log_e(ratio.above(start(ABOVE), window, most)))
        for chance, window in _outcomes(canary, other, stable, rate)
    )
    assert mean <= 1 + 1e-9


@given(units, units, rates, st.floats(1, 4))
def test_evidence_of_a_margin_averages_to_at_most_one_without_it(
    canary: int, stable: int, rate: float, least: float
) -> None:
    """Over all outcomes of a canary at least as bad as the margin, the evidence averages to at most 1."""
    other = rate
    mean = math.fsum(
        chance * math.exp(log_e(ratio.below(start(BELOW), window, least)))
        for chance, window in _outcomes(canary, other, stable, rate / least)
    )
    assert mean <= 1 + 1e-9


def test_a_window_with_one_arm_says_nothing() -> None:
    """Without units of both arms there is nothing to compare."""
    for window in (Window(0, 3, 10, 3), Window(10, 3, 0, 3), Window()):
        assert ratio.above(start(ABOVE), window, 1.0) == start(ABOVE)


def test_each_window_counts_with_its_own_share() -> None:
    """A change of weight between windows with unequal rates makes no evidence of its own."""
    process = start(ABOVE)
    for window in (Window(10, 0, 990, 10), Window(500, 50, 500, 50)):
        process = ratio.above(process, window, 1.0)
    pooled = ratio.above(start(ABOVE), Window(510, 50, 1490, 60), 1.0)
    assert log_e(process) < 0
    assert log_e(pooled) > 4


@pytest.mark.parametrize(("share", "published"), [(0.05, 311), (0.25, 98), (0.5, 75)])
def test_twice_the_rate_takes_as_many_events_as_expected(share: float, published: int) -> None:
    """The expected growth reaches 1/0.01 within a third of medians simulated elsewhere."""
    growth = [
        log_e(ratio.above(start(ABOVE), Window(share, 2 * share * n, 1 - share, (1 - share) * n), 1.0))
        for n in (published / (1 + share) * 0.67, published / (1 + share) * 1.5)
    ]
    assert growth[0] < math.log(100) < growth[1]


def _outcomes(canary: int, canary_rate: float, stable: int, stable_rate: float) -> list[tuple[float, Window]]:
    """Return every outcome with its probability."""
    first = binom.pmf(range(canary + 1), canary, canary_rate)
    second = binom.pmf(range(stable + 1), stable, stable_rate)
    return [
        (float(p * q), Window(canary, x, stable, y))
        for x, p in enumerate(first)
        for y, q in enumerate(second)
    ]
