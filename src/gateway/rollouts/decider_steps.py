"""Going from step to step: what is asked first, what is set anew, what promotion relabels."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from gateway.core.rollout import CANARY, PPM, STABLE, ApproveStep, PauseStep, PromoteStep
from gateway.rollouts.decider_plans import commit, prepare, serving_index
from gateway.rollouts.decider_work import CONTROLLER
from gateway.rollouts.gates import begin, step_gates
from gateway.rollouts.identity import attempt_id
from gateway.rollouts.phases import Phase
from gateway.rollouts.state import TOMBSTONES_KEPT, Totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.rollouts.decider_work import Work
    from gateway.rollouts.state import RolloutState

_UNDONE: Final = (
    "phase",
    "reason",
    "since_wall_s",
    "entered_s",
    "step",
    "serving",
    "committed",
    "prepared",
    "target_step",
    "acks",
    "forced",
    "released",
    "inconclusive",
    "served_s",
    "elapsed_s",
    "grew_s",
    "totals",
    "gates",
    "verdict",
    "asked_s",
    "approvals",
    "approval_hash",
    "incumbent",
    "former",
)
"""What an advance changes. The epoch is not given out again."""


def acknowledged(state: RolloutState) -> bool:
    """Tell whether enough live replicas are ready for the prepared directive, and still so."""
    prepared, spec = state.prepared, state.spec
    if prepared is None or spec is None:
        return False
    live = [name for name, view in state.replicas.items() if view.live]
    ready = [n for n in live if n in state.acks and prepared.ready <= state.replicas[n].ready]
    needed = max(1, -(-len(live) * spec.prepare.ready_replicas_ppm // PPM))
    return len(ready) >= needed


def turn_to(work: Work, index: int, reason: str, who: str = CONTROLLER) -> None:
    """Go on to a step: at once where the replicas have nothing to do, else prepare it."""
    step = work.step_at(index)
    if isinstance(step, PromoteStep) and work.state.phase is not Phase.PROMOTING:
        work.move(Phase.PROMOTING, reason, who)
    if isinstance(step, PauseStep | ApproveStep):
        advance(work, index, reason)
    else:
        prepare(work, index)


def advance(work: Work, index: int, reason: str) -> None:
    """Enter a step whose preparation is acknowledged. It takes hold once the store has it, or is undone."""
    before = replace(work.state, store=replace(work.state.store, undo=None))
    serving = serving_index(work.spec, index)
    first = work.state.serving < 0 and work.state.prepared is not None
    if serving != work.state.serving or first:
        commit(work, serving)
    enter(work, index, reason)
    work.store(undo=before, undo_to=work.state.serial)


def enter(work: Work, index: int, reason: str) -> None:
    """Be in a step, with nothing known about it yet."""
    step = work.step_at(index)
    work.set(step=index, elapsed_s=0.0, released=False, inconclusive=False, forced=False, approvals=())
    if isinstance(step, ApproveStep):
        work.set(approval_hash=work.evidence_hash())
        work.move(Phase.AWAITING_APPROVAL, reason)
    elif isinstance(step, PauseStep):
        work.move(Phase.PAUSED_STEP, reason)
    elif isinstance(step, PromoteStep):
        work.set(incumbent=work.state.targets[CANARY], former=work.state.targets[STABLE])
        work.move(Phase.ROLLBACK_WINDOW, reason)
        forget_evidence(work, index)
    else:
        work.move(Phase.BAKING, reason)
        forget_evidence(work, index)


def forget_evidence(work: Work, serving: int) -> None:
    """Begin the evidence of a serving step."""
    has_gates = 0 <= serving < len(work.spec.steps)
    work.set(
        serving=serving,
        served_s=0.0,
        grew_s=None,
        totals=Totals(),
        gates=begin(step_gates(work.spec, serving), work.now_s) if has_gates else None,
        verdict=None,
        asked_s={},
    )


def begin_attempt(work: Work, base: str) -> None:
    """Take a rollout_id that was never used before."""
    attempts = {**work.state.attempts, base: work.state.attempts.get(base, 0) + 1}
    kept: Mapping[str, int] = dict(list(attempts.items())[-4 * TOMBSTONES_KEPT :])
    work.set(base_id=base, attempts=kept, rollout_id=attempt_id(base, attempts[base]))


def bake_anew(work: Work, base: str, reason: str, who: str) -> None:
    """Void the evidence of the serving step: the same traffic, at most, under another rollout_id."""
    serving = work.state.serving
    begin_attempt(work, base)
    commit(work, serving)
    work.store(undo=None)
    work.set(step=serving, elapsed_s=0.0, released=False, inconclusive=False, forced=False)
    work.set(approvals=(), approval_hash="")
    work.move(Phase.BAKING, reason, who)
    forget_evidence(work, serving)


def undo(work: Work) -> None:
    """Go back to before the advance that could not be stored; nobody but this decider has seen it."""
    store = work.state.store
    before = store.undo
    if before is None:
        return
    kept: dict[str, Any] = {f.name: getattr(before, f.name) for f in fields(before) if f.name in _UNDONE}
    undone = range(before.serial + 1, store.undo_to + 1)
    work.set(
        **kept,
        outbox=tuple(e for e in work.state.outbox if e.detail["serial"] not in undone),
        history=tuple(m for m in work.state.history if m.serial not in undone),
    )
    work.store(undo=None, with_write=())
