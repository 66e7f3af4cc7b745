"""Verdicts from outside: an HTTP endpoint's, and a PromQL expression's number within bounds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from gateway.core.rollout import ExternalGate, PrometheusGate
from gateway.rollouts.gates.states import Answer, AnswerKind, AnswerState
from gateway.rollouts.gates.verdicts import GateVerdict, Outcome

if TYPE_CHECKING:
    from gateway.rollouts.gates.verdicts import Look

_MISSED: Final = 3
"""An answer is stale when so many in a row should have come since."""
_EXTERNAL: Final = {
    AnswerKind.PASS: (Outcome.PASS, "passed"),
    AnswerKind.FAIL: (Outcome.HARM, "failed"),
    AnswerKind.HOLD: (Outcome.HOLD, "asked to hold"),
    AnswerKind.NO_DATA: (Outcome.HOLD, "has no data"),
}


def update(gate: ExternalGate | PrometheusGate, state: AnswerState, answer: Answer) -> AnswerState:
    """Take an answer."""
    if isinstance(gate, ExternalGate) or not _is_beyond(gate, answer):
        return AnswerState(answer)
    since = answer.at_s if state.beyond_since_s is None else state.beyond_since_s
    return AnswerState(answer, min(since, answer.at_s))


def verdict(gate: ExternalGate | PrometheusGate, state: AnswerState, look: Look) -> GateVerdict:
    """Return what the last answer says; HOLD without a fresh one."""
    answer = state.answer
    if answer is None:
        return GateVerdict(Outcome.HOLD, "no answer yet")
    age_s = look.now_s - answer.at_s
    numbers: dict[str, Any] = {"age_s": round(age_s, 3), "value": _finite(answer.value)}
    if not 0 <= age_s <= _MISSED * gate.interval_s + gate.timeout_s:
        return GateVerdict(Outcome.HOLD, f"the last answer is stale: {age_s:.1f} s old", numbers)
    if isinstance(gate, ExternalGate):
        outcome, words = _EXTERNAL[answer.kind]
        return GateVerdict(outcome, f"{gate.url} {words}{_because(answer)}", numbers)
    return _bounded(gate, state, answer, numbers)


def _bounded(
    gate: PrometheusGate, state: AnswerState, answer: Answer, numbers: dict[str, Any]
) -> GateVerdict:
    value = _finite(answer.value)
    numbers |= {"min_value": gate.min_value, "max_value": gate.max_value, "for_s": gate.for_s}
    if value is None or answer.kind is AnswerKind.NO_DATA:
        return GateVerdict(Outcome.HOLD, f"no number{_because(answer)}", numbers)
    if state.beyond_since_s is None:
        return GateVerdict(Outcome.PASS, f"{value:g} is within bounds", numbers)
    beyond_s = answer.at_s - state.beyond_since_s
    numbers["beyond_s"] = round(beyond_s, 3)
    words = f"{value:g} is out of bounds for {beyond_s:.0f} s"
    if beyond_s >= gate.for_s:
        return GateVerdict(Outcome.HARM, words, numbers)
    return GateVerdict(Outcome.UNDECIDED, f"{words} of {gate.for_s:g} s", numbers)


def _is_beyond(gate: PrometheusGate, answer: Answer) -> bool:
    value = _finite(answer.value)
    if value is None or answer.kind is AnswerKind.NO_DATA:
        return False
    above = gate.max_value is not None and value > gate.max_value
    return above or (gate.min_value is not None and value < gate.min_value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _because(answer: Answer) -> str:
    return f": {answer.reason}" if answer.reason else ""
