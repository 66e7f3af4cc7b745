"""The e-process: exact expectations, Ville's bound by exact enumeration, numbers at the edges."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.statistics.mixture import (
    ABOVE,
    BELOW,
    BELOW_TO_NONE,
    EProcess,
    log_e,
    log_likelihood_ratio,
    observe,
    start,
)

shares = st.floats(0.001, 0.999)
families = st.sampled_from([ABOVE, BELOW, BELOW_TO_NONE])


@given(shares, families)
def test_the_mean_of_the_evidence_is_one_at_the_edge_of_the_null(
    share: float, ratios: tuple[float, ...]
) -> None:
    """Over all outcomes of 12 trials that are bad with the null's probability, the evidence averages to 1."""
    trials = 12
    mean = math.fsum(
        binom.pmf(bad, trials, share)
        * math.exp(log_e(observe(start(ratios), (bad, trials - bad), share, ratios)))
        for bad in range(trials + 1)
    )
    assert mean == pytest.approx(1, rel=1e-9)


@given(shares, st.integers(0, 100).map(lambda percent: percent / 100))
def test_the_mean_is_at_most_one_within_the_null(share: float, part: float) -> None:
    """A smaller probability than the null allows makes less evidence of a greater one."""
    trials = 12
    mean = math.fsum(
        binom.pmf(bad, trials, share * part)
        * math.exp(log_e(observe(start(ABOVE), (bad, trials - bad), share, ABOVE)))
        for bad in range(trials + 1)
    )
    assert mean <= 1 + 1e-9


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
@pytest.mark.parametrize("alpha", [0.2, 0.1])
def test_looking_after_every_outcome_keeps_the_error(share: float, alpha: float) -> None:
    """Of all courses of 12 outcomes, those whose peak reaches 1/alpha have at most alpha of the chance."""
    chance = 0.0
    for course in itertools.product((0, 1), repeat=12):
        process = start(ABOVE)
        for bad in course:
            process = observe(process, (bad, 1 - bad), share, ABOVE)
        if process.peak >= -math.log(alpha):
            chance += share ** sum(course) * (1 - share) ** (12 - sum(course))
    assert 0 < chance <= alpha


@given(shares, st.floats(1.01, 100), st.integers(0, 50), st.integers(0, 50))
def test_a_likelihood_ratio_is_that_of_two_binomials(share: float, ratio: float, bad: int, good: int) -> None:
    """The closed form equals SciPy's probabilities under the null and under the odds times the ratio."""
    other = share * ratio / (share * ratio + 1 - share)
    expected = binom.logpmf(bad, bad + good, other) - binom.logpmf(bad, bad + good, share)
    assert log_likelihood_ratio(bad, good, share, ratio) == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), shares), max_size=8))
def test_the_order_of_windows_does_not_matter(windows: list[tuple[int, int, float]]) -> None:
    """Evidence is the same whichever window came first."""
    assert log_e(_all(windows)) == pytest.approx(log_e(_all(windows[::-1])), abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 1e-300, 0.5, 1 - 1e-16, 1.0])
@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (0, 1), (10**15, 0), (0, 10**15), (10**12, 10**12)])
@pytest.mark.parametrize("ratios", [ABOVE, BELOW, BELOW_TO_NONE])
def test_every_number_stays_finite(share: float, counts: tuple[int, int], ratios: tuple[float, ...]) -> None:
    """Shares of none and all, no events and quadrillions of them give finite evidence."""
    process = observe(start(ratios), counts, share, ratios)
    assert all(math.isfinite(log) for log in process.logs)
    assert math.isfinite(log_e(process))
    assert process.peak >= max(0.0, log_e(process))


def test_the_peak_remembers_the_most_evidence() -> None:
    """Evidence that is lost again has been there."""
    high = observe(start(ABOVE), (20, 0), 0.1, ABOVE)
    low = observe(high, (0, 10_000), 0.1, ABOVE)
    assert low.peak == high.peak == pytest.approx(log_e(high))
    assert log_e(low) < 0


def _all(windows: list[tuple[int, int, float]]) -> EProcess:
    process = start(ABOVE)
    for bad, good, share in windows:
        process = observe(process, (bad, good), share, ABOVE)
    return process
