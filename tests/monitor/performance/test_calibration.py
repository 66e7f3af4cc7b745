"""The expected calibration error and its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gateway.monitor.performance.classification import BINS, calibration_error


@pytest.mark.parametrize("rows", [50, 500, 5000])
@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_the_interval_holds_the_true_error(rows: int, shift: float) -> None:
    """At least as often as its level says, calibrated or not, however few rows there are."""
    random = np.random.default_rng(rows)
    held = 0
    for _ in range(200):
        score = random.integers(0, BINS, rows) / BINS + 0.05
        truth = random.random(rows) < np.clip(score - shift, 0, 1)
        found = calibration_error(truth, score, np.ones(rows), 0.95)
        assert found.low <= found.value <= found.high
        assert math.isnan(found.error)
        centres = np.arange(BINS) / BINS + 0.05
        share = np.bincount((score * BINS).astype(int), minlength=BINS) / rows
        true = float(share @ np.abs(centres - np.clip(centres - shift, 0, 1)))
        held += found.low <= true <= found.high
    assert held >= 190


def test_more_rows_narrow_it() -> None:
    """With enough of them an error is told from none."""
    score = np.tile([0.3, 0.7], 5000)
    truth = np.arange(10_000) % 2 == 0  # the opposite of what the score says
    found = calibration_error(truth, score, np.ones(10_000), 0.95)
    assert found.value == pytest.approx(0.7)
    assert 0.69 < found.low < found.value
    assert found.high == pytest.approx(0.7)
