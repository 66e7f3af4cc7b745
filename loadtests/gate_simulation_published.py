"""The same two habits in their simplest form, to be held against figures published about them."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.stats import rankdata  # type: ignore[import-untyped]  # SciPy ships no types

from loadtests.gate_simulation_traffic import ERROR_RATE

CHECKS: Final = 25
LOOKS: Final = (1, 6, 12, 24)
_POINTS: Final = 5
"""New values of either arm between two looks."""
_Z98: Final = 2.3263


def false_rollbacks(canary_per_min: int, most_failed: int, rollouts: int, seed: int) -> float:
    """Return how many identical canaries 25 checks of 99 % success withdraw, as a share.

    Args:
        canary_per_min: requests of the canary, every minute as many.
        most_failed: checks that fail until it is withdrawn.
        rollouts: simulated.
        seed: of the errors.
    """
    errors = np.random.default_rng(seed).binomial(canary_per_min, ERROR_RATE, (CHECKS, rollouts))
    failed = (errors > 0.01 * canary_per_min).sum(axis=0)
    return float((failed >= most_failed).mean())


def false_differences(rollouts: int, seed: int) -> dict[int, float]:
    """Return how many equal pairs of arms a rank test at 98 % has ever called different, by looks."""
    rng = np.random.default_rng(seed)
    size = max(LOOKS) * _POINTS
    one, other = rng.normal(size=(2, size, rollouts))
    different = np.zeros(rollouts, dtype=bool)
    found = {}
    for look in range(1, max(LOOKS) + 1):
        n = look * _POINTS
        ranks = rankdata(np.concatenate([one[:n], other[:n]]), axis=0)[:n].sum(axis=0)
        spread = np.sqrt(n * n * (2 * n + 1) / 12)
        different |= np.abs(ranks - n * (2 * n + 1) / 2) > _Z98 * spread
        found[look] = float(different.mean())
    return {look: found[look] for look in LOOKS}
