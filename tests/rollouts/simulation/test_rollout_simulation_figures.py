"""The figures of the simulation by arrays, which are in the documentation, and of this one."""

import numpy as np
from scipy.stats import ks_2samp  # type: ignore[import-untyped]  # SciPy ships no types

from gateway.core.rollout import (
    Assignment,
    ErrorsGate,
    ExceedGate,
    HashSpec,
    PromoteStep,
    Requirement,
    RolloutSpec,
    Target,
    WeightStep,
)
from gateway.rollouts.simulation import simulate
from gateway.rollouts.simulation_course import Ending, Scenario
from gateway.rollouts.simulation_traffic import Rates
from loadtests import gate_simulation
from loadtests.gate_simulation_traffic import ERROR_RATE, SLOW_RATE, STEP_MIN, WEIGHTS, Case

RATE_PER_MIN = 5_000
STEP_S = 60.0 * STEP_MIN


def test_five_times_the_errors_take_as_long_to_find() -> None:
    """The times of the withdrawals are of one distribution, and so are the requests that it cost."""
    gates = (ErrorsGate(min_requests=1), ExceedGate(threshold_s=0.04, min_requests=1))
    steps = (WeightStep(round(w * 1e6), STEP_S, 2 * STEP_S, ("all",), Requirement.NO_HARM) for w in WEIGHTS)
    spec = RolloutSpec(
        name="line",
        model="m",
        stable=Target("1"),
        canary=Target("2"),
        assign=Assignment(HashSpec("salt")),
        steps=(*steps, PromoteStep()),
        gates={"all": gates},
    )
    rates = Rates(
        requests_per_s=RATE_PER_MIN / 60,
        stable_errors=ERROR_RATE,
        canary_errors=5 * ERROR_RATE,
        stable_slow=SLOW_RATE,
        canary_slow=SLOW_RATE,
    )
    courses = [simulate(spec, Scenario(rates=rates, seed=seed)) for seed in range(40)]
    assert {course.ending for course in courses} == {Ending.WITHDRAWN}
    arrays = gate_simulation.simulate(Case(RATE_PER_MIN, 5.0), 300, 1, others=False)
    assert np.isfinite(arrays.withdrawn_min["gates"]).all()
    minutes = [course.ended_s / 60 for course in courses]
    assert ks_2samp(minutes, arrays.withdrawn_min["gates"]).pvalue > 0.01
    requests = [course.seen.requests for course in courses]
    assert ks_2samp(requests, arrays.canary_requests).pvalue > 0.01
