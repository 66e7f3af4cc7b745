"""Verdicts from outside: fresh ones count, everything else holds."""

import math

import pytest

from gateway.core.rollout import ExternalGate, Gate, PrometheusGate
from gateway.rollouts.gates import Answer, AnswerKind, GateVerdict, Outcome, begin, hear, judge, step_gates
from tests.rollouts.gates.gate_cases import one_gate

EXTERNAL = ExternalGate("http://127.0.0.1:8010/verdict", timeout_s=2, interval_s=10)


def bounded(*, for_s: float = 0.0) -> PrometheusGate:
    """Return a gate that holds a number between 1 and 2."""
    return PrometheusGate(
        "http://127.0.0.1:9090", "up", max_value=2, min_value=1, for_s=for_s, timeout_s=5, interval_s=15
    )


def said(gate: Gate, *answers: Answer, now_s: float) -> GateVerdict:
    """Return what the gate says after these answers."""
    gates = step_gates(one_gate(gate), 0)
    (watched,) = gates.asked
    state = begin(gates, 0.0)
    for answer in answers:
        state = hear(gates, state, watched.name, answer)
    ((_, verdict),) = judge(gates, state, now_s).gates
    return verdict


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (AnswerKind.PASS, Outcome.PASS),
        (AnswerKind.FAIL, Outcome.HARM),
        (AnswerKind.HOLD, Outcome.HOLD),
        (AnswerKind.NO_DATA, Outcome.HOLD),
    ],
)
def test_an_external_verdict_is_taken_at_its_word(kind: AnswerKind, outcome: Outcome) -> None:
    """Each of the four verdicts has one outcome, with the reason that was given."""
    verdict = said(EXTERNAL, Answer(5.0, kind, reason="drift of age"), now_s=6.0)
    assert verdict.outcome is outcome
    assert verdict.reason.endswith(": drift of age")


@pytest.mark.parametrize("gate", [EXTERNAL, bounded()])
def test_silence_holds(gate: Gate) -> None:
    """Before the first answer, and when three in a row are missing, nothing passes or fails."""
    assert said(gate, now_s=1.0).outcome is Outcome.HOLD
    good = Answer(0.0, AnswerKind.PASS, 1.5)
    assert said(gate, good, now_s=32.0).outcome is Outcome.PASS
    assert said(gate, good, now_s=51.0).outcome is Outcome.HOLD


@pytest.mark.parametrize("gate", [EXTERNAL, bounded()])
def test_an_answer_from_before_the_clock_began_anew_is_stale(gate: Gate) -> None:
    """After a restart of the machine an old answer counts no more, and a new one does."""
    old = Answer(1e6, AnswerKind.PASS, 1.5)
    assert said(gate, old, now_s=10.0).outcome is Outcome.HOLD
    assert said(gate, old, Answer(9.0, AnswerKind.PASS, 1.5), now_s=10.0).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (0.99, Outcome.HARM),
        (1.0, Outcome.PASS),
        (2.0, Outcome.PASS),
        (2.01, Outcome.HARM),
        (math.nan, Outcome.HOLD),
        (math.inf, Outcome.HOLD),
        (None, Outcome.HOLD),
    ],
)
def test_a_number_is_held_against_its_bounds(value: float | None, outcome: Outcome) -> None:
    """Both bounds are allowed themselves; what is no number holds."""
    assert said(bounded(), Answer(1.0, AnswerKind.PASS, value), now_s=2.0).outcome is outcome


def test_out_of_bounds_must_last() -> None:
    """Harm is a run of answers out of bounds that lasts; one within bounds begins it anew."""
    gate = bounded(for_s=30.0)

    def bad(at_s: float) -> Answer:
        return Answer(at_s, value=3.0)

    def good(at_s: float) -> Answer:
        return Answer(at_s, value=1.5)

    assert said(gate, bad(0.0), bad(15.0), now_s=16.0).outcome is Outcome.UNDECIDED
    assert said(gate, bad(0.0), bad(15.0), bad(30.0), now_s=31.0).outcome is Outcome.HARM
    assert said(gate, bad(0.0), good(15.0), bad(30.0), now_s=31.0).outcome is Outcome.UNDECIDED


def test_no_number_breaks_the_run() -> None:
    """Out of bounds, then nothing, then out of bounds is no unbroken run."""
    answers = Answer(0.0, value=3.0), Answer(15.0, AnswerKind.NO_DATA), Answer(30.0, value=3.0)
    assert said(bounded(for_s=30.0), *answers, now_s=31.0).outcome is Outcome.UNDECIDED
