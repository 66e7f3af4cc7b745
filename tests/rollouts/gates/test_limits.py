"""Crashes and fallbacks."""

import pytest

from gateway.core.evidence import ShadowCounts
from gateway.core.rollout import CANARY, CrashesGate, FallbacksGate, Gate
from gateway.rollouts.gates import CRASH, Delta, Outcome, begin, judge, observe, step_gates
from tests.rollouts.gates.gate_cases import arm, arms, one_gate


def said(gate: Gate, *deltas: Delta) -> Outcome:
    """Return what one gate says after these counts, one a second."""
    gates = step_gates(one_gate(gate), 0)
    state = begin(gates, 0.0)
    for second, counted in enumerate(deltas, 1):
        state = observe(gates, state, counted, second)
    ((_, verdict),) = judge(gates, state, len(deltas)).gates
    return verdict.outcome


def test_one_crash_more_than_allowed_is_harm() -> None:
    """The limit itself is allowed, whatever else happened."""
    served = arms(arm(10), arm(10))
    assert said(CrashesGate(1), served, CRASH) is Outcome.PASS
    assert said(CrashesGate(1), served, CRASH, CRASH) is Outcome.HARM
    assert said(CrashesGate(0), CRASH) is Outcome.HARM


def test_a_canary_that_did_nothing_has_not_passed() -> None:
    """No crash is no evidence before the first request, or pair of a shadow."""
    assert said(CrashesGate()) is Outcome.UNDECIDED
    assert said(CrashesGate(), arms(arm(0), arm(10))) is Outcome.UNDECIDED
    assert said(CrashesGate(), Delta(shadows={CANARY: ShadowCounts(compared=1)})) is Outcome.PASS


def test_fallbacks_beyond_the_rate_are_harm() -> None:
    """Ten times the allowed rate is found, the allowed rate itself is not."""
    gate = FallbacksGate(max_rate=0.01, min_requests=1000)
    assert said(gate, *[arms(arm(100, fallbacks=10), arm(100))] * 30) is Outcome.HARM
    assert said(gate, *[arms(arm(100, fallbacks=1), arm(100))] * 300) is Outcome.PASS


@pytest.mark.parametrize(("requests", "outcome"), [(999, Outcome.UNDECIDED), (1000, Outcome.PASS)])
def test_fallbacks_pass_with_enough_requests(requests: int, outcome: Outcome) -> None:
    """Nothing is said before the least requests."""
    assert said(FallbacksGate(min_requests=1000), arms(arm(requests), arm(1))) is outcome


def test_none_allowed_means_none() -> None:
    """With a rate of 0 the first fallback is harm."""
    assert said(FallbacksGate(max_rate=0.0), arms(arm(100_000, fallbacks=1), arm(1))) is Outcome.HARM


def test_a_batch_that_falls_back_is_one_event() -> None:
    """32 fallbacks at a time are less than 32 one by one."""
    gate = FallbacksGate(max_rate=0.001)
    assert (
        said(gate, *[arms(arm(100), arm(0))] * 30, arms(arm(100, fallbacks=32), arm(0))) is not Outcome.HARM
    )
    assert said(gate, *[arms(arm(100, fallbacks=1), arm(0))] * 32) is Outcome.HARM
