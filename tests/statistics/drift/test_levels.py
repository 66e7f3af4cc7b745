"""False alarms of each test where nothing has changed: at most the stated level, by exact binomial bounds."""

import numpy as np
import pytest
from scipy.stats import binom, norm  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.statistics import distances, two_sample
from gateway.statistics.two_sample import Sizes

ROUNDS, BINS, REFERENCE = 2000, 64, 5000


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("rows", [50, 200, 1000, 5000])
@pytest.mark.parametrize("name", ["psi", "jensen_shannon", "chi_square", "ks", "wasserstein"])
def test_level_is_kept(name: str, rows: int, alpha: float) -> None:
    """Of 2,000 windows without drift no more are found than the level explains with chance 0.001."""
    draw = np.random.default_rng(rows)
    even = np.full(BINS, 1 / BINS)
    reference = draw.multinomial(REFERENCE, even, ROUNDS).astype(float)
    current = draw.multinomial(rows, even, ROUNDS).astype(float)
    sizes = Sizes(np.full(ROUNDS, float(rows)), np.full(ROUNDS, float(REFERENCE)))
    if name == "wasserstein":
        edges = np.broadcast_to(norm.ppf(np.arange(1, BINS) / BINS), (ROUNDS, BINS - 1))
        gaps = distances.widths(edges, np.full(ROUNDS, -3.09), np.full(ROUNDS, 3.09))
        tested = two_sample.wasserstein(gaps, reference, current, sizes, alpha)
    else:
        tested = getattr(two_sample, name)(reference, current, sizes, alpha)
    found = int((tested.p_value < alpha).sum())
    assert found <= binom.isf(0.001, ROUNDS, alpha)
    assert ((tested.value > tested.critical) == (tested.p_value < alpha)).all()
