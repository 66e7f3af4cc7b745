"""What operators ask for. Every word is on record, refused ones too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.rollout import ApproveStep, PauseStep, PromoteStep
from gateway.core.rollout_control import Verb
from gateway.rollouts.decider_approvals import person, refusal, valid_approvals
from gateway.rollouts.decider_plans import prepare
from gateway.rollouts.decider_start import begin
from gateway.rollouts.decider_withdraw import withdraw
from gateway.rollouts.phases import STEPPING, TOMBSTONES, Phase
from gateway.rollouts.state import Approval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.rollouts.decider_work import Work
    from gateway.rollouts.events import Operator

APPROVALS_KEPT: Final = 100


def on_operator(work: Work, event: Operator) -> None:
    """Do as asked, or say on record why not."""
    kind = "approval" if event.verb is Verb.APPROVE else "operator"
    refused = _VERBS[event.verb](work, event) if person(event.who) else "nobody is named"
    detail = {"reason": event.reason, "outcome": "refused" if refused else "done"}
    if event.evidence_hash:
        detail["evidence_hash"] = event.evidence_hash
    work.record(kind, event.verb.value, event.who, detail | ({"refused": refused} if refused else {}))
    if refused:
        work.ignore(refused)


def _pause(work: Work, _: Operator) -> str:
    work.set(paused=True)
    return ""


def _resume(work: Work, event: Operator) -> str:
    s = work.state
    if s.paused:
        work.set(paused=False, resumer=event.who)
        return ""
    if s.phase is Phase.PAUSED_STEP and isinstance(work.step_at(s.step), PauseStep):
        work.set(released=True, resumer=event.who)
        return ""
    return "the file asks for the pause" if s.spec is not None and s.spec.paused else "nothing is paused"


def _approve(work: Work, event: Operator) -> str:
    s = work.state
    step = work.step_at(s.step) if s.phase is Phase.AWAITING_APPROVAL else None
    if not isinstance(step, ApproveStep):
        return "nothing awaits approval"
    if refused := refusal(work, step, event.who, event.roles, event.evidence_hash):
        return refused
    given = Approval(
        who=event.who,
        roles=event.roles,
        wall_s=work.wall_s,
        rollout_id=s.rollout_id,
        step=s.step,
        evidence_hash=event.evidence_hash,
    )
    others = tuple(a for a in s.approvals if person(a.who) != person(event.who))
    work.set(approvals=(*others, given)[-APPROVALS_KEPT:])
    return ""


def _abort(work: Work, event: Operator) -> str:
    reason = f"aborted by {event.who}" + (f": {event.reason}" if event.reason else "")
    return "" if withdraw(work, reason, event.who) else "nothing is in progress"


def _rollback(work: Work, event: Operator) -> str:
    reason = f"rolled back by {event.who}" + (f": {event.reason}" if event.reason else "")
    return "" if withdraw(work, reason, event.who) else "there is nothing to roll back to"


def _promote(work: Work, event: Operator) -> str:
    s = work.state
    if s.phase not in STEPPING:
        return "no step is in progress"
    if work.blocked:
        return f"{work.blocked}: nothing is promoted"
    if s.store.writing or s.store.lost:
        return "the store has not confirmed the last change; ask again"
    promote = len(work.spec.steps) - 1
    if not isinstance(work.step_at(promote), PromoteStep):
        return "the rollout has no promote step"
    for index in range(s.step, promote):
        step = work.step_at(index)
        if isinstance(step, ApproveStep) and not (
            index == s.step and len(valid_approvals(work, step)) >= step.count
        ):
            return f"step {index} asks for approval first"
    work.move(Phase.PROMOTING, f"promoted by {event.who} before the gates have passed", event.who)
    prepare(work, promote)
    work.set(forced=True)
    return ""


def _retry(work: Work, event: Operator) -> str:
    s = work.state
    if s.spec is None or s.phase not in TOMBSTONES | {Phase.PROMOTED, Phase.IDLE}:
        return "nothing was withdrawn"
    if work.blocked:
        return f"{work.blocked}: nothing starts"
    work.set(retrying=True, resumer=event.who, next_spec=None)
    begin(work, f"retried by {event.who}", event.who)
    return ""


_VERBS: Final[Mapping[Verb, Callable[[Work, Operator], str]]] = {
    Verb.PAUSE: _pause,
    Verb.RESUME: _resume,
    Verb.APPROVE: _approve,
    Verb.ABORT: _abort,
    Verb.PROMOTE: _promote,
    Verb.ROLLBACK: _rollback,
    Verb.RETRY: _retry,
}
