"""A replica's part, as one pure function: follow directives, never before it can, lower by itself.

Three rules hold whatever arrives in whatever order: a directive is followed only if its epoch is greater than
that of every one seen; what is not READY here gets no traffic here; while the store cannot be reached, and
for a rollout that was found harmful here, nothing is raised.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from gateway.rollouts.effects import Acknowledge, Apply, Claim, Report, Turn
from gateway.rollouts.events import Connection, DirectiveSeen, Harm, VersionLost, VersionReady

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.core.evidence import RoutePlan
    from gateway.core.types import VersionId
    from gateway.rollouts.effects import Directive, ReplicaEffect
    from gateway.rollouts.events import ReplicaEvent

HARMED_KEPT: Final = 100
"""Rollouts remembered as harmful here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaState:
    """One replica and one line of rollouts; lost with the process, which begins with the stored directives.

    Attributes:
        replica: its name.
        boot_id: of this life.
        rollout: name of the line.
        ready: versions READY here.
        seen: greatest epoch of any directive seen.
        wanted: newest directive to commit; None: none yet.
        prepared: newest directive to prepare that no commit has followed.
        acked: epoch acknowledged last.
        plan: given to the router; None: none, the model's source decides.
        epoch: of the directive whose plan, or retreat, that is.
        lowered: it is the retreat.
        fallen: epoch whose canary was lost here after it had been applied; only a greater one raises again.
        harmed: rollouts found harmful here, oldest first.
        connected: the store can be reached.
        reason: why it is lowered.
        claimed: versions claimed, by reason.
        told: last report.
    """

    replica: str
    boot_id: str
    rollout: str = ""
    ready: frozenset[VersionId] = frozenset()
    seen: int = 0
    wanted: Directive | None = None
    prepared: Directive | None = None
    acked: int = 0
    plan: RoutePlan | None = None
    epoch: int = 0
    lowered: bool = False
    fallen: int = 0
    harmed: tuple[str, ...] = ()
    connected: bool = True
    reason: str = ""
    claimed: Mapping[str, frozenset[VersionId]] = field(default_factory=lambda: MappingProxyType({}))
    told: Report | None = None


def initial(replica: str, boot_id: str, rollout: str = "") -> ReplicaState:
    """Return a replica that knows nothing yet."""
    return ReplicaState(replica=replica, boot_id=boot_id, rollout=rollout)


def report(state: ReplicaState) -> Report:
    """Return how things stand here."""
    return Report(
        replica=state.replica,
        boot_id=state.boot_id,
        epoch=state.epoch,
        ready=state.ready,
        lowered=state.lowered,
        harmed=_harmed(state),
        reason=state.reason,
    )


def step(state: ReplicaState, event: ReplicaEvent) -> tuple[ReplicaState, tuple[ReplicaEffect, ...]]:
    """Return the state after an event, and the effects to carry out in this order.

    After a partition give the directives that the store has now, and only then `Connection("up")`.
    """
    handle = _HANDLERS.get(type(event))
    return _settle(handle(state, event)) if handle is not None else (state, ())


def canary_ppm(plan: RoutePlan | None, wanted: Directive | None) -> int:
    """Return the share of a plan that is not for what `wanted` would retreat to."""
    if plan is None or wanted is None or wanted.retreat is None:
        return 0
    safe = wanted.retreat.arms[0].version
    return sum(arm.weight_ppm for arm in plan.arms if arm.version != safe)


def _on_directive(state: ReplicaState, event: DirectiveSeen) -> ReplicaState:
    directive = event.directive
    if directive.epoch <= state.seen:
        return state
    if directive.turn is Turn.PREPARE:
        return replace(state, seen=directive.epoch, prepared=directive)
    return replace(state, seen=directive.epoch, wanted=directive, prepared=None)


def _on_ready(state: ReplicaState, event: VersionReady) -> ReplicaState:
    return replace(state, ready=state.ready | {event.version})


def _on_lost(state: ReplicaState, event: VersionLost) -> ReplicaState:
    state = replace(state, ready=state.ready - {event.version})
    wanted = state.wanted
    if wanted is None or wanted.retreat is None or event.version not in wanted.ready:
        return state
    if event.version == wanted.retreat.arms[0].version:
        # Stable is lost: the canary keeps its share and takes no more, so nothing changes.
        return state
    return replace(state, fallen=wanted.epoch, reason=event.reason)


def _on_harm(state: ReplicaState, event: Harm) -> ReplicaState:
    known = (state.wanted, state.prepared)
    meant = [d.rollout_id for d in known if d is not None and d.epoch <= event.epoch]
    fresh = tuple(one for one in dict.fromkeys((event.rollout_id, *meant)) if one not in {"", *state.harmed})
    if not fresh:
        return state
    return replace(state, harmed=(*state.harmed, *fresh)[-HARMED_KEPT:], reason=event.reason)


def _on_connection(state: ReplicaState, event: Connection) -> ReplicaState:
    return replace(state, connected=event.state == "up")


def _settle(state: ReplicaState) -> tuple[ReplicaState, tuple[ReplicaEffect, ...]]:
    effects: list[ReplicaEffect] = []
    state, applied = _follow(state)
    before, after = state.claimed, _claims(state)
    if before != after:
        # Whatever is going to be used is claimed before, whatever was used is given back after.
        both = _union(before, after)
        if both != before:
            effects.append(Claim(state.rollout, both))
    effects += applied
    if before != after:
        if _union(before, after) != after:
            effects.append(Claim(state.rollout, after))
        state = replace(state, claimed=after)
    state, told = _tell(state)
    return state, (*effects, *told)


def _follow(state: ReplicaState) -> tuple[ReplicaState, list[ReplicaEffect]]:
    wanted = state.wanted
    if wanted is None:
        return state, []
    plan, lowered = _choice(state, wanted)
    if plan is None and wanted.plan is not None:
        return state, []
    changed = plan != state.plan or wanted.epoch != state.epoch
    state = replace(state, plan=plan, epoch=wanted.epoch, lowered=lowered)
    if not lowered:
        state = replace(state, reason="")
    return state, [Apply(wanted.model, plan, wanted.skip_first_s)] if changed else []


def _choice(state: ReplicaState, wanted: Directive) -> tuple[RoutePlan | None, bool]:
    """Return the plan to follow and whether it is the retreat."""
    if wanted.retreat is None:
        return wanted.plan, False
    if wanted.rollout_id in state.harmed or state.fallen >= wanted.epoch:
        return wanted.retreat, True
    if state.plan == wanted.plan and state.epoch == wanted.epoch:
        return wanted.plan, False
    if not wanted.ready <= state.ready:
        return wanted.retreat, True
    rises = canary_ppm(wanted.plan, wanted) > canary_ppm(state.plan, wanted)
    if rises and not state.connected:
        return wanted.retreat, True
    return wanted.plan, False


def _claims(state: ReplicaState) -> Mapping[str, frozenset[VersionId]]:
    """Return everything that is told to be kept, and everything that is routed to."""
    claims: dict[str, frozenset[VersionId]] = {}
    for directive in (state.wanted, state.prepared):
        if directive is not None:
            claims = _union(claims, {why: frozenset(versions) for why, versions in directive.keep.items()})
    if state.plan is not None:
        routed = {arm.version for arm in state.plan.arms} | {s.version for s in state.plan.shadows}
        claims = _union(claims, {"rollout": frozenset(routed)})
    return claims


def _union(
    a: Mapping[str, frozenset[VersionId]], b: Mapping[str, frozenset[VersionId]]
) -> dict[str, frozenset[VersionId]]:
    return {why: a.get(why, frozenset()) | b.get(why, frozenset()) for why in {**a, **b}}


def _tell(state: ReplicaState) -> tuple[ReplicaState, list[ReplicaEffect]]:
    effects: list[ReplicaEffect] = []
    present = report(state)
    if present != state.told:
        state = replace(state, told=present)
        effects.append(present)
    prepared = state.prepared
    if prepared is None or state.acked >= prepared.epoch or prepared.rollout_id in state.harmed:
        return state, effects
    if prepared.ready <= state.ready:
        state = replace(state, acked=prepared.epoch)
        effects.append(Acknowledge(state.replica, prepared.epoch, state.boot_id))
    return state, effects


def _harmed(state: ReplicaState) -> str:
    """Return the rollout that is asked for though it was found harmful here."""
    for directive in (state.prepared, state.wanted):
        if directive is not None and directive.rollout_id in state.harmed:
            return directive.rollout_id
    return ""


_HANDLERS: Final[Mapping[type, Callable[[ReplicaState, Any], ReplicaState]]] = {
    DirectiveSeen: _on_directive,
    VersionReady: _on_ready,
    VersionLost: _on_lost,
    Harm: _on_harm,
    Connection: _on_connection,
}
