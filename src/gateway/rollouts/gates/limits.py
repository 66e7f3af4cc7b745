"""Crashes and fallbacks: absolute limits on the canary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.rollout import CANARY
from gateway.rollouts.gates.states import CrashesState, FallbacksState
from gateway.rollouts.gates.verdicts import GateVerdict, Outcome, nats, rate
from gateway.statistics import dispersion
from gateway.statistics import rate as one_rate
from gateway.statistics.mixture import ABOVE, log_e, start

if TYPE_CHECKING:
    from gateway.core.rollout import CrashesGate, FallbacksGate
    from gateway.rollouts.gates.counts import Delta
    from gateway.rollouts.gates.verdicts import Look


def initial_fallbacks() -> FallbacksState:
    """Return no evidence."""
    return FallbacksState(start(ABOVE))


def update_crashes(state: CrashesState, delta: Delta) -> CrashesState:
    """Add what was counted, as an arm and as a shadow."""
    arm, shadow = delta.arm(CANARY), delta.shadow(CANARY)
    pairs = shadow.compared + shadow.failed
    return CrashesState(state.crashes + arm.crashes, state.requests + arm.requests + pairs)


def update_fallbacks(gate: FallbacksGate, state: FallbacksState, delta: Delta) -> FallbacksState:
    """Add what was counted."""
    arm = delta.arm(CANARY)
    if not arm.requests and not arm.fallbacks:
        return state
    spread = dispersion.add(state.canary, arm.requests, arm.fallbacks)
    together = dispersion.index(spread)
    return FallbacksState(
        one_rate.above(state.harm, (arm.fallbacks, arm.requests), gate.max_rate, together),
        state.fallbacks + arm.fallbacks,
        state.requests + arm.requests,
        spread,
    )


def crashes_verdict(gate: CrashesGate, state: CrashesState) -> GateVerdict:
    """Return HARM beyond the limit, PASS below it, UNDECIDED before the first request or pair."""
    numbers = {"crashes": state.crashes, "max_crashes": gate.max_crashes, "requests": state.requests}
    words = f"{state.crashes} crashes, at most {gate.max_crashes} allowed"
    if state.crashes > gate.max_crashes:
        return GateVerdict(Outcome.HARM, words, numbers)
    if not state.requests:
        return GateVerdict(Outcome.UNDECIDED, "the canary has done nothing yet", numbers)
    return GateVerdict(Outcome.PASS, words, numbers)


def fallbacks_verdict(gate: FallbacksGate, state: FallbacksState, look: Look) -> GateVerdict:
    """Return HARM once the rate is proven too high, PASS after `min_requests` without that.

    With a limit of 0 the first fallback is proof.
    """
    together = dispersion.index(state.canary)
    numbers = {
        "log_e_harm": nats(log_e(state.harm, together)),
        "log_e_harm_peak": nats(state.harm.peak),
        "log_bound_harm": nats(look.harm_bound),
        "fallbacks": state.fallbacks,
        "requests": state.requests,
        "grouping": round(together, 3),
        "min_requests": gate.min_requests,
        "rate": rate(state.fallbacks, state.requests),
        "max_rate": gate.max_rate,
    }
    words = f"{state.fallbacks} fallbacks in {state.requests} canary requests"
    if state.harm.peak >= look.harm_bound or (state.fallbacks and not gate.max_rate):
        return GateVerdict(Outcome.HARM, f"{words}: more than {gate.max_rate:g} of them", numbers)
    if state.requests < gate.min_requests:
        return GateVerdict(Outcome.UNDECIDED, f"{words}, of at least {gate.min_requests}", numbers)
    return GateVerdict(Outcome.PASS, words, numbers)
