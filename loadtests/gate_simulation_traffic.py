"""Simulated rollouts: what two arms count in every tick, for many rollouts at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    Counts: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]

WEIGHTS: Final = (0.01, 0.05, 0.25, 0.50)
STEP_MIN: Final = 60
TICK_S: Final = 2
ERROR_RATE: Final = 0.005
SLOW_RATE: Final = 0.02
SLOW_RATE_HALF_SLOWER: Final = 0.107
"""What the 2 % become when log-normal latencies of sigma 0.5 grow by a half: P(Z > 2.054 - ln 1.5 / 0.5)."""


@dataclass(frozen=True, slots=True)
class Case:
    """Traffic and the canary's fault.

    Attributes:
        rate_per_min: requests for the model, both arms.
        error_ratio: the canary's error rate over stable's.
        slow_rate: the canary's share of slow answers.
        cluster: errors come in groups of so many at a time, as when a whole batch fails.
    """

    rate_per_min: int
    error_ratio: float = 1.0
    slow_rate: float = SLOW_RATE
    cluster: int = 1


@dataclass(frozen=True, slots=True)
class Tick:
    """What every rollout counted in one tick; arrays of shape [rollouts], canary and stable.

    Attributes:
        step: number of the step.
        now_s: its end.
        units: requests of the canary, of stable.
        errors: of those, failed.
        slow: of those, slower than the threshold.
    """

    step: int
    now_s: float
    units: tuple[Counts, Counts]
    errors: tuple[Counts, Counts]
    slow: tuple[Counts, Counts]


def ticks(case: Case, rollouts: int, rng: np.random.Generator, tick_s: int = TICK_S) -> Iterator[Tick]:
    """Yield every tick of a rollout through all steps, whatever anybody decides about it meanwhile."""
    error_rates = (ERROR_RATE * case.error_ratio, ERROR_RATE)
    slow_rates = (case.slow_rate, SLOW_RATE)
    now_s = 0.0
    for step, weight in enumerate(WEIGHTS):
        for _ in range(STEP_MIN * 60 // tick_s):
            now_s += tick_s
            total = rng.poisson(case.rate_per_min * tick_s / 60, rollouts)
            canary = rng.binomial(total, weight)
            units = (canary, total - canary)
            yield Tick(
                step,
                now_s,
                units,
                _events(units, error_rates, case.cluster, rng),
                _events(units, slow_rates, 1, rng),
            )


def _events(
    units: tuple[Counts, Counts], rates: tuple[float, float], cluster: int, rng: np.random.Generator
) -> tuple[Counts, Counts]:
    if cluster == 1:
        return rng.binomial(units[0], rates[0]), rng.binomial(units[1], rates[1])
    # A group that fails is not bounded by the units of its tick: its requests may have come before.
    return (
        cluster * rng.poisson(units[0] * (rates[0] / cluster)),
        cluster * rng.poisson(units[1] * (rates[1] / cluster)),
    )
