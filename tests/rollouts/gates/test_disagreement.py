"""Disagreement of a shadow, overall and by slice."""

from gateway.core.evidence import ShadowCounts
from gateway.core.rollout import CANARY, DisagreeGate, Requirement, RolloutSpec, ShadowStep
from gateway.rollouts.gates import Delta, GateVerdict, Outcome, begin, judge, observe, step_gates
from tests.rollouts.gates.gate_cases import spec


def shadowed(gate: DisagreeGate, require: Requirement = Requirement.NON_INFERIOR) -> RolloutSpec:
    """Return a rollout of one shadow step."""
    return spec((ShadowStep(1_000_000, 60, 600, ("g",), require),), {"g": (gate,)})


def pairs(compared: int, disagreed: int, shadow: str = CANARY, **slices: tuple[int, int]) -> Delta:
    """Return pairs, by value of the slice `country`."""
    counts = ShadowCounts(compared=compared, disagreed=disagreed, slices={"country": slices})
    return Delta(shadows={shadow: counts})


def said(gate: DisagreeGate, *deltas: Delta, require: Requirement = Requirement.NON_INFERIOR) -> GateVerdict:
    """Return what the gate says after these counts, one a second."""
    gates = step_gates(shadowed(gate, require), 0)
    state = begin(gates, 0.0)
    for second, counted in enumerate(deltas, 1):
        state = observe(gates, state, counted, second)
    ((_, verdict),) = judge(gates, state, len(deltas)).gates
    return verdict


def test_too_much_disagreement_is_harm_and_little_passes() -> None:
    """Rates well beyond and well below the bound are told apart; at the bound nothing is said."""
    gate = DisagreeGate(0.02)
    assert said(gate, *[pairs(100, 6)] * 20).outcome is Outcome.HARM
    assert said(gate, *[pairs(100, 0)] * 20).outcome is Outcome.PASS
    assert said(gate, *[pairs(100, 2)] * 20).outcome is Outcome.UNDECIDED


def test_nothing_passes_before_the_least_pairs() -> None:
    """999 of 1000 pairs are not enough."""
    for require in Requirement:
        assert said(DisagreeGate(0.5), pairs(999, 0), require=require).outcome is Outcome.UNDECIDED
        assert said(DisagreeGate(0.5), pairs(1000, 0), require=require).outcome is Outcome.PASS


def test_a_slice_alone_can_be_harmed() -> None:
    """One country in ten that always disagrees is found below an overall rate that is allowed."""
    counted = pairs(100, 5, de=(90, 0), fr=(10, 5))
    assert said(DisagreeGate(0.1), *[counted] * 40).outcome is not Outcome.HARM
    verdict = said(DisagreeGate(0.1, slices=("country",)), *[counted] * 40)
    assert verdict.outcome is Outcome.HARM
    assert verdict.reason.startswith("country=fr: 200 of 400")


def test_later_values_of_a_slice_need_more() -> None:
    """The bounds of the values in order of appearance divide half of the error however many there are."""
    values = {f"v{n:02}": (10, 0) for n in range(50)}
    numbers = said(DisagreeGate(0.1, slices=("country",)), pairs(500, 0, CANARY, **values)).numbers
    bounds = [value["log_bound_harm"] for value in numbers["slices"]["country"]]
    alphas = [2.718281828459045**-bound for bound in bounds]
    assert bounds == sorted(bounds)
    assert 0.0045 < sum(alphas) < 0.005


def test_a_copy_that_fails_alone_disagrees() -> None:
    """A shadow that fails where the primary does not is no better than one that differs."""
    failing = Delta(shadows={CANARY: ShadowCounts(compared=90, failed=10, failed_alone=10)})
    assert said(DisagreeGate(0.02), *[failing] * 20).outcome is Outcome.HARM
    with_its_primary = Delta(shadows={CANARY: ShadowCounts(compared=90, failed=10)})
    assert said(DisagreeGate(0.02), *[with_its_primary] * 20).outcome is Outcome.PASS


def test_only_its_own_shadow_counts() -> None:
    """Another shadow's disagreement is not the canary's."""
    assert said(DisagreeGate(0.02), *[pairs(100, 50, "next")] * 20).outcome is Outcome.UNDECIDED
    assert said(DisagreeGate(0.02, shadow="next"), *[pairs(100, 50, "next")] * 20).outcome is Outcome.HARM


def test_none_allowed_means_none() -> None:
    """With a rate of 0 the first difference is harm."""
    assert said(DisagreeGate(0.0), pairs(100_000, 1)).outcome is Outcome.HARM
