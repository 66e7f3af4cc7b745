"""Estimates of how long verdicts take."""

import math

import pytest

from gateway.core.rollout import (
    CrashesGate,
    DisagreeGate,
    ErrorsGate,
    FallbacksGate,
    Gate,
    Requirement,
)
from gateway.rollouts.gates import (
    Look,
    Outcome,
    Traffic,
    begin,
    judge,
    observe,
    step_forecast,
    step_gates,
    time_to_verdict,
)
from tests.rollouts.gates.gate_cases import arm, arms, one_gate, spec


@pytest.mark.parametrize(
    ("ratio", "outcome"), [(1.0, Outcome.PASS), (2.0, Outcome.HARM), (5.0, Outcome.HARM)]
)
def test_a_verdict_comes_about_when_it_was_forecast(ratio: float, outcome: Outcome) -> None:
    """With exactly the expected counts, the gate decides within a tenth of the forecast, or three windows."""
    gate = ErrorsGate(min_requests=0)
    rollout = one_gate(gate, weight_ppm=250_000)
    forecast = {f.ratio: f for f in step_forecast(rollout, 0, 80.0, {"errors": 0.05})[0][1]}[ratio]
    assert forecast.outcome is outcome
    gates = step_gates(rollout, 0)
    state, decided = begin(gates, 0.0), math.inf
    for ten in range(1, 2000):
        counted = arms(arm(200, round(10 * ratio)), arm(600, 30))
        state = observe(gates, state, counted, ten * 10.0)
        if judge(gates, state, ten * 10.0).outcome is not Outcome.UNDECIDED:
            decided = ten * 10.0
            break
    assert decided == pytest.approx(forecast.seconds, rel=0.1, abs=30)
    assert forecast.requests == pytest.approx(80 * forecast.seconds)
    assert forecast.events == pytest.approx((60 * 0.05 + 20 * 0.05 * ratio) * forecast.seconds)


def test_more_traffic_and_greater_faults_are_faster() -> None:
    """Ten times the traffic takes a tenth of the time; five times the errors is found before twice."""
    slow, fast = (
        time_to_verdict(ErrorsGate(min_requests=0), Traffic(rate, 0.25, 0.01)) for rate in (10, 100)
    )
    for one, other in zip(slow, fast, strict=True):
        assert one.seconds == pytest.approx(10 * other.seconds)
    assert slow[2].seconds < slow[1].seconds


@pytest.mark.parametrize("traffic", [Traffic(0.0, 0.5, 0.01), Traffic(10, 0.0, 0.01), Traffic(10, 1.0, 0.01)])
def test_without_traffic_in_an_arm_nothing_is_ever_shown(traffic: Traffic) -> None:
    """A comparison with nobody never ends."""
    for forecast in time_to_verdict(ErrorsGate(), traffic):
        assert math.isinf(forecast.seconds)


def test_a_service_without_errors_passes_by_its_own_rate_alone() -> None:
    """Where nothing fails, only a bound on the rate is ever proven."""
    traffic = Traffic(100, 0.5, 0.0)
    assert math.isinf(time_to_verdict(ErrorsGate(), traffic)[0].seconds)
    assert time_to_verdict(ErrorsGate(or_abs_below=0.001), traffic)[0].seconds < 200


def test_no_harm_takes_the_least_requests() -> None:
    """Where nothing needs to be proven, a pass comes with the requests."""
    passing = time_to_verdict(ErrorsGate(), Traffic(10, 0.1, 0.01), Look(0, Requirement.NO_HARM))[0]
    assert passing.seconds == pytest.approx(1000)


@pytest.mark.parametrize("gate", [DisagreeGate(0.02, slices=("country",)), FallbacksGate(0.01)])
def test_other_rates_are_forecast_too(gate: Gate) -> None:
    """An equal one passes, one with twice and five times the tolerated rate is withdrawn, ever faster."""
    passing, twice, five = time_to_verdict(gate, Traffic(100, 0.25, 0.001))
    assert (passing.outcome, twice.outcome, five.outcome) == (Outcome.PASS, Outcome.HARM, Outcome.HARM)
    assert five.seconds < twice.seconds < math.inf
    assert passing.seconds < math.inf


def test_gates_without_statistics_forecast_nothing() -> None:
    """A crash is not expected."""
    assert time_to_verdict(CrashesGate(), Traffic(10, 0.1, 0.01)) == ()
    assert [watched.kind for watched, _ in step_forecast(spec(), 0, 10, {})] == ["crashes", "disagree"]
