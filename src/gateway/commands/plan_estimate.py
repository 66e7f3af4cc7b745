"""How long each step of a rollout takes at some traffic, and what would keep it from going on. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.config.rollout_values import duration_text, percent_text
from gateway.core.rollout import (
    PPM,
    ApproveStep,
    Hesitation,
    PauseStep,
    PromoteStep,
    Requirement,
    ShadowStep,
    WeightStep,
)
from gateway.rollouts.gates import Forecast, Outcome, step_forecast, step_gates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.core.rollout import RolloutSpec, Step
    from gateway.rollouts.gates import WatchedGate

WORST: Final = 5.0
"""A canary with so many times the bad requests should be found within a step."""

_AGAINST_STABLE: Final = frozenset({"errors", "exceed"})


@dataclass(frozen=True, slots=True)
class Assumed:
    """What the estimate goes by.

    Attributes:
        requests_per_s: for the model; None where nothing is known.
        rates: by kind of gate (`errors`, `exceed`, `disagree`), the share of bad requests expected.
        source: where `requests_per_s` is from, in words.
    """

    requests_per_s: float | None
    rates: Mapping[str, float]
    source: str = ""


@dataclass(frozen=True, slots=True)
class GateEstimate:
    """One gate in one step.

    Attributes:
        name: `safety.errors`.
        kind: as the file calls it.
        pass_s: until a canary as good as stable passes; None where the gate needs no evidence, infinite where
            it never does.
        events: bad requests of both arms until then.
        harm_s: how many times worse than tolerated -> seconds until it is withdrawn.
    """

    name: str
    kind: str
    pass_s: float | None
    events: float
    harm_s: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """One step.

    Attributes:
        index: from 0.
        what: in words, `weight 5%`.
        min_s: least time; 0 where only people are waited for.
        max_s: time after which the policy decides; None where nothing does.
        likely_s: until it goes on with a canary as good as stable; infinite where it does not by itself, None
            where that is not known.
        require: `no_harm` or `non_inferior`; empty where no gates decide.
        canary_per_s: requests, or copies of them, that the canary gets; None where that is not known.
        gates: those in force.
        left_out: gates that say nothing about a canary that answers nobody.
    """

    index: int
    what: str
    min_s: float
    max_s: float | None
    likely_s: float | None
    require: str = ""
    canary_per_s: float | None = None
    gates: tuple[GateEstimate, ...] = ()
    left_out: tuple[str, ...] = ()


def estimate(spec: RolloutSpec, assumed: Assumed) -> tuple[StepEstimate, ...]:
    """Return what is expected of each step."""
    return tuple(_estimate(spec, index, assumed) for index in range(len(spec.steps)))


def describe_step(step: Step) -> str:
    """Return a step in words."""
    match step:
        case ShadowStep():
            return f"shadow {percent_text(step.sample_ppm)}"
        case WeightStep():
            return f"weight {percent_text(step.weight_ppm)}"
        case PauseStep(duration_s=None):
            return "pause until resumed"
        case PauseStep():
            return f"pause {duration_text(step.duration_s or 0.0)}"
        case ApproveStep():
            return f"approve by {step.count}"
        case PromoteStep():
            return "promote"


def _estimate(spec: RolloutSpec, index: int, assumed: Assumed) -> StepEstimate:
    step = spec.steps[index]
    what = describe_step(step)
    match step:
        case ApproveStep():
            return StepEstimate(index, what, 0.0, None, math.inf)
        case PauseStep(duration_s=None):
            return StepEstimate(index, what, 0.0, None, math.inf)
        case PauseStep():
            return StepEstimate(index, what, step.duration_s or 0.0, None, step.duration_s)
        case PromoteStep():
            return StepEstimate(index, what, 0.0, None, 0.0)
    gates = step_gates(spec, index)
    found: tuple[GateEstimate, ...] = ()
    likely_s = canary_per_s = None
    rate = assumed.requests_per_s
    if rate is not None:
        found = tuple(_gate(*entry) for entry in step_forecast(spec, index, rate, assumed.rates))
        likely_s = max(step.min_bake_s, *(gate.pass_s or 0.0 for gate in found), 0.0)
        part = step.sample_ppm / PPM if isinstance(step, ShadowStep) else gates.canary_share
        canary_per_s = rate * part
    return StepEstimate(
        index=index,
        what=what,
        min_s=step.min_bake_s,
        max_s=step.max_bake_s,
        likely_s=likely_s,
        require=step.require.value,
        canary_per_s=canary_per_s,
        gates=found or tuple(GateEstimate(g.name, g.kind, None, 0.0, {}) for g in gates.gates),
        left_out=gates.left_out,
    )


def _gate(watched: WatchedGate, forecasts: tuple[Forecast, ...]) -> GateEstimate:
    passing = next((f for f in forecasts if f.outcome is Outcome.PASS), None)
    return GateEstimate(
        name=watched.name,
        kind=watched.kind,
        pass_s=passing.seconds if passing else None,
        events=passing.events if passing else 0.0,
        harm_s={f.ratio: f.seconds for f in forecasts if f.outcome is Outcome.HARM},
    )


def cautions(spec: RolloutSpec, steps: tuple[StepEstimate, ...]) -> Iterator[str]:
    """Yield what would keep the rollout from going on, or a bad canary from being found."""
    for step in steps:
        for gate in step.gates:
            yield from _gate_cautions(spec, step, gate)


def _gate_cautions(spec: RolloutSpec, step: StepEstimate, gate: GateEstimate) -> Iterator[str]:
    if step.max_s is None:
        return
    where = f"step {step.index + 1} ({step.what}): {gate.name}"
    then = "hold there" if spec.policy.inconclusive is Hesitation.HOLD else "be aborted"
    if gate.pass_s is not None and math.isinf(gate.pass_s):
        yield f"{where} cannot pass at this traffic and these rates: the rollout would {then}"
    elif gate.pass_s is not None and gate.pass_s > step.max_s:
        yield (
            f"{where} takes about {about(gate.pass_s)} to pass, max_bake is {duration_text(step.max_s)}: the "
            f"rollout would {then}"
        )
    worst_s = gate.harm_s.get(WORST)
    goes_on_s = min(step.likely_s if step.likely_s is not None else math.inf, step.max_s)
    if worst_s is not None and worst_s > goes_on_s and step.require == Requirement.NO_HARM.value:
        what = "the bad requests" if gate.kind in _AGAINST_STABLE else "what it tolerates"
        later = any(isinstance(other, WeightStep) for other in spec.steps[step.index + 1 :])
        after = "a later step has to" if later else "only the rollback window is left to find it"
        yield (
            f"{where} takes about {about(worst_s)} to find {WORST:g} times {what}, but the step goes on "
            f"after {about(goes_on_s)}: {after}"
        )


def about(seconds: float) -> str:
    """Return a time in two digits or so: `55m`, `1.6h`."""
    if math.isinf(seconds):
        return "never"
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("m", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g}{unit}" if seconds < 100 * size else f"{seconds / size:.0f}{unit}"
    return f"{seconds:.2g}s" if seconds < 100 else f"{seconds:.0f}s"
