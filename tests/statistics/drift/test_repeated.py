"""Tests that are looked at again and again, or many at once: they err as seldom as they say."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, false_discovery_control  # type: ignore[import-untyped]  # no types

from gateway.statistics import cusum, fourier, intervals, paired, sequences
from gateway.statistics.mixture import ABOVE, log_e, start
from gateway.statistics.multiplicity import (
    Persistence,
    Standing,
    adjusted,
    benjamini_hochberg,
    false_alarms,
    level_for_budget,
    persist,
)

Floats = npt.NDArray[np.float64]
LOOKS, ALPHA = 300, 0.05


def test_adjusted_p_values_are_scipys() -> None:
    """Those of SciPy's procedure, a NaN left out."""
    p_values = np.random.default_rng(3).random(40) ** 3
    expected = false_discovery_control(p_values)
    found = adjusted(np.insert(p_values, 7, np.nan))
    assert np.isnan(found[7])
    assert np.allclose(np.delete(found, 7), expected)


def test_a_family_without_drift_rejects_at_most_q() -> None:
    """Of 4,000 families of 30 tests."""
    families = np.random.default_rng(4).random((4000, 30))
    found = sum(benjamini_hochberg(family, 0.05).any() for family in families)
    assert found <= binom.isf(0.001, 4000, 0.05)


def test_alarms_without_drift_are_as_many_as_the_budget_says() -> None:
    """200,000 windows at a level of 2 %: as often as counted, and the level for a budget is its inverse."""
    rule = Persistence(2, 3, 3)
    standing, began = Standing(), 0
    for found in (np.random.default_rng(5).random(200_000) < 0.02).tolist():
        after = persist(standing, found, rule)
        began += after.on and not standing.on
        standing = after
    expected = false_alarms(0.02, rule, 200_000)
    assert 0.7 * expected < began <= expected + 4 * expected**0.5
    assert false_alarms(level_for_budget(1, rule, 5000), rule, 5000) == pytest.approx(1)


def test_mmd_keeps_the_level_of_its_permutations() -> None:
    """The gamma's critical value is exceeded by about as many permutations as its level says."""
    draw = np.random.default_rng(6)
    sample = draw.normal(size=(1500, 8))
    z = fourier.features(sample, fourier.directions(8, 128, fourier.bandwidth(sample[:200]), 1))
    permuted = fourier.permuted(z, 150, 600, 2)
    for alpha in (0.05, 0.01):
        critical = fourier.mmd2_critical(alpha, 150, 1350, fourier.spectrum(z))
        assert (permuted > critical).sum() <= binom.isf(0.001, 600, alpha)
    w = fourier.directions(8, 128, fourier.bandwidth(sample[:200]), 1)
    moved = fourier.features(sample[:150] + 0.5, w)
    value = fourier.mmd2(moved.sum(axis=0), (150, 150), z.sum(axis=0), 1500)
    assert fourier.mmd2_p_value(value, 150, 1500, fourier.spectrum(z)) < 1e-6


def test_cusum_alarms_as_seldom_as_set() -> None:
    """300 runs at a height for 100 windows: their mean length is within 20 %, a shift of 1 is found in 15."""
    height, draw = cusum.height_for(100), np.random.default_rng(7)
    lengths = {shift: np.mean([_run(draw, shift, height) for _ in range(300)]) for shift in (0.0, 1.0)}
    assert lengths[0.0] == pytest.approx(100, rel=0.2)
    assert lengths[1.0] < 15


def _run(draw: np.random.Generator, shift: float, height: float) -> int:
    state, length = cusum.Cusum(), 0
    while max(state.above, state.below) <= height:
        state, length = cusum.update(state, draw.normal(shift)), length + 1
    return length


@pytest.mark.parametrize(("share", "rows"), [(0.02, 100), (0.3, 50), (0.9, 400)])
def test_intervals_cover_the_rate(share: float, rows: int) -> None:
    """Exactly summed over all counts, Wilson's interval of 95 % covers at least 92 %."""
    counts = range(rows + 1)
    inside = [low <= share <= high for low, high in (intervals.wilson(k, rows) for k in counts)]
    assert binom.pmf(counts, rows, share)[inside].sum() >= 0.92


def test_intervals_cover_the_difference() -> None:
    """Newcombe's, of 2,000 pairs of groups: at least 93 %."""
    draw = np.random.default_rng(8)
    a, b = draw.binomial(80, 0.3, 2000), draw.binomial(120, 0.2, 2000)
    found = [intervals.difference((x, 80), (y, 120)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert np.mean([low <= 0.1 <= high for low, high in found]) >= 0.93


@pytest.mark.parametrize("kind", ["unpaired", "paired"])
def test_300_looks_stop_falsely_at_most_alpha(kind: str) -> None:
    """400 comparisons of equal arms, looked at every 50 rows: few ever exclude no difference."""
    draw, stops = np.random.default_rng(9), 0
    rows = 50 * np.arange(1, LOOKS + 1)
    for _ in range(400):
        a, b = (draw.exponential(size=50 * LOOKS) for _ in range(2))
        if kind == "paired":
            looks = [sequences.paired(m, ALPHA) for m in _moments(a - b, rows)]
        else:
            looks = [
                sequences.unpaired(m, other, ALPHA)
                for m, other in zip(_moments(a, rows), _moments(b, rows), strict=True)
            ]
        stops += any(look.low > 0 or look.high < 0 for look in looks)
    assert stops <= binom.isf(0.001, 400, ALPHA)


def _moments(values: Floats, rows: npt.NDArray[np.int_]) -> list[sequences.Moments]:
    means = np.cumsum(values)[rows - 1] / rows
    variances = np.cumsum(values**2)[rows - 1] / rows - means**2
    return [
        sequences.Moments(float(n), float(m), float(v))
        for n, m, v in zip(rows, means, variances, strict=True)
    ]


def test_equal_pairs_are_called_worse_at_most_alpha() -> None:
    """200 comparisons of 300 looks at 4 discordant pairs; an arm that is wrong twice as often is found."""
    draw = np.random.default_rng(10)
    stops = {0.5: 0, 2 / 3: 0}
    for share in stops:
        for _ in range(200):
            process, peak = start(ABOVE), 0.0
            for lost in draw.binomial(4, share, LOOKS).tolist():
                process = paired.worse(process, (lost, 4 - lost))
                peak = max(peak, log_e(process))
            stops[share] += peak >= np.log(1 / ALPHA)
    assert stops[0.5] <= binom.isf(0.001, 200, ALPHA)
    assert stops[2 / 3] >= 190
