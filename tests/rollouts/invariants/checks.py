"""What must hold after every action in the world; each finding begins with the invariant that it breaks.

    I1  weights           I7  evidence        I8  abort         I9  tombstones    I10 epochs
    I11 no raise          I12 bad file        I13 pinned        I16 stable kept   I17 abort unblocked
    I18 audit, approval   W   weight only where READY and acknowledged
    F   freeze and pause block advances       T   transitions are in the table
    I5  what is routed to is claimed

I2 to I4, I6, I14, I15 and I19 concern the request path and are held by its tests, I20 by the gate simulation.
"""

from collections.abc import Iterator
from typing import Any

from gateway.core.rollout import CANARY, PPM, STABLE, ApproveStep, ShadowStep, WeightStep
from gateway.core.rollout_control import Verb
from gateway.core.types import VersionId
from gateway.rollouts import events
from gateway.rollouts.effects import Publish, Turn
from gateway.rollouts.identity import semantics
from gateway.rollouts.phases import IN_PROGRESS, TOMBSTONES, TRANSITIONS, WITHDRAWING, Phase
from gateway.rollouts.replica import ReplicaState, canary_ppm
from gateway.rollouts.state import RolloutState
from tests.rollouts.invariants.world import FROZEN_S, WITHDRAWN, World

AT_RISK = IN_PROGRESS | {Phase.ROLLBACK_WINDOW}


def findings(before: World, after: World) -> list[str]:
    """Return what one action broke; brings the ledger of `after` up to date."""
    found, after.wrong = after.wrong, []
    for _, event, old, new, wishes in after.log:
        if old is not None:
            found += _decided(after, event, old, new, wishes)
    found += _replicas(before, after)
    if after.stored is not before.stored and after.stored is not None:
        found += _stored(before, after, after.stored)
    found += _remembered(after)
    after.log = []
    return found


def _remembered(world: World) -> Iterator[str]:
    """What a gateway withdrew stays withdrawn there, whether or not the store ever heard of it."""
    for name, node in world.nodes.items():
        gone, now, leader = node.withdrew, node.replica, node.decider
        assert now is not None
        if now.wanted is not None and now.wanted.rollout_id in gone and canary_ppm(now.plan, now.wanted):
            yield f"I9 {name} gives weight to a canary that it withdrew"
        if leader is None or not (leader.store.leading and leader.targets and leader.phase in AT_RISK):
            continue
        if leader.rollout_id in gone:
            yield f"I9 {name} goes on with a rollout that it withdrew"


def _decided(
    world: World, event: Any, old: RolloutState, new: RolloutState, wishes: tuple[Any, ...]
) -> Iterator[str]:
    if new.ignored.startswith("no way"):
        yield f"T {new.ignored}"
    for wish in wishes:
        if isinstance(wish, Publish) and wish.directive.epoch > (new.epoch):
            yield "I10 a directive with an epoch that was not given out"
        if isinstance(wish, Publish) and not _is_stored(world, wish):
            yield "I10 a directive was published that the store does not have"
    if isinstance(event, events.StoreLost | events.StoreConflict):
        return
    yield from _table(old, new)
    yield from _advance(world, event, old, new)
    yield from _withdrawal(event, old, new)
    yield from _audited(event, old, new)
    if isinstance(event, events.SpecRefused) and _essence(old) != _essence(new):
        yield "I12 an invalid file changed more than its own record"


def _audited(event: Any, old: RolloutState, new: RolloutState) -> Iterator[str]:
    recalled = (event.audited or ()) if isinstance(event, events.Restarted) else ()
    serials = {entry.detail["serial"] for entry in (*new.outbox, *recalled)}
    if not {move.serial for move in new.history if move not in old.history} <= serials:
        yield "I18 a transition that is in no audit entry to come"
    if isinstance(event, events.Restarted):
        taken = {entry.detail["serial"] for entry in recalled}
        if any(entry.detail["serial"] in taken for entry in new.outbox if entry not in old.outbox):
            yield "I18 a new life gives an audit entry a number that was taken"
        unheard = [
            entry for entry in recalled if entry.what in WITHDRAWN and entry.detail["serial"] > old.serial
        ]
        if unheard and new.targets and new.phase in AT_RISK:
            yield "I9 a new life goes on though a withdrawal of the one before is not in the store"
    done = {Phase.ABORTING: Phase.ABORTED, Phase.ROLLING_BACK: Phase.ROLLED_BACK}
    if new.phase is not old.phase and new.phase is done.get(old.phase) and _unwritten(old, event):
        yield "I18 a withdrawal counts as recorded before it is"


def _unwritten(old: RolloutState, event: Any) -> bool:
    """Tell whether the write that has been made began before the last transition."""
    later = [entry.detail["serial"] for entry in old.outbox[old.store.audits :]]
    return not isinstance(event, events.StoreWritten) or old.history[-1].serial in later


def _is_stored(world: World, wish: Publish) -> bool:
    known = world.ledger.directives.get((wish.directive.epoch, wish.directive.turn.value), ())
    return wish.directive in known


def _table(old: RolloutState, new: RolloutState) -> Iterator[str]:
    fresh = [m for m in new.history if m not in old.history]
    for move in fresh:
        if move.phase not in TRANSITIONS[move.source]:
            yield f"T {move.source} to {move.phase}"
    if new.phase is not old.phase and not fresh:
        yield f"T {old.phase} to {new.phase} without a record"


def _advance(world: World, event: Any, old: RolloutState, new: RolloutState) -> Iterator[str]:
    """What must hold when the canary gets more, or another step begins."""
    same = old.rollout_id == new.rollout_id
    raised = new.weight_ppm > old.weight_ppm
    went_on = same and (new.step > old.step or (old.serving < 0 <= new.serving))
    promoted = new.phase is Phase.ROLLBACK_WINDOW is not old.phase
    if not (raised or went_on or promoted):
        return
    spec = new.spec
    if new.paused or (spec is not None and (spec.paused or (spec.freeze and world.wall_s >= FROZEN_S))):
        yield "F advanced while paused or frozen"
    if raised and not isinstance(event, events.SpecSeen):
        yield from _acknowledged(world, old, new)
    if went_on or promoted:
        yield from _deserved(world, old, new)


def _acknowledged(world: World, old: RolloutState, new: RolloutState) -> Iterator[str]:
    prepared, committed = old.prepared, new.committed
    assert committed is not None
    if old.committed is not None and old.rollout_id != new.rollout_id and new.step == old.step:
        return  # the same weight again for a step that bakes anew: prepared when it was entered
    if prepared is None or prepared.plan is None or committed.plan is None:
        yield "W weight was raised without a preparation"
        return
    if prepared.plan.arms != committed.plan.arms:
        yield "W another weight was committed than was prepared"
    for name, view in new.replicas.items():
        if view.live and (name, view.boot_id, prepared.epoch) not in world.ledger.acks:
            yield f"W weight was raised before {name} acknowledged it"


def _deserved(world: World, old: RolloutState, new: RolloutState) -> Iterator[str]:
    assert old.spec is not None
    same = old.rollout_id == new.rollout_id
    left = old.spec.steps[old.step] if 0 <= old.step < len(old.spec.steps) else None
    forced = old.forced or any(
        m.reason.startswith("promoted by") for m in new.history[-3:] if m.phase is Phase.PROMOTING
    )
    began = old.serving < 0 and old.phase in {Phase.LOADING, Phase.WARMING}
    skipped = old.spec.steps[old.step + 1 : new.step] if same else ()
    if any(isinstance(step, ApproveStep) for step in skipped):
        yield "I18 a step that asks for approvals was skipped"
    if began or (forced and not isinstance(left, ApproveStep)):
        return
    if isinstance(left, ShadowStep | WeightStep):
        arm, pairs = old.totals.arms.get(CANARY), old.totals.shadows.get(CANARY)
        # What the event itself brought counts too, so look at the world's own book.
        if (old.rollout_id, old.serving) not in world.ledger.evidence:
            yield "I7 a step passed without evidence of its own"
        crashes = (arm.crashes if arm is not None else 0) + 0 * (pairs is None)
        if crashes:
            yield "I8 a step passed though the canary had crashed"
    if isinstance(left, ApproveStep):
        given = {
            who.removeprefix("user:")
            for who, rollout_id, step, seen in world.ledger.approved
            if (rollout_id, step, seen) == (old.rollout_id, old.step, old.approval_hash)
        }
        if len(given - {old.spec.author, old.file.author}) < left.count:
            yield "I18 a step was left without the approvals that it asks for"


def _withdrawal(event: Any, old: RolloutState, new: RolloutState) -> Iterator[str]:
    arm = new.totals.arms.get(CANARY)
    if new.phase in AT_RISK and new.serving >= 0 and arm is not None and arm.crashes:
        yield "I8 harm was seen and nothing withdrawn"
    wants = isinstance(event, events.Operator) and event.verb is Verb.ABORT
    if wants and old.phase in AT_RISK and new.phase in AT_RISK:
        yield "I17 an abort was not obeyed"
    if old.phase in TOMBSTONES | WITHDRAWING and new.phase in IN_PROGRESS | {Phase.ROLLBACK_WINDOW}:
        another = old.spec is None or new.spec is None or semantics(new.spec) != semantics(old.spec)
        retried = isinstance(event, events.Operator) and event.verb is Verb.RETRY
        if not (another or retried):
            yield "I9 a tombstone was left without another file or a retry"
    if new.phase in WITHDRAWING and new.weight_ppm:
        yield "I8 the directive of a withdrawal gives the canary weight"


def _replicas(before: World, after: World) -> Iterator[str]:
    for name, node in after.nodes.items():
        was, now = before.nodes[name].replica, node.replica
        assert was is not None
        assert now is not None
        yield from _routed(name, now)
        yield from _tried(name, now)
        if was.boot_id == now.boot_id:
            if now.seen < was.seen or now.epoch < was.epoch:
                yield f"I10 {name} went back to a lower epoch"
            if not node.up and canary_ppm(now.plan, now.wanted) > canary_ppm(was.plan, now.wanted):
                yield f"I11 {name} raised the canary's weight while cut off"


def _routed(name: str, now: ReplicaState) -> Iterator[str]:
    if now.plan is None:
        return
    shares = [arm.weight_ppm for arm in now.plan.arms]
    if sum(shares) != PPM or min(shares) < 0:
        yield f"I1 {name} routes by {shares}"
    arms = {arm.version for arm in now.plan.arms if arm.weight_ppm}
    if not arms | {shadow.version for shadow in now.plan.shadows} <= _claimed(now):
        yield f"I5 {name} routes to what it does not claim"


def _tried(name: str, now: ReplicaState) -> Iterator[str]:
    wanted = now.wanted
    if wanted is None or wanted.retreat is None:
        return
    safe = wanted.retreat.arms[0].version
    arms = now.plan.arms if now.plan is not None else ()
    if not {arm.version for arm in arms if arm.weight_ppm} - {safe} <= now.ready:
        yield f"W {name} gives weight to a canary that is not READY"
    if safe not in _claimed(now):
        yield f"I16 {name} has given stable back"
    if wanted.rollout_id in now.harmed and canary_ppm(now.plan, wanted):
        yield f"I8 {name} gives weight to a canary that it knows to do harm"


def _claimed(now: ReplicaState) -> frozenset[VersionId]:
    return frozenset(version for versions in now.claimed.values() for version in versions)


def _stored(before: World, after: World, state: RolloutState) -> Iterator[str]:
    ledger, old = after.ledger, before.stored
    if old is not None and state.epoch < old.epoch:
        yield "I10 the store went back to a lower epoch"
    for key, directives in ledger.directives.items():
        if len(directives) > 1:
            yield f"I10 two directives with epoch {key}"
    if any(len(targets) > 1 for targets in ledger.pinned.values()):
        yield "I13 the targets of a rollout changed"
    yield from _directives(state)
    grave = before.ledger.buried.get(state.base_id)
    if grave is not None and state.phase in AT_RISK and state.targets and ledger.retries <= grave:
        yield "I9 a withdrawn rollout goes on without a retry"


def _directives(state: RolloutState) -> Iterator[str]:
    for directive in (state.committed, state.prepared):
        plan = directive.plan if directive is not None else None
        if plan is not None and sum(arm.weight_ppm for arm in plan.arms) != PPM:
            yield "I1 weights do not sum to everything"
    committed = state.committed
    if committed is None or state.phase not in AT_RISK or not state.targets:
        return
    if committed.turn is not Turn.COMMIT:
        yield "W a preparation was committed"
    kept = {version for versions in committed.keep.values() for version in versions}
    if committed.retreat is not None and committed.retreat.arms[0].version not in kept:
        yield "I16 the directive does not keep stable"
    if state.phase is Phase.ROLLBACK_WINDOW and state.targets[STABLE] not in kept:
        yield "I16 the old stable is given back in its window"


def _essence(state: RolloutState) -> tuple[Any, ...]:
    return (
        state.phase,
        state.spec,
        state.step,
        state.committed,
        state.prepared,
        state.epoch,
        state.rollout_id,
        state.totals,
        state.paused,
    )
