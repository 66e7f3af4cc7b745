"""Rollouts in the phases that people look at: documents that the controller's own code makes of its state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from gateway.core.evidence import ArmCounts, ArmRoute, RoutePlan, ShadowCounts
from gateway.core.rollout import (
    CANARY,
    PPM,
    STABLE,
    ApproveStep,
    Assignment,
    CrashesGate,
    DisagreeGate,
    ErrorsGate,
    ExceedGate,
    FallbacksGate,
    HashSpec,
    PauseStep,
    PromoteStep,
    RolloutSpec,
    ShadowStep,
    SrmGate,
    Target,
    WeightStep,
)
from gateway.core.types import VersionId
from gateway.rollouts.documents import show
from gateway.rollouts.effects import Directive, Turn
from gateway.rollouts.gates import Delta, begin, judge, merge, observe, step_gates
from gateway.rollouts.phases import Phase
from gateway.rollouts.state import Approval, FileView, Move, RolloutState, Tombstone, Totals

NOW_S: Final = 1_800_000_000.0
EVIDENCE: Final = "9f2c1e7ab0d54c8890aa6f1d7b3e5c42" * 2
_V1, _V2 = VersionId("fraud-score", 1, "1f" * 32), VersionId("fraud-score", 2, "2e" * 32)
_SAFETY: Final = (SrmGate(), ErrorsGate(or_abs_below=0.001), CrashesGate(), FallbacksGate())
SPEC: Final = RolloutSpec(
    name="fraud-score",
    model="fraud-score",
    stable=Target("@champion"),
    canary=Target("@challenger"),
    assign=Assignment(HashSpec("fraud")),
    steps=(
        ShadowStep(250_000, 600.0, 7200.0, ("agreement",)),
        WeightStep(50_000, 600.0, 7200.0, ("safety", "latency")),
        PauseStep(900.0),
        ApproveStep(2, frozenset({"model-risk"})),
        WeightStep(500_000, 3600.0, 86_400.0, ("safety", "latency")),
        PromoteStep(86_400.0),
    ),
    gates={
        "safety": _SAFETY,
        "latency": (ExceedGate(0.04),),
        "agreement": (DisagreeGate(0.02, slices=("country",)),),
    },
    author="ben",
)
SHADOW, CANARY_5, APPROVAL = 0, 1, 3


def begun(step: int, phase: Phase = Phase.BAKING, **changes: Any) -> RolloutState:
    """Return a rollout that is in this step, without any evidence."""
    weight = 50_000 if 0 < step < len(SPEC.steps) - 1 else 0
    rest = RoutePlan(model=SPEC.model, arms=(ArmRoute(STABLE, _V1, PPM),), assign=SPEC.assign)
    arms = (ArmRoute(STABLE, _V1, PPM - weight), ArmRoute(CANARY, _V2, weight))
    state = RolloutState(
        name=SPEC.name,
        phase=phase,
        since_wall_s=NOW_S - 754,
        spec=SPEC,
        file=FileView(path="fraud.yaml", seen_hash="ab" * 32, active_hash="ab" * 32, author="ben"),
        rollout_id="r1",
        targets={STABLE: _V1, CANARY: _V2},
        labels={STABLE: "1.4.2", CANARY: "1.5.0"},
        step=step,
        serving=max(n for n in range(step + 1) if isinstance(SPEC.steps[n], ShadowStep | WeightStep)),
        epoch=4,
        committed=Directive(
            rollout=SPEC.name,
            model=SPEC.model,
            epoch=4,
            turn=Turn.COMMIT,
            plan=replace(rest, arms=arms),
            retreat=rest if weight else None,
        ),
        served_s=430.0,
        elapsed_s=430.0,
        history=_history(),
    )
    return replace(state, **changes)


def seen(state: RolloutState, *deltas: Delta) -> RolloutState:
    """Return the rollout after these were counted, as its gates judge them."""
    gates = step_gates(SPEC, state.serving)
    known = state.gates or begin(gates, 0.0)
    for delta in deltas:
        known = observe(gates, known, delta, 0.0)
    total = merge(Delta(state.totals.arms, state.totals.shadows), *deltas)
    totals = Totals(arms=total.arms, shadows=total.shadows)
    return replace(state, gates=known, verdict=judge(gates, known, 0.0), totals=totals)


def counted(canary_errors: int = 1, canary_slow: int = 16) -> Delta:
    """Return what some seconds of traffic count."""
    return Delta(
        {
            STABLE: arm(9500, 19, 310),
            CANARY: replace(arm(500, canary_errors, canary_slow), fallbacks=canary_errors // 6),
        }
    )


def arm(requests: int, errors: int, slow: int) -> ArmCounts:
    """Return an arm's counts."""
    return ArmCounts(
        requests=requests,
        units=requests,
        errors=errors,
        exceeded=(slow,),
        measured=requests,
        requests_all=requests,
        keys=requests,
    )


def mirrored(*, disagreed: int = 3) -> Delta:
    """Return what some seconds of mirroring count."""
    slices = {"country": {"DE": (200, 1), "FR": (150, 0), "other": (100, disagreed - 1)}}
    shadow = ShadowCounts(
        mirrored=500, compared=450, disagreed=disagreed, failed=5, dropped={"inflight": 45}, slices=slices
    )
    return Delta({STABLE: arm(2000, 4, 60)}, {CANARY: shadow})


def document(state: RolloutState) -> dict[str, Any]:
    """Return what the administration port shows of it."""
    return show(state, NOW_S)


def baking() -> RolloutState:
    """Return a canary at 5 % that does well so far."""
    return seen(begun(CANARY_5), *[counted()] * 4)


def shadowing() -> RolloutState:
    """Return a canary that only sees copies."""
    return seen(begun(SHADOW), *[mirrored()] * 4)


def awaiting() -> RolloutState:
    """Return a rollout that one person has approved, of two."""
    roles = frozenset({"model-risk"})
    given = Approval(
        who="user:carla",
        roles=roles,
        wall_s=NOW_S - 120,
        rollout_id="r1",
        step=APPROVAL,
        evidence_hash=EVIDENCE,
    )
    state = begun(
        APPROVAL,
        Phase.AWAITING_APPROVAL,
        reason="approval 1 of 2",
        approvals=(given,),
        approval_hash=EVIDENCE,
    )
    return seen(state, *[counted()] * 12)


def aborted() -> RolloutState:
    """Return a canary that was withdrawn for its errors."""
    state = seen(begun(CANARY_5, Phase.ABORTED), *[counted(canary_errors=6)] * 4)
    assert state.verdict is not None
    reason = state.verdict.reason
    gone = Tombstone(rollout_id="r1", reason=reason, wall_s=NOW_S - 60)
    withdrawn = (
        _move(5, Phase.BAKING, Phase.ABORTING, 60, reason),
        _move(6, Phase.ABORTING, Phase.ABORTED, 59, reason),
    )
    return replace(
        state,
        reason=reason,
        since_wall_s=NOW_S - 59,
        base_id="b1",
        tombstones={"b1": gone},
        committed=None,
        history=(*state.history, *withdrawn),
    )


def holding() -> RolloutState:
    """Return a rollout whose arms do not get their shares."""
    skewed = Delta({STABLE: arm(9000, 18, 300), CANARY: arm(1000, 2, 33)})
    state = seen(begun(CANARY_5, Phase.HOLDING, paused=True), *[skewed] * 3)
    assert state.verdict is not None
    return replace(state, reason=state.verdict.reason)


def promoted() -> RolloutState:
    """Return one that went through."""
    return begun(
        len(SPEC.steps) - 1,
        Phase.PROMOTED,
        reason="kept warm long enough",
        since_wall_s=NOW_S - 7200,
        totals=Totals(),
    )


def _history() -> tuple[Move, ...]:
    return (
        replace(_move(1, Phase.IDLE, Phase.RESOLVING, 2400, "new file"), step=0, who="file:fraud.yaml"),
        replace(_move(2, Phase.RESOLVING, Phase.LOADING, 2398, "canary is version 2"), step=0),
        replace(_move(3, Phase.WARMING, Phase.BAKING, 2390, ""), step=0),
        _move(4, Phase.BAKING, Phase.BAKING, 754, "every gate passed"),
    )


def _move(serial: int, source: Phase, phase: Phase, age_s: float, reason: str) -> Move:
    at_s = NOW_S - age_s
    return Move(
        serial=serial, source=source, phase=phase, step=1, reason=reason, who="controller", wall_s=at_s
    )
