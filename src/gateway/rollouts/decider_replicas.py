"""What replicas say about themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.core.rollout import CANARY, Hesitation
from gateway.rollouts.decider_evidence import WATCHED, count_crash
from gateway.rollouts.decider_withdraw import withdraw
from gateway.rollouts.phases import PREPARING
from gateway.rollouts.state import ReplicaView

if TYPE_CHECKING:
    from gateway.rollouts.decider_work import Work
    from gateway.rollouts.events import ReplicaAck, ReplicaLost, ReplicaReport, ReplicaSeen
    from gateway.rollouts.state import RolloutState


def on_seen(work: Work, event: ReplicaSeen) -> None:
    """Wait for a replica from now on; an unclean end of its life before counts against the canary."""
    s = work.state
    before = s.replicas.get(event.replica)
    if before is not None and before.boot_id == event.boot_id:
        _put(work, event.replica, replace(before, live=True))
        return
    _put(work, event.replica, ReplicaView(boot_id=event.boot_id))
    work.set(acks=s.acks - {event.replica})
    if before is not None and not event.clean and _is_tried(s):
        count_crash(work)


def on_lost(work: Work, event: ReplicaLost) -> None:
    """Wait for a replica no more; what it counted stays counted."""
    view = work.state.replicas.get(event.replica)
    if view is None:
        work.ignore("a replica that is not known")
        return
    _put(work, event.replica, replace(view, live=False))


def on_ack(work: Work, event: ReplicaAck) -> None:
    """Note that a replica is ready for the prepared directive."""
    s = work.state
    view = s.replicas.get(event.replica)
    if s.prepared is None or event.epoch != s.prepared.epoch or view is None:
        work.ignore("an acknowledgement of something else")
        return
    if event.boot_id not in {"", view.boot_id}:
        work.ignore("an acknowledgement of another life of the replica")
        return
    _put(work, event.replica, replace(view, ready=view.ready | s.prepared.ready))
    work.set(acks=s.acks | {event.replica})


def on_report(work: Work, event: ReplicaReport) -> None:
    """Note how things stand at a replica; withdraw what it found harmful or what will never load."""
    view = work.state.replicas.get(event.replica)
    if view is None or view.boot_id != event.boot_id:
        work.ignore("a replica, or a life of it, that is not known")
        return
    _put(
        work,
        event.replica,
        replace(
            view,
            ready=event.ready,
            epoch=event.epoch,
            lowered=event.lowered,
            failed=event.failed,
            for_good=event.for_good,
        ),
    )
    if event.harmed and event.harmed == work.state.rollout_id:
        withdraw(work, f"{event.replica}: {event.reason}", f"replica:{event.replica}")
    elif work.state.phase in PREPARING:
        _check_loading(work, event)
    elif work.state.phase in WATCHED:
        _check_capacity(work, event, view)


def _check_loading(work: Work, event: ReplicaReport) -> None:
    canary = work.state.targets.get(CANARY)
    if canary in event.for_good:
        withdraw(work, f"load_failed on {event.replica}: {event.failed.get(canary, 'for good')}")


def _check_capacity(work: Work, event: ReplicaReport, before: ReplicaView) -> None:
    canary = work.state.targets.get(CANARY)
    if canary is None or canary in event.ready or not (canary in before.ready or canary in event.failed):
        return
    if work.spec.policy.canary_capacity_lost is Hesitation.ABORT:
        why = event.failed.get(canary) or event.reason or "not READY any more"
        withdraw(work, f"canary capacity is lost on {event.replica}: {why}")


def _is_tried(state: RolloutState) -> bool:
    """Tell whether the directive in force gives the canary anything to do."""
    canary = state.targets.get(CANARY)
    if canary is None or state.committed is None or state.committed.plan is None:
        return False
    plan = state.committed.plan
    return any(arm.version == canary and arm.weight_ppm > 0 for arm in plan.arms) or any(
        shadow.version == canary for shadow in plan.shadows
    )


def _put(work: Work, name: str, view: ReplicaView) -> None:
    work.set(replicas={**work.state.replicas, name: view})
