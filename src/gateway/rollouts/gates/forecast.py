"""How much traffic and time a verdict takes, roughly: what `gateway plan` prints before anything is tried.

The evidence of the best alternative grows by its expected log likelihood ratio; the time is where that
reaches the bound plus what the mixture costs. Half of all runs take less, about; simulated ones lie within a
third of it where more than some ten events are needed (docs/rollout-statistics.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.core.rollout import (
    PPM,
    DisagreeGate,
    ErrorsGate,
    ExceedGate,
    FallbacksGate,
    Requirement,
    ShadowStep,
)
from gateway.rollouts.gates import comparison
from gateway.rollouts.gates.step import step_gates
from gateway.rollouts.gates.verdicts import Look, Outcome
from gateway.statistics.mixture import ABOVE, BELOW, BELOW_TO_NONE, log_likelihood_ratio
from gateway.statistics.ratio import Window, share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.rollout import Gate, RolloutSpec
    from gateway.rollouts.gates.comparison import ComparisonGate
    from gateway.rollouts.gates.step import WatchedGate

_HARMFUL: Final = (2.0, 5.0)
"""How many times the tolerated rate a canary is asked about."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a gate is expected to see.

    Attributes:
        rate_per_s: requests for the model.
        share: of them, those that the canary or its shadow gets, from 0 to 1.
        base_rate: of stable's requests, the bad ones; of pairs, those that differ.
    """

    rate_per_s: float
    share: float
    base_rate: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long a verdict takes, about.

    Attributes:
        outcome: PASS or HARM.
        ratio: the canary's true rate of bad requests over stable's, or over the tolerated rate.
        seconds: until the verdict; infinite when it never comes.
        requests: for the model, both arms, until then.
        events: bad ones, both arms, until then.
    """

    outcome: Outcome
    ratio: float
    seconds: float
    requests: float
    events: float


def time_to_verdict(gate: Gate, traffic: Traffic, look: Look | None = None) -> tuple[Forecast, ...]:
    """Return when an equal canary passes, and when one with 2 and 5 times the bad requests is withdrawn.

    Args:
        gate: any gate; those without statistics of their own forecast nothing.
        traffic: what it sees.
        look: the errors that are its part, and what it takes to pass; None: all of the defaults.
    """
    look = look or Look(0.0)
    match gate:
        case ErrorsGate() | ExceedGate():
            return _comparison(gate, traffic, look)
        case FallbacksGate():
            trials = traffic.rate_per_s * traffic.share
            passing = _after(gate.min_requests, trials)
            return (_forecast(Outcome.PASS, 1, passing, traffic, 0.0), *_above(gate.max_rate, traffic, look))
        case DisagreeGate():
            return _disagreement(gate, traffic, look)
        case _:
            return ()


def step_forecast(
    spec: RolloutSpec, index: int, rate_per_s: float, base_rates: Mapping[str, float]
) -> tuple[tuple[WatchedGate, tuple[Forecast, ...]], ...]:
    """Return the forecasts of a step's gates.

    Args:
        spec: the rollout.
        index: of the step.
        rate_per_s: requests for the model.
        base_rates: by kind of gate (`errors`, `exceed`, `disagree`), the bad rate expected.
    """
    gates = step_gates(spec, index)
    step = spec.steps[index]
    part = step.sample_ppm / PPM if isinstance(step, ShadowStep) else gates.canary_share
    return tuple(
        (
            watched,
            time_to_verdict(
                watched.gate,
                Traffic(rate_per_s, part, base_rates.get(watched.kind, 0.0)),
                Look(0.0, gates.require, watched.alpha_abort, watched.alpha_pass),
            ),
        )
        for watched in gates.gates
    )


def _comparison(gate: ComparisonGate, traffic: Traffic, look: Look) -> tuple[Forecast, ...]:
    equal = _window(traffic, 1.0)
    passing = _after(gate.min_requests, equal.canary_units)
    if look.require is Requirement.NON_INFERIOR:
        bound = look.pass_bound + math.log(comparison.ways_to_pass(gate))
        by_ratio = _ratio_time(equal, gate.pass_margin, BELOW, bound)
        by_ratio = max(by_ratio, _after(gate.min_events, equal.canary_events + equal.stable_events))
        passing = max(passing, min(by_ratio, _absolute_time(gate, equal, bound)))
    found = [_forecast(Outcome.PASS, 1.0, passing, traffic, equal.canary_events + equal.stable_events)]
    for worse in _HARMFUL:
        window = _window(traffic, worse)
        seconds = _ratio_time(window, gate.abort_ratio, ABOVE, look.harm_bound)
        events = window.canary_events + window.stable_events
        found.append(_forecast(Outcome.HARM, worse, seconds, traffic, events))
    return tuple(found)


def _disagreement(gate: DisagreeGate, traffic: Traffic, look: Look) -> tuple[Forecast, ...]:
    pairs = traffic.rate_per_s * traffic.share
    bad = pairs * traffic.base_rate
    passing = _after(gate.min_pairs, pairs)
    if look.require is Requirement.NON_INFERIOR:
        proof = _time(bad, pairs - bad, gate.max_rate, BELOW_TO_NONE, look.pass_bound)
        passing = max(passing, proof)
    look = Look(0.0, look.require, look.alpha_abort / (2 if gate.slices else 1), look.alpha_pass)
    return (_forecast(Outcome.PASS, 1.0, passing, traffic, bad), *_above(gate.max_rate, traffic, look))


def _above(most: float, traffic: Traffic, look: Look) -> list[Forecast]:
    """Return when rates above `most` are found."""
    trials = traffic.rate_per_s * traffic.share
    found = []
    for worse in _HARMFUL:
        bad = trials * min(most * worse, 1.0)
        seconds = _time(bad, trials - bad, most, ABOVE, look.harm_bound)
        found.append(_forecast(Outcome.HARM, worse, seconds, traffic, bad))
    return found


def _window(traffic: Traffic, worse: float) -> Window:
    """Return what is expected in a second."""
    canary = traffic.rate_per_s * traffic.share
    stable = traffic.rate_per_s - canary
    return Window(canary, canary * min(traffic.base_rate * worse, 1.0), stable, stable * traffic.base_rate)


def _ratio_time(window: Window, edge: float, ratios: tuple[float, ...], bound: float) -> float:
    if not window.canary_units or not window.stable_units:
        return math.inf
    return _time(window.canary_events, window.stable_events, share(window, edge), ratios, bound)


def _absolute_time(gate: ComparisonGate, window: Window, bound: float) -> float:
    if gate.or_abs_below is None:
        return math.inf
    good = window.canary_units - window.canary_events
    return _time(window.canary_events, good, gate.or_abs_below, BELOW_TO_NONE, bound)


def _time(bad: float, good: float, edge: float, ratios: tuple[float, ...], bound: float) -> float:
    """Return the seconds until the evidence reaches the bound, of outcomes per second."""
    growth = max(log_likelihood_ratio(bad, good, edge, ratio) for ratio in ratios)
    return (bound + math.log(len(ratios))) / growth if growth > 0 else math.inf


def _after(count: float, per_s: float) -> float:
    return count / per_s if per_s else (math.inf if count else 0.0)


def _forecast(
    outcome: Outcome, ratio: float, seconds: float, traffic: Traffic, events_per_s: float
) -> Forecast:
    if math.isinf(seconds):
        return Forecast(outcome, ratio, seconds, math.inf, math.inf)
    return Forecast(outcome, ratio, seconds, seconds * traffic.rate_per_s, seconds * events_per_s)
