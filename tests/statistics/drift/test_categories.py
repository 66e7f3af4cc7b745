"""Categories with a long tail: neither bins nor unseen values look like drift where there is none."""

import numpy as np
import pytest
from scipy.stats import binom  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.statistics import two_sample
from loadtests.drift_levels import without_drift

ROUNDS = 500


@pytest.mark.parametrize("shape", ["normal", "whole numbers", "categories", "even categories"])
@pytest.mark.parametrize("rows", [100, 1000, 5000])
def test_a_fresh_reference_and_window_agree(shape: str, rows: int) -> None:
    """Of 500 windows without drift at most as many are found at level 0.01 as are likely at 0.02."""
    for name, p_values in without_drift(shape, rows, ROUNDS, seed=41).items():
        if name != "Evidently":
            assert (p_values < 0.01).sum() <= binom.isf(0.001, ROUNDS, 0.02), name


def test_rare_categories_are_counted_with_the_others() -> None:
    """No row is lost, and a category below 20 rows is none of its own."""
    reference, current = np.array([[500.0, 40, 3, 0]]), np.array([[50.0, 4, 0, 2]])
    old, new = two_sample.mixed(reference, current)
    assert (old.sum(), new.sum()) == (543, 56)
    assert (old[0, -1], new[0, -1]) == (3, 2)
    assert sorted(old[0, :-1].tolist()) == [0, 40, 500]


def test_categories_seen_once_stand_for_unseen_ones() -> None:
    """Two categories seen once: two rows and a deviation of two; none: none."""
    assert two_sample.unseen(np.array([30.0, 1, 1, 5])) == 9
    assert two_sample.unseen(np.array([30.0, 2, 0])) == 0
