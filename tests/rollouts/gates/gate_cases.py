"""Specs and counts that the tests of the gates share."""

from gateway.core.evidence import ArmCounts
from gateway.core.rollout import (
    CANARY,
    STABLE,
    Assignment,
    CrashesGate,
    DisagreeGate,
    ErrorsGate,
    ExceedGate,
    ExternalGate,
    FallbacksGate,
    Gate,
    HashSpec,
    PauseStep,
    PromoteStep,
    Requirement,
    RolloutSpec,
    ShadowStep,
    SrmGate,
    Step,
    Target,
    WeightStep,
)
from gateway.rollouts.gates import Delta

STEPS: tuple[Step, ...] = (
    ShadowStep(250_000, 60, 600, ("safety", "agreement")),
    WeightStep(10_000, 60, 600, ("safety",), Requirement.NO_HARM),
    WeightStep(250_000, 60, 600, ("safety", "latency")),
    PauseStep(),
    PromoteStep(3600, ("safety",)),
)
GATES: dict[str, tuple[Gate, ...]] = {
    "safety": (SrmGate(), ErrorsGate(), CrashesGate(), FallbacksGate()),
    "latency": (
        ExceedGate(0.04, skip_first_s=60),
        ExceedGate(0.01),
        ExternalGate("http://127.0.0.1:1/verdict"),
    ),
    "agreement": (DisagreeGate(0.02, slices=("country",)),),
}


def spec(steps: tuple[Step, ...] = STEPS, gates: dict[str, tuple[Gate, ...]] | None = None) -> RolloutSpec:
    """Return a rollout of these steps and gates."""
    return RolloutSpec(
        name="fraud",
        model="fraud",
        stable=None,
        canary=Target("2"),
        assign=Assignment(HashSpec("salt")),
        steps=steps,
        gates=GATES if gates is None else gates,
    )


def one_gate(
    *gates: Gate, weight_ppm: int = 500_000, require: Requirement = Requirement.NON_INFERIOR
) -> RolloutSpec:
    """Return a rollout of one weight step with these gates in the group `g`."""
    return spec((WeightStep(weight_ppm, 60, 600, ("g",), require),), {"g": gates})


def arm(requests: int, errors: int = 0, *, slow: tuple[int, ...] = (), **others: int) -> ArmCounts:
    """Return counts in which every request is a unit of its own."""
    return ArmCounts(
        requests=requests,
        units=requests,
        errors=errors,
        measured=requests,
        exceeded=slow,
        requests_all=requests,
        **others,
    )


def arms(canary: ArmCounts, stable: ArmCounts) -> Delta:
    """Return what both arms counted."""
    return Delta({CANARY: canary, STABLE: stable})
