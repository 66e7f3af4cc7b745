"""Errors and exceeded latencies."""

from dataclasses import replace

import pytest

from gateway.core.rollout import ErrorsGate, ExceedGate, Gate, Requirement
from gateway.rollouts.gates import Delta, Outcome, StepState, StepVerdict, begin, judge, observe, step_gates
from gateway.rollouts.gates.states import ComparisonState
from tests.rollouts.gates.gate_cases import arm, arms, one_gate


def run(gate: Gate, *deltas: Delta, require: Requirement = Requirement.NON_INFERIOR) -> StepVerdict:
    """Return what one gate says after these counts, one a second."""
    gates = step_gates(one_gate(gate, require=require), 0)
    state = begin(gates, 0.0)
    for second, counted in enumerate(deltas, 1):
        state = observe(gates, state, counted, second)
    return judge(gates, state, len(deltas))


def same(canary_errors: int, stable_errors: int) -> Delta:
    """Return a second in which both arms had 100 requests."""
    return arms(arm(100, canary_errors), arm(100, stable_errors))


def test_many_more_errors_are_harm() -> None:
    """Five times the errors end the rollout within half a minute."""
    verdict = run(ErrorsGate(), *[same(5, 1)] * 20)
    assert verdict.outcome is Outcome.HARM
    assert "canary 100 of 2000, stable 20 of 2000" in verdict.reason


def test_equal_errors_pass_once_the_margin_is_proven() -> None:
    """An equal canary is undecided at first and passes with enough events."""
    gate = ErrorsGate(min_requests=1000)
    assert run(gate, *[same(1, 1)] * 30).outcome is Outcome.UNDECIDED
    assert run(gate, *[same(1, 1)] * 300).outcome is Outcome.PASS


def test_errors_within_the_tolerated_ratio_are_no_harm() -> None:
    """A ratio of 2 is no harm where 2.5 is tolerated."""
    assert run(ErrorsGate(abort_ratio=2.5), *[same(2, 1)] * 500).outcome is not Outcome.HARM
    assert run(ErrorsGate(abort_ratio=1.0), *[same(2, 1)] * 500).outcome is Outcome.HARM


def test_harm_stays_harm() -> None:
    """What was shown once is not forgotten by better times."""
    verdict = run(ErrorsGate(), *[same(5, 1)] * 20, *[same(1, 1)] * 2000)
    assert verdict.outcome is Outcome.HARM


@pytest.mark.parametrize("require", Requirement)
def test_nothing_passes_before_the_least_requests(require: Requirement) -> None:
    """With 999 of 1000 requests no evidence is enough, without any none at all."""
    gate = ErrorsGate(or_abs_below=0.5, min_requests=1000)
    assert run(gate, arms(arm(999), arm(999)), require=require).outcome is Outcome.UNDECIDED
    assert run(gate, arms(arm(1000), arm(1000)), require=require).outcome is Outcome.PASS
    assert run(gate, require=require).outcome is Outcome.UNDECIDED


def test_no_harm_needs_no_proof() -> None:
    """Where a step asks for no harm alone, the least requests are enough."""
    assert run(ErrorsGate(), *[same(1, 1)] * 10, require=Requirement.NO_HARM).outcome is Outcome.PASS
    assert run(ErrorsGate(), *[same(1, 1)] * 10).outcome is Outcome.UNDECIDED


def test_a_canary_that_always_fails_never_passes() -> None:
    """Its first failures may all be one group: that delays the harm, and is no pass meanwhile."""
    broken = arms(arm(300, 300), arm(300))
    looks = [
        run(ErrorsGate(min_requests=300), *[broken] * n, require=Requirement.NO_HARM) for n in range(1, 8)
    ]
    outcomes = [look.outcome for look in looks]
    assert Outcome.PASS not in outcomes
    assert outcomes[-1] is Outcome.HARM


def test_too_few_events_prove_no_ratio() -> None:
    """29 failures are not enough to compare where 30 are asked for, however they are divided."""
    few = [arms(arm(100), arm(100, 1))] * 29
    gate = ErrorsGate(pass_margin=5, min_requests=100)
    assert run(gate, *few).outcome is Outcome.UNDECIDED
    assert run(gate, *few, arms(arm(100), arm(100, 1))).outcome is Outcome.PASS


def test_a_service_without_errors_passes_by_its_own_rate() -> None:
    """Where nothing fails, a ratio is never proven and a low rate is."""
    clean = [same(0, 0)] * 80
    assert run(ErrorsGate(), *clean).outcome is Outcome.UNDECIDED
    assert run(ErrorsGate(or_abs_below=0.001), *clean).outcome is Outcome.PASS


def test_an_outage_of_both_arms_is_no_harm() -> None:
    """When everything fails for a minute, neither arm is to blame."""
    outage = [same(1, 1)] * 60 + [same(100, 100)] * 60
    assert run(ErrorsGate(), *outage).outcome is not Outcome.HARM


def test_a_failed_batch_is_one_event() -> None:
    """One batch of 32 that fails in the canary does not withdraw it, one failure each second does."""
    quiet = [same(0, 0)] * 30
    assert run(ErrorsGate(), *quiet, same(32, 0)).outcome is Outcome.UNDECIDED
    assert run(ErrorsGate(), *quiet, *[same(1, 0)] * 32).outcome is Outcome.HARM


def test_single_requests_are_gathered_before_they_are_compared() -> None:
    """One request at a time, as at night, makes the same verdict as many at once."""
    slow = []
    for n in range(60):
        slow += [arms(arm(1, 1), arm(0)), arms(arm(0), arm(1, n % 10 == 0))]
    verdict = run(ErrorsGate(), *slow)
    assert verdict.outcome is Outcome.HARM


def test_each_latency_gate_takes_its_own_threshold() -> None:
    """Two thresholds are counted in ascending order, whatever the order in the file."""
    gates = step_gates(one_gate(ExceedGate(0.04), ExceedGate(0.01)), 0)
    assert gates.thresholds_s == (0.01, 0.04)
    state: StepState = begin(gates, 0.0)
    for second in range(1, 31):
        counted = arms(arm(100, slow=(50, 9)), arm(100, slow=(50, 1)))
        state = observe(gates, state, counted, second)
    said = {w.name: v.outcome for w, v in judge(gates, state, 30).gates}
    assert said["g.exceed"] is Outcome.HARM
    assert said["g.exceed#2"] is not Outcome.HARM


def test_latencies_that_did_not_count_are_no_evidence() -> None:
    """Requests right after a change of weight, whose latency is not measured, count for no latency gate."""
    cold = arms(replace(arm(100), measured=0), arm(100, slow=(0,)))
    verdict = run(ExceedGate(0.04, min_requests=50), *[cold] * 20, require=Requirement.NO_HARM)
    assert verdict.outcome is Outcome.UNDECIDED


def test_time_that_starts_anew_is_no_obstacle() -> None:
    """After a restart of the machine windows of few requests are closed by their age again."""
    gates = step_gates(one_gate(ErrorsGate()), 0)
    state = begin(gates, 1e6)
    for second in (1, 11, 21):
        state = observe(gates, state, arms(arm(1), arm(1)), second)
    kept = state.states["g.errors"]
    assert isinstance(kept, ComparisonState)
    assert kept.closed.canary_units == 3
