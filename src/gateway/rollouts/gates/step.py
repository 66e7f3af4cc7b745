"""The gates of a step together: which apply, how the chance of error is divided, what follows from all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from gateway.core.rollout import (
    CANARY,
    PPM,
    ApproveStep,
    CrashesGate,
    DisagreeGate,
    ErrorsGate,
    ExceedGate,
    ExternalGate,
    FallbacksGate,
    Gate,
    PauseStep,
    PrometheusGate,
    PromoteStep,
    Requirement,
    RolloutSpec,
    ShadowStep,
    SrmGate,
    WeightStep,
)
from gateway.rollouts.gates import evaluate
from gateway.rollouts.gates.states import Answer, GateState, gate_state_from_json, gate_state_to_json
from gateway.rollouts.gates.verdicts import GateVerdict, Look, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.core.rollout import Step
    from gateway.rollouts.gates.counts import Delta

NO_DATA_S: Final = 120.0
"""Without any request or pair for so long there is no evidence to go by."""
_KINDS: Final[Mapping[type, str]] = {
    SrmGate: "srm",
    ErrorsGate: "errors",
    ExceedGate: "exceed",
    CrashesGate: "crashes",
    FallbacksGate: "fallbacks",
    DisagreeGate: "disagree",
    ExternalGate: "external",
    PrometheusGate: "prometheus",
}
_STATISTICAL: Final = (ErrorsGate, ExceedGate, FallbacksGate, DisagreeGate)
"""May find harm by chance."""
_PROVING: Final = (ErrorsGate, ExceedGate, DisagreeGate)
"""May pass by chance."""
_NEED_TRAFFIC: Final = (SrmGate, ErrorsGate, ExceedGate, FallbacksGate)
"""Say nothing about a canary that answers nobody."""


@dataclass(frozen=True, slots=True)
class WatchedGate:
    """A gate in force.

    Attributes:
        name: unique in the step, `safety.errors`; the second of its kind in a group is `safety.errors#2`.
        group: its group in the file.
        kind: as the file calls it.
        gate: itself.
        alpha_abort: its part of the chance of a false harm.
        alpha_pass: its part of the chance of a false pass.
    """

    name: str
    group: str
    kind: str
    gate: Gate
    alpha_abort: float
    alpha_pass: float


@dataclass(frozen=True, slots=True)
class StepGates:
    """The gates of a step.

    Attributes:
        gates: in force.
        left_out: names of those that need canary traffic, in a shadow step.
        require: what it takes to pass.
        canary_share: of the keys, from 0 to 1.
        is_shadow: the canary answers nobody.
        thresholds_s: latencies of the ExceedGates, ascending; `exceeded` is counted in this order.
        skip_first_s: latencies are not counted for so long after the weight has changed.
        no_data_s: HOLD without any request or pair for so long.
    """

    gates: tuple[WatchedGate, ...]
    left_out: tuple[str, ...] = ()
    require: Requirement = Requirement.NON_INFERIOR
    canary_share: float = 0.0
    is_shadow: bool = False
    thresholds_s: tuple[float, ...] = ()
    skip_first_s: float = 0.0
    no_data_s: float = NO_DATA_S

    @property
    def asked(self) -> tuple[WatchedGate, ...]:
        """The gates that live on answers from outside."""
        return tuple(w for w in self.gates if isinstance(w.gate, ExternalGate | PrometheusGate))


@dataclass(frozen=True, slots=True)
class StepState:
    """What is known in a step.

    Attributes:
        states: by gate name.
        counted: requests of the canary, or pairs of its shadow.
        evidence_at_s: monotonic time of the last request or pair of any arm; of the beginning before.
    """

    states: Mapping[str, GateState]
    counted: int
    evidence_at_s: float


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """What follows from all gates together.

    Attributes:
        outcome: HARM if any gate says so, else HOLD, else UNDECIDED, else PASS.
        reason: of the gate that decided.
        gates: each gate with its verdict.
    """

    outcome: Outcome
    reason: str
    gates: tuple[tuple[WatchedGate, GateVerdict], ...] = field(default=())

    def document(self) -> list[dict[str, Any]]:
        """Return the verdicts as JSON types: group, kind, name, verdict, reason, numbers."""
        return [
            {
                "group": watched.group,
                "kind": watched.kind,
                "name": watched.name,
                "verdict": verdict.outcome.value,
                "reason": verdict.reason,
                "numbers": dict(verdict.numbers),
            }
            for watched, verdict in self.gates
        ]


def step_gates(spec: RolloutSpec, index: int) -> StepGates:
    """Return the gates of a step of a rollout.

    A pause or an approval is watched by the gates of the step before it. The chance of a false abort is
    divided among the gates that could cause one and among all watched steps, since each starts with fresh
    evidence: `alpha_abort` then holds for the whole rollout. That of a false pass is divided within the step.
    """
    step = spec.steps[index]
    source = _source(spec, index)
    named = tuple(_named(spec, source.gates)) if source else ()
    is_shadow = isinstance(source, ShadowStep)
    kept = [(name, g, gate) for name, g, gate in named if not (is_shadow and isinstance(gate, _NEED_TRAFFIC))]
    abort = spec.test.alpha_abort / (_count(kept, _STATISTICAL) * watched_steps(spec))
    passing = spec.test.alpha_pass / _count(kept, _PROVING)
    return StepGates(
        gates=tuple(WatchedGate(name, g, _KINDS[type(gate)], gate, abort, passing) for name, g, gate in kept),
        left_out=tuple(name for name, _, gate in named if is_shadow and isinstance(gate, _NEED_TRAFFIC)),
        require=step.require if isinstance(step, ShadowStep | WeightStep) else Requirement.NO_HARM,
        canary_share=_share(spec, source),
        is_shadow=is_shadow,
        thresholds_s=tuple(sorted({gate.threshold_s for _, _, gate in kept if isinstance(gate, ExceedGate)})),
        skip_first_s=max(
            (gate.skip_first_s for _, _, gate in kept if isinstance(gate, ExceedGate)), default=0.0
        ),
    )


def watched_steps(spec: RolloutSpec) -> int:
    """Return how many steps have gates that may find harm by chance; at least 1."""
    sources = [_source(spec, index) for index in range(len(spec.steps))]
    watched = [
        s for s in sources if s and any(isinstance(g, _STATISTICAL) for _, _, g in _named(spec, s.gates))
    ]
    return max(len(watched), 1)


def begin(gates: StepGates, now_s: float) -> StepState:
    """Return no evidence."""
    states = {w.name: evaluate.initial(w.gate, gates.canary_share, now_s) for w in gates.gates}
    return StepState(states, 0, now_s)


def observe(gates: StepGates, state: StepState, delta: Delta, now_s: float) -> StepState:
    """Add what was counted."""
    states = {
        name: evaluate.update(w.gate, before, delta, gates.thresholds_s, now_s)
        for (name, before), w in zip(_states(gates, state, now_s).items(), gates.gates, strict=True)
    }
    requests = sum(arm.requests for arm in delta.arms.values())
    pairs = sum(shadow.compared + shadow.failed for shadow in delta.shadows.values())
    mine = delta.shadow(CANARY)
    counted = mine.compared + mine.failed if gates.is_shadow else delta.arm(CANARY).requests
    return StepState(states, state.counted + counted, now_s if requests or pairs else state.evidence_at_s)


def hear(gates: StepGates, state: StepState, name: str, answer: Answer) -> StepState:
    """Take an answer from outside to the gate of this name; to any other it says nothing."""
    for watched in gates.asked:
        if watched.name == name:
            states = _states(gates, state, answer.at_s)
            return replace(
                state, states={**states, name: evaluate.answer(watched.gate, states[name], answer)}
            )
    return state


def judge(gates: StepGates, state: StepState, now_s: float) -> StepVerdict:
    """Return what follows at this moment. Without any canary request or pair it is never PASS."""
    states = _states(gates, state, now_s)
    verdicts = tuple(
        (w, evaluate.verdict(w.gate, states[w.name], Look(now_s, gates.require, w.alpha_abort, w.alpha_pass)))
        for w in gates.gates
    )
    worst = [f"{w.name}: {v.reason}" for w, v in verdicts if v.outcome is Outcome.HARM]
    if worst:
        return StepVerdict(Outcome.HARM, worst[0], verdicts)
    if not 0 <= now_s - state.evidence_at_s < gates.no_data_s:
        return StepVerdict(Outcome.HOLD, f"no data: no request in {gates.no_data_s:g} s", verdicts)
    for outcome in (Outcome.HOLD, Outcome.UNDECIDED):
        found = [f"{w.name}: {v.reason}" for w, v in verdicts if v.outcome is outcome]
        if found:
            return StepVerdict(outcome, found[0], verdicts)
    if not state.counted:
        return StepVerdict(Outcome.UNDECIDED, "the canary has done nothing yet", verdicts)
    return StepVerdict(Outcome.PASS, "every gate passed", verdicts)


def state_to_json(state: StepState) -> dict[str, Any]:
    """Return the state as JSON types."""
    return {
        "states": {name: gate_state_to_json(gate) for name, gate in state.states.items()},
        "counted": state.counted,
        "evidence_at_s": state.evidence_at_s,
    }


def state_from_json(document: Mapping[str, Any]) -> StepState:
    """Return the state of which `state_to_json` made the document.

    Raises:
        ValueError: the document is not such a one.
    """
    try:
        states = {name: gate_state_from_json(gate) for name, gate in document["states"].items()}
        return StepState(states, document["counted"], document["evidence_at_s"])
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not the state of a step: {exc}") from exc


def _states(gates: StepGates, state: StepState, now_s: float) -> dict[str, GateState]:
    """Return the state of every gate in force, in their order; of one that is new, no evidence."""
    fresh = begin(gates, now_s).states
    return {w.name: state.states.get(w.name, fresh[w.name]) for w in gates.gates}


def _source(spec: RolloutSpec, index: int) -> ShadowStep | WeightStep | PromoteStep | None:
    """Return the step whose gates watch this one."""
    for step in reversed(spec.steps[: index + 1]):
        if not isinstance(step, PauseStep | ApproveStep):
            return step
    return None


def _named(spec: RolloutSpec, groups: tuple[str, ...]) -> Iterator[tuple[str, str, Gate]]:
    """Yield name, group and gate."""
    for group in dict.fromkeys(groups):
        seen: dict[str, int] = {}
        for gate in spec.gates.get(group, ()):
            kind = _KINDS[type(gate)]
            seen[kind] = seen.get(kind, 0) + 1
            suffix = f"#{seen[kind]}" if seen[kind] > 1 else ""
            yield f"{group}.{kind}{suffix}", group, gate


def _share(spec: RolloutSpec, step: Step | None) -> float:
    if isinstance(step, PromoteStep):
        return 1.0
    return min(step.weight_ppm, PPM - spec.assign.holdout_ppm) / PPM if isinstance(step, WeightStep) else 0.0


def _count(gates: list[tuple[str, str, Gate]], kinds: tuple[type, ...]) -> int:
    return max(sum(isinstance(gate, kinds) for _, _, gate in gates), 1)
