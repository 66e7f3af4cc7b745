"""Directives of a rollout: what every step tells the replicas."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.core.evidence import ArmRoute, RoutePlan, ShadowRoute
from gateway.core.rollout import (
    CANARY,
    PPM,
    STABLE,
    DisagreeGate,
    PromoteStep,
    ShadowSpec,
    ShadowStep,
    WeightStep,
)
from gateway.rollouts.effects import Directive, Turn
from gateway.rollouts.gates import step_gates

if TYPE_CHECKING:
    from gateway.core.rollout import RolloutSpec, Step, Target
    from gateway.core.types import VersionId
    from gateway.rollouts.decider_work import Work
    from gateway.rollouts.state import RolloutState


def prepare(work: Work, index: int) -> None:
    """Tell the replicas to get ready for a step; it is entered when they have acknowledged."""
    directive = replace(_next(work, serving_index(work.spec, index)), turn=Turn.PREPARE)
    work.set(prepared=directive, target_step=index, acks=frozenset(), epoch=directive.epoch)
    work.publish(directive)


def commit(work: Work, serving: int) -> None:
    """Tell the replicas to follow a step's plan."""
    directive = _next(work, serving)
    work.set(committed=directive, prepared=None, acks=frozenset(), epoch=directive.epoch)
    work.publish(directive)


def commit_rest(work: Work, version: VersionId | None) -> None:
    """Tell the replicas to give everything to one version, or, without any, to leave it to the source."""
    s = work.state
    plan = _resting(s.spec, version) if version is not None and s.spec is not None else None
    directive = Directive(
        rollout=s.name,
        model=_model(s),
        epoch=s.epoch + 1,
        turn=Turn.COMMIT,
        plan=None if plan is None else replace(plan, epoch=s.epoch + 1),
        keep={} if version is None else {"rollout": (version,)},
    )
    work.set(committed=directive, prepared=None, acks=frozenset(), epoch=directive.epoch)
    work.publish(directive)


def pinned(state: RolloutState) -> VersionId | None:
    """Return the version that others than the canary get by the directive in force; None: by the source."""
    if state.committed is None or state.committed.plan is None:
        return None
    return (state.committed.retreat or state.committed.plan).arms[0].version


def _model(state: RolloutState) -> str:
    if state.spec is not None:
        return state.spec.model
    return state.committed.model if state.committed is not None else ""


def serving_index(spec: RolloutSpec, index: int) -> int:
    """Return the last step up to `index` that says what the canary gets; -1 when none does."""
    for at in range(min(index, len(spec.steps) - 1), -1, -1):
        if isinstance(spec.steps[at], ShadowStep | WeightStep | PromoteStep):
            return at
    return -1


def _next(work: Work, serving: int) -> Directive:
    """Return the directive of a serving step, with the next epoch; -1: stable alone, the canary loaded."""
    s, spec = work.state, work.spec
    epoch = s.epoch + 1
    stable, canary = s.targets[STABLE], s.targets.get(CANARY)
    step = spec.steps[serving] if serving >= 0 else None
    safe = replace(_resting(spec, stable), epoch=epoch)
    shadows = _shadows(s, spec, step)
    plan = replace(_plan(s, spec, _arms(s, step), shadows, serving), epoch=epoch)
    skip_first_s = step_gates(spec, serving).skip_first_s if serving >= 0 else 0.0
    promoting = isinstance(step, PromoteStep)
    loaded = (stable,) if canary is None else (stable, canary)
    window = {"rollback_window": (stable,)} if promoting else {}
    return Directive(
        rollout=s.name,
        model=spec.model,
        epoch=epoch,
        turn=Turn.COMMIT,
        plan=plan,
        retreat=safe,
        # Once promoted it stands by itself: a stable that is lost in the rollback window is not gone back to.
        ready=frozenset({canary} if promoting and canary is not None else loaded),
        keep={"rollout": loaded + tuple(shadow.version for shadow in shadows), **window},
        skip_first_s=skip_first_s,
    )


def _arms(state: RolloutState, step: Step | None) -> tuple[ArmRoute, ...]:
    stable = state.targets[STABLE]
    if isinstance(step, PromoteStep):
        return (ArmRoute(STABLE, state.targets[CANARY], PPM),)
    if isinstance(step, WeightStep):
        canary = ArmRoute(CANARY, state.targets[CANARY], step.weight_ppm)
        return (ArmRoute(STABLE, stable, PPM - step.weight_ppm), canary)
    return (ArmRoute(STABLE, stable, PPM),)


def _shadows(state: RolloutState, spec: RolloutSpec, step: Step | None) -> tuple[ShadowRoute, ...]:
    if isinstance(step, PromoteStep):
        return ()
    listed = [ShadowRoute(s, state.targets[s.name]) for s in spec.shadows if s.name in state.targets]
    if isinstance(step, ShadowStep) and spec.canary is not None:
        return (ShadowRoute(_tried(spec, spec.canary, step), state.targets[CANARY]), *listed)
    return tuple(listed)


def _tried(spec: RolloutSpec, canary: Target, step: ShadowStep) -> ShadowSpec:
    gates = (gate for group in step.gates for gate in spec.gates.get(group, ()))
    slices = (s for gate in gates if isinstance(gate, DisagreeGate) for s in gate.slices)
    return ShadowSpec(
        name=CANARY,
        target=canary,
        sample_ppm=step.sample_ppm,
        max_inflight=step.max_inflight,
        headroom_ppm=step.headroom_ppm,
        rules=step.rules,
        slices=tuple(dict.fromkeys(slices)),
    )


def _resting(spec: RolloutSpec, version: VersionId) -> RoutePlan:
    """Return the plan without a canary. Without a rollout_id, too: what it counts is no evidence."""
    arms = (ArmRoute(STABLE, version, PPM),)
    return RoutePlan(model=spec.model, arms=arms, assign=spec.assign, rollout=spec.name)


def _plan(
    state: RolloutState,
    spec: RolloutSpec,
    arms: tuple[ArmRoute, ...],
    shadows: tuple[ShadowRoute, ...],
    serving: int,
) -> RoutePlan:
    watched = step_gates(spec, serving) if serving >= 0 and serving < len(spec.steps) else None
    return RoutePlan(
        model=spec.model,
        arms=arms,
        shadows=shadows,
        assign=spec.assign,
        rollout=spec.name,
        rollout_id=state.rollout_id,
        step=max(serving, 0),
        latency_thresholds_s=watched.thresholds_s if watched is not None else (),
        unit_is_key=spec.test.unit == "key",
        window_s=spec.test.window_s,
    )
