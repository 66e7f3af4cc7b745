"""Taking the canary back. The weight is lowered first, and whatever the store says; nothing blocks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.rollout import STABLE
from gateway.rollouts.decider_plans import commit_rest
from gateway.rollouts.decider_work import CONTROLLER
from gateway.rollouts.effects import Retreat
from gateway.rollouts.phases import IN_PROGRESS, Phase
from gateway.rollouts.state import NO_STEP, TOMBSTONES_KEPT, Tombstone

if TYPE_CHECKING:
    from gateway.rollouts.decider_work import Work


def withdraw(work: Work, reason: str, who: str = CONTROLLER) -> bool:
    """Abort what is in progress, or roll back what was promoted; False where there is nothing to withdraw."""
    if work.state.phase in IN_PROGRESS:
        _abort(work, reason, who)
    elif work.state.phase is Phase.ROLLBACK_WINDOW:
        _roll_back(work, reason, who)
    else:
        return False
    return True


def _abort(work: Work, reason: str, who: str) -> None:
    _retreat(work, reason)
    _bury(work, reason)
    _give_back(work)
    work.move(Phase.ABORTING, reason, who)


def _roll_back(work: Work, reason: str, who: str) -> None:
    _retreat(work, reason)
    _bury(work, reason)
    commit_rest(work, work.state.former)
    work.set(incumbent=None, former=None)
    work.move(Phase.ROLLING_BACK, reason, who)


def supersede(work: Work, reason: str, who: str) -> None:
    """Withdraw without a verdict: another specification takes its place."""
    _retreat(work, reason)
    _give_back(work)
    work.move(Phase.SUPERSEDED, reason, who)


def end(work: Work, reason: str) -> None:
    """Leave the model to its source: the file is gone."""
    commit_rest(work, None)
    work.set(incumbent=None, former=None, targets={}, labels={}, gates=None, verdict=None, serving=NO_STEP)
    if work.state.phase is Phase.IDLE:
        work.record("config", "deleted", "file", {"reason": reason})
    else:
        work.move(Phase.IDLE, reason)
    work.set(spec=None, next_spec=None, gone=False, paused=False)


def _retreat(work: Work, reason: str) -> None:
    work.store(undo=None)
    work.set(paused=False, forced=False)
    if work.state.rollout_id:
        work.emit(Retreat(work.state.name, work.state.rollout_id, reason))


def _give_back(work: Work) -> None:
    """Give everything to stable, for good: the source might prefer the canary."""
    if STABLE in work.state.targets:
        work.set(serving=work.state.serving, prepared=None)
        commit_rest(work, work.state.targets[STABLE])


def _bury(work: Work, reason: str) -> None:
    tombstone = Tombstone(rollout_id=work.state.rollout_id, reason=reason, wall_s=work.wall_s)
    others = {base: t for base, t in work.state.tombstones.items() if base != work.state.base_id}
    kept = list({**others, work.state.base_id: tombstone}.items())[-TOMBSTONES_KEPT:]
    work.set(tombstones=dict(kept))
