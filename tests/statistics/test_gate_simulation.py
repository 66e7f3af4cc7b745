"""The simulation behind docs/rollout-statistics.md: it is of our gates, and keeps their promise."""

import numpy as np
import pytest

from gateway.core.evidence import ArmCounts
from gateway.core.rollout import (
    CANARY,
    STABLE,
    Assignment,
    ErrorsGate,
    ExceedGate,
    HashSpec,
    Requirement,
    RolloutSpec,
    SrmGate,
    Target,
    WeightStep,
)
from gateway.rollouts.gates import Delta, begin, judge, observe, step_gates
from loadtests.gate_simulation import SEED
from loadtests.gate_simulation_judges import ALPHA_ABORT, HARM_BOUND, PASS_BOUND, OurGates
from loadtests.gate_simulation_page import interval
from loadtests.gate_simulation_published import false_differences, false_rollbacks
from loadtests.gate_simulation_traffic import STEP_MIN, WEIGHTS, Case, Tick, ticks

GATES = (SrmGate(), ErrorsGate(min_requests=0, min_events=0), ExceedGate(0.1, min_requests=0, min_events=0))
ROLLOUT = RolloutSpec(
    name="simulated",
    model="simulated",
    stable=None,
    canary=Target("2"),
    assign=Assignment(HashSpec("salt")),
    steps=tuple(
        WeightStep(round(weight * 1e6), 60, 3600, ("all",), Requirement.NON_INFERIOR) for weight in WEIGHTS
    ),
    gates={"all": GATES},
)


@pytest.mark.parametrize("case", [Case(500, 2.0), Case(5000), Case(600, cluster=8)], ids=str)
def test_the_simulated_gates_are_the_real_ones(case: Case) -> None:
    """Fed the same counts, arrays and gates have the same evidence at every look, and the same bounds."""
    rollouts, tick_s = 2, 5
    simulated = OurGates(rollouts)
    step, watched = -1, step_gates(ROLLOUT, 0)
    states = [begin(watched, 0.0)] * rollouts
    for tick in ticks(case, rollouts, np.random.default_rng(SEED), tick_s):
        if tick.step != step:
            step, watched = tick.step, step_gates(ROLLOUT, tick.step)
            states = [begin(watched, tick.now_s - tick_s)] * rollouts
        simulated.look(tick, from_s=tick.now_s - tick_s)
        states = [observe(watched, state, _delta(tick, n), tick.now_s) for n, state in enumerate(states)]
        if round(tick.now_s) % 300 == 0:
            for n, state in enumerate(states):
                numbers = {w.kind: v.numbers for w, v in judge(watched, state, tick.now_s).gates}
                for kind, array in (("errors", simulated.errors), ("exceed", simulated.slow)):
                    assert numbers[kind]["log_e_harm"] == pytest.approx(array.log_e(array.harm)[n], abs=1e-3)
                    assert numbers[kind]["log_e_harm_peak"] == pytest.approx(array.peak[n], abs=1e-3)
                    assert numbers[kind]["log_e_pass"] == pytest.approx(array.log_e(array.proof)[n], abs=1e-3)
                    assert numbers[kind]["log_bound_harm"] == pytest.approx(HARM_BOUND, abs=1e-3)
                    assert numbers[kind]["log_bound_pass"] == pytest.approx(PASS_BOUND, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("rate_per_min", [50, 500, 5000])
def test_an_identical_canary_is_withdrawn_no_more_often_than_promised(rate_per_min: int) -> None:
    """In 2,000 rollouts looked at every 30 s, the upper 95 % bound of false aborts is below alpha."""
    rollouts, tick_s = 2_000, 30
    gates = OurGates(rollouts)
    for tick in ticks(Case(rate_per_min), rollouts, np.random.default_rng(SEED + rate_per_min), tick_s):
        gates.look(tick, from_s=tick.now_s - tick_s)
    aborted = int(np.isfinite(gates.abort_min).sum())
    held = int(np.isfinite(gates.hold_min).sum())
    assert interval(aborted, rollouts)[1] <= ALPHA_ABORT
    assert interval(held, rollouts)[0] <= len(WEIGHTS) * 0.0005


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [8, 32])
def test_nor_much_more_often_where_errors_come_in_groups(cluster: int) -> None:
    """Nothing is promised then; it stays about the same, also where the first window has a group already."""
    rollouts, tick_s = 500, 10
    gates = OurGates(rollouts)
    for tick in ticks(Case(5000, cluster=cluster), rollouts, np.random.default_rng(SEED), tick_s):
        gates.look(tick, from_s=tick.now_s - tick_s)
    assert np.isfinite(gates.abort_min).mean() <= 2 * ALPHA_ABORT


def test_a_bad_canary_is_withdrawn() -> None:
    """Five times the errors at 5,000 requests a minute are found within the first step."""
    gates = OurGates(50)
    for tick in ticks(Case(5000, 5.0), 50, np.random.default_rng(SEED), 10):
        gates.look(tick, from_s=tick.now_s - 10)
        if tick.now_s >= STEP_MIN * 60:
            break
    assert np.isfinite(gates.abort_min).all()


def test_published_figures_come_out_again() -> None:
    """Thresholds and repeated rank tests do to identical canaries what is said of them elsewhere."""
    assert false_rollbacks(50, 5, 5_000, SEED) == pytest.approx(0.68, abs=0.03)
    assert false_rollbacks(50, 10, 5_000, SEED) == pytest.approx(0.034, abs=0.015)
    found = false_differences(1_000, SEED)
    assert found[1] < 0.03
    assert found[24] > 0.08


def _delta(tick: Tick, number: int) -> Delta:
    counts = [
        ArmCounts(
            requests=int(tick.units[arm][number]),
            units=int(tick.units[arm][number]),
            errors=int(tick.errors[arm][number]),
            measured=int(tick.units[arm][number]),
            exceeded=(int(tick.slow[arm][number]),),
            requests_all=int(tick.units[arm][number]),
        )
        for arm in (0, 1)
    ]
    return Delta({CANARY: counts[0], STABLE: counts[1]})
