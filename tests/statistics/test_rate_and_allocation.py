"""One rate against a bound, and shares against what they should be."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import (  # type: ignore[import-untyped]  # SciPy ships no types
    binom,
    dirichlet_multinomial,
    multinomial,
)

from gateway.statistics import allocation, rate
from gateway.statistics.mixture import ABOVE, BELOW_TO_NONE, log_e, start

parts = st.integers(0, 100).map(lambda percent: percent / 100)


@given(st.floats(0.001, 0.9), parts, st.integers(1, 40))
def test_evidence_above_a_bound_averages_to_at_most_one_below_it(
    most: float, part: float, trials: int
) -> None:
    """Over all outcomes of a rate within the bound, the evidence averages to at most 1."""
    mean = math.fsum(
        binom.pmf(bad, trials, most * part) * math.exp(log_e(rate.above(start(ABOVE), (bad, trials), most)))
        for bad in range(trials + 1)
    )
    assert mean <= 1 + 1e-9


@given(st.floats(0.001, 0.9), parts, st.integers(1, 40))
def test_evidence_below_a_bound_averages_to_at_most_one_above_it(
    least: float, part: float, trials: int
) -> None:
    """Over all outcomes of a rate beyond the bound, the evidence averages to at most 1."""
    truth = least + (1 - least) * part
    mean = math.fsum(
        binom.pmf(bad, trials, truth)
        * math.exp(log_e(rate.below(start(BELOW_TO_NONE), (bad, trials), least)))
        for bad in range(trials + 1)
    )
    assert mean <= 1 + 1e-9


def test_a_service_without_errors_is_proven_by_silence_alone() -> None:
    """Without any bad outcome the evidence for less than 0.1 % comes after some ln(6/a)/0.001 trials."""
    assert log_e(rate.below(start(BELOW_TO_NONE), (0, 6_600), 0.001)) > math.log(1 / 0.01)
    assert log_e(rate.below(start(BELOW_TO_NONE), (0, 4_000), 0.001)) < math.log(1 / 0.01)


@given(
    st.lists(st.integers(0, 300), min_size=2, max_size=4),
    st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
)
def test_mismatch_is_a_mixture_of_multinomials(counts: list[int], weights: list[float]) -> None:
    """The closed form equals SciPy's Dirichlet-multinomial over its multinomial."""
    weights = weights[: len(counts)]
    shares = [weight / math.fsum(weights) for weight in weights]
    prior = [allocation.PSEUDO_COUNT / min(shares) * share for share in shares]
    expected = dirichlet_multinomial.logpmf(counts, prior, sum(counts)) - multinomial.logpmf(
        counts, sum(counts), shares
    )
    assert allocation.log_e(counts, shares) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5])
def test_the_mean_evidence_of_mismatch_is_one_without_any(share: float) -> None:
    """Over all divisions of 60 draws by the right shares, the evidence averages to 1."""
    mean = math.fsum(
        binom.pmf(n, 60, share) * math.exp(allocation.log_e((n, 60 - n), (share, 1 - share)))
        for n in range(61)
    )
    assert mean == pytest.approx(1)


def test_an_arm_alone_and_huge_counts_are_no_mismatch() -> None:
    """With one arm nothing can be out of proportion; a trillion draws in proportion are none either."""
    assert allocation.log_e((5, 0), (1.0, 0.0)) == 0
    assert allocation.log_e((0, 0), (0.5, 0.5)) == 0
    assert -20 < allocation.log_e((10**10, 99 * 10**10), (0.01, 0.99)) < 0
    assert allocation.log_e((2 * 10**10, 98 * 10**10), (0.01, 0.99)) > 1e6
