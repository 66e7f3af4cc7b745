"""A step's gates together."""

import json
import math

import pytest

from gateway.core.evidence import ArmCounts, ShadowCounts
from gateway.core.rollout import (
    CANARY,
    CrashesGate,
    ErrorsGate,
    ExternalGate,
    Gate,
    PauseStep,
    PromoteStep,
    Requirement,
    SrmGate,
    WeightStep,
)
from gateway.rollouts.gates import (
    CRASH,
    Answer,
    AnswerKind,
    Delta,
    Outcome,
    StepGates,
    begin,
    hear,
    judge,
    observe,
    state_from_json,
    state_to_json,
    step_gates,
)
from tests.rollouts.gates.gate_cases import GATES, STEPS, arm, arms, one_gate, spec

EXTERNAL = ExternalGate("http://127.0.0.1:1/verdict")


def names(gates: StepGates) -> list[str]:
    """Return the names of the gates in force."""
    return [watched.name for watched in gates.gates]


def test_each_step_has_the_gates_that_it_names() -> None:
    """Names are the group's and the kind's, numbered from the second of a kind."""
    assert names(step_gates(spec(), 1)) == [
        "safety.srm",
        "safety.errors",
        "safety.crashes",
        "safety.fallbacks",
    ]
    assert names(step_gates(spec(), 2))[4:] == ["latency.exceed", "latency.exceed#2", "latency.external"]
    assert step_gates(spec(), 2).skip_first_s == 60
    assert [watched.name for watched in step_gates(spec(), 2).asked] == ["latency.external"]


def test_a_shadow_step_leaves_out_what_needs_traffic() -> None:
    """A canary that answers nobody has no errors to compare."""
    gates = step_gates(spec(), 0)
    assert names(gates) == ["safety.crashes", "agreement.disagree"]
    assert gates.left_out == ("safety.srm", "safety.errors", "safety.fallbacks")


def test_a_pause_is_watched_by_the_step_before() -> None:
    """While people think, the same gates may withdraw the canary and none needs to be proven."""
    gates = step_gates(spec(), 3)
    assert names(gates) == names(step_gates(spec(), 2))
    assert gates.canary_share == 0.25
    assert gates.require is Requirement.NO_HARM


def test_the_errors_of_all_gates_and_steps_sum_up_to_the_whole() -> None:
    """A false abort has `alpha_abort` in the whole rollout, a false pass `alpha_pass` in each step."""
    whole = spec()
    chance = 0.0
    for index in range(len(whole.steps)):
        gates = step_gates(whole, index).gates
        chance += sum(w.alpha_abort for w in gates if w.kind in {"errors", "exceed", "fallbacks", "disagree"})
        assert sum(w.alpha_pass for w in gates if w.kind in {"errors", "exceed", "disagree"}) <= 0.05 + 1e-12
    assert chance == pytest.approx(0.01)


def test_without_steps_before_it_a_pause_has_no_gates() -> None:
    """A pause at the very beginning watches nothing and never passes by evidence."""
    gates = step_gates(spec((PauseStep(), *STEPS)), 0)
    assert not gates.gates
    assert judge(gates, begin(gates, 0.0), 1.0).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize("gates", [(), (CrashesGate(),), (SrmGate(),), (ErrorsGate(min_requests=0),)])
@pytest.mark.parametrize("require", Requirement)
def test_no_evidence_is_never_a_pass(gates: tuple[Gate, ...], require: Requirement) -> None:
    """Without a canary request no step passes, with whatever gates."""
    watched = step_gates(one_gate(*gates, require=require), 0)
    state = begin(watched, 0.0)
    assert judge(watched, state, 1.0).outcome is not Outcome.PASS
    state = observe(watched, state, arms(arm(0), arm(1000)), 1.0)
    assert judge(watched, state, 2.0).outcome is not Outcome.PASS


def test_harm_outranks_hold_and_hold_outranks_the_rest() -> None:
    """A crash ends the rollout though somebody else says wait; an answer that holds keeps a good one back."""
    gates = step_gates(one_gate(CrashesGate(), EXTERNAL), 0)
    state = observe(gates, begin(gates, 0.0), arms(arm(10), arm(10)), 1.0)
    assert judge(gates, state, 1.0).outcome is Outcome.HOLD
    passed = hear(gates, state, "g.external", Answer(1.0))
    assert judge(gates, passed, 1.0).outcome is Outcome.PASS
    held = hear(gates, state, "g.external", Answer(1.0, AnswerKind.HOLD))
    assert judge(gates, held, 1.0).outcome is Outcome.HOLD
    crashed = judge(gates, observe(gates, held, CRASH, 1.0), 1.0)
    assert crashed.outcome is Outcome.HARM
    assert crashed.reason.startswith("g.crashes: 1 crashes")


def test_silence_of_both_arms_holds() -> None:
    """Without any request for long there is no evidence to go by, until there is again; harm is harm."""
    gates = step_gates(one_gate(CrashesGate()), 0)
    counted = arms(arm(10), arm(10))
    state = observe(gates, begin(gates, 0.0), counted, 1.0)
    assert judge(gates, state, 1.0 + gates.no_data_s).outcome is Outcome.HOLD
    assert judge(gates, observe(gates, state, counted, 200.0), 201.0).outcome is Outcome.PASS
    assert judge(gates, observe(gates, state, CRASH, 1e4), 1e4).outcome is Outcome.HARM


def test_a_mismatch_holds_and_a_match_passes() -> None:
    """Too many canary requests for its share break the assignment; the right share does not."""
    gates = step_gates(one_gate(SrmGate(), weight_ppm=50_000), 0)
    right, wrong = (observe(gates, begin(gates, 0.0), arms(arm(n), arm(10_000 - n)), 1.0) for n in (510, 700))
    assert judge(gates, right, 1.0).outcome is Outcome.PASS
    assert judge(gates, wrong, 1.0).outcome is Outcome.HOLD
    assert "assignment is broken" in judge(gates, wrong, 1.0).reason


def test_keys_are_judged_where_they_are_counted() -> None:
    """Users who come back a hundred times are no mismatch as long as the users are where they belong."""
    gates = step_gates(one_gate(SrmGate(), weight_ppm=50_000), 0)
    busy = arms(arm(800, keys=6), arm(9_200, keys=94))
    assert judge(gates, observe(gates, begin(gates, 0.0), busy, 1.0), 1.0).outcome is Outcome.PASS
    lost = arms(arm(500, keys=0), arm(9_500, keys=2_000))
    assert judge(gates, observe(gates, begin(gates, 0.0), lost, 1.0), 1.0).outcome is Outcome.HOLD


def test_after_promotion_there_is_no_mismatch() -> None:
    """With everything on the canary shares say nothing."""
    gates = step_gates(spec((WeightStep(500_000, 1, 2, ("safety",)), PromoteStep(60, ("safety",)))), 1)
    state = observe(gates, begin(gates, 0.0), arms(arm(5000), arm(0)), 1.0)
    assert judge(gates, state, 1.0).outcome is Outcome.PASS


def test_a_state_survives_the_journal() -> None:
    """Written as JSON and read back, every gate's state is the same and says the same."""
    for index in range(len(STEPS)):
        gates = step_gates(spec(), index)
        state = begin(gates, 0.0)
        for second in range(1, 40):
            shadow = ShadowCounts(
                compared=50, disagreed=second % 3, slices={"country": {"de": (9, 1), "fr": (2, 0)}}
            )
            counted = arms(arm(50, second % 2, slow=(5, 1), fallbacks=1), arm(150, 1, slow=(15, 2)))
            state = observe(gates, state, Delta(counted.arms, {CANARY: shadow}), second)
        state = hear(gates, state, "latency.external", Answer(40.0, AnswerKind.HOLD, reason="wait"))
        read = state_from_json(json.loads(json.dumps(state_to_json(state))))
        assert read == state
        assert judge(gates, read, 41.0) == judge(gates, state, 41.0)
        json.dumps(judge(gates, state, 41.0).document(), allow_nan=False)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"states": {}},
        {"states": {"a": {"kind": "none"}}, "counted": 0, "evidence_at_s": 0},
        {"states": []},
    ],
)
def test_what_is_no_state_is_refused(document: dict[str, object]) -> None:
    """A document of another form is a ValueError."""
    with pytest.raises(ValueError, match="not the state"):
        state_from_json(document)


def test_a_gate_that_is_new_starts_without_evidence() -> None:
    """States of gates that are gone are dropped, and new ones begin."""
    before = step_gates(one_gate(CrashesGate()), 0)
    state = observe(before, begin(before, 0.0), arms(arm(10), arm(10)), 1.0)
    after = step_gates(spec((WeightStep(500_000, 1, 2, ("safety",)),), GATES), 0)
    grown = observe(after, state, arms(arm(10), arm(10)), 2.0)
    assert set(grown.states) == {watched.name for watched in after.gates}
    assert judge(after, state, 2.0).outcome is Outcome.UNDECIDED


def test_two_replicas_are_as_good_as_one() -> None:
    """The same counts in two reports give the same evidence as in one."""
    gates = step_gates(one_gate(ErrorsGate(), SrmGate()), 0)
    one = begin(gates, 0.0)
    other = begin(gates, 0.0)
    half = arms(arm(4, 1), arm(4))
    whole = arms(ArmCounts(requests=8, units=8, errors=2, measured=8, requests_all=8), arm(8))
    for second in range(1, 50):
        one = observe(gates, one, whole, second * 30)
        other = observe(gates, observe(gates, other, half, second * 30 - 25), half, second * 30)
    first, second_ = judge(gates, one, 1471.0), judge(gates, other, 1471.0)
    assert first.gates[0][1].numbers["canary"] == second_.gates[0][1].numbers["canary"]
    assert math.isclose(
        first.gates[0][1].numbers["log_e_harm"], second_.gates[0][1].numbers["log_e_harm"], rel_tol=0.2
    )
