"""One gate, whatever its kind: the state that it starts with, what it learns, what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.rollout import (
    CrashesGate,
    DisagreeGate,
    ErrorsGate,
    ExceedGate,
    ExternalGate,
    FallbacksGate,
    PrometheusGate,
    SrmGate,
)
from gateway.rollouts.gates import allocation, answers, comparison, disagreement, limits
from gateway.rollouts.gates.states import (
    AnswerState,
    ComparisonState,
    CrashesState,
    DisagreeState,
    FallbacksState,
    SrmState,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.rollout import Gate
    from gateway.rollouts.gates.counts import Delta
    from gateway.rollouts.gates.states import Answer, GateState
    from gateway.rollouts.gates.verdicts import GateVerdict, Look


def initial(gate: Gate, canary_share: float, now_s: float) -> GateState:
    """Return no evidence about a canary that gets this share of the keys."""
    match gate:
        case ErrorsGate() | ExceedGate():
            return comparison.initial(now_s)
        case SrmGate():
            return allocation.initial(canary_share)
        case CrashesGate():
            return CrashesState()
        case FallbacksGate():
            return limits.initial_fallbacks()
        case DisagreeGate():
            return disagreement.initial(gate)
        case ExternalGate() | PrometheusGate():
            return AnswerState()


def update(
    gate: Gate, state: GateState, delta: Delta, thresholds_s: Sequence[float], now_s: float
) -> GateState:
    """Add what was counted, where the gate lives on counts."""
    match gate, state:
        case (ErrorsGate() | ExceedGate(), ComparisonState()):
            return comparison.update(gate, state, delta, thresholds_s, now_s)
        case SrmGate(), SrmState():
            return allocation.update(state, delta)
        case CrashesGate(), CrashesState():
            return limits.update_crashes(state, delta)
        case FallbacksGate(), FallbacksState():
            return limits.update_fallbacks(gate, state, delta)
        case DisagreeGate(), DisagreeState():
            return disagreement.update(gate, state, delta)
        case _:
            return state


def answer(gate: Gate, state: GateState, given: Answer) -> GateState:
    """Take an answer, where the gate lives on answers."""
    if isinstance(gate, ExternalGate | PrometheusGate) and isinstance(state, AnswerState):
        return answers.update(gate, state, given)
    return state


def verdict(gate: Gate, state: GateState, look: Look) -> GateVerdict:
    """Return what the gate says now.

    Raises:
        TypeError: the state is another gate's.
    """
    match gate, state:
        case (ErrorsGate() | ExceedGate(), ComparisonState()):
            return comparison.verdict(gate, state, look)
        case SrmGate(), SrmState():
            return allocation.verdict(gate, state)
        case CrashesGate(), CrashesState():
            return limits.crashes_verdict(gate, state)
        case FallbacksGate(), FallbacksState():
            return limits.fallbacks_verdict(gate, state, look)
        case DisagreeGate(), DisagreeState():
            return disagreement.verdict(gate, state, look)
        case (ExternalGate() | PrometheusGate(), AnswerState()):
            return answers.verdict(gate, state, look)
        case _:
            raise TypeError(f"{type(state).__name__} is not the state of a {type(gate).__name__}")
