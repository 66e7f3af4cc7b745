"""What follows from where a rollout stands: called after every event, and idempotent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.rollout import (
    CANARY,
    STABLE,
    ApproveStep,
    Hesitation,
    PauseStep,
    PromoteStep,
    ShadowStep,
    WeightStep,
)
from gateway.rollouts.decider_approvals import valid_approvals
from gateway.rollouts.decider_evidence import has_worked, is_flowing, lacks_data, look
from gateway.rollouts.decider_plans import commit_rest
from gateway.rollouts.decider_start import ask, start_next
from gateway.rollouts.decider_steps import acknowledged, advance, bake_anew, turn_to
from gateway.rollouts.decider_withdraw import withdraw
from gateway.rollouts.gates import Outcome
from gateway.rollouts.phases import RESTING, STEPPING, Phase

if TYPE_CHECKING:
    from gateway.rollouts.decider_work import Work


def on_tick(work: Work) -> None:
    """Let time count where it counts, and look again."""
    s = work.state
    passed_s = max(0.0, work.now_s - s.ticked_s) if s.ticked_s is not None else 0.0
    if s.phase in RESTING:
        return
    work.set(ticked_s=work.now_s, elapsed_s=s.elapsed_s + (0.0 if work.blocked else passed_s))
    if s.phase is Phase.BAKING and is_flowing(work):
        work.set(served_s=s.served_s + passed_s)
    if s.phase is Phase.RESOLVING and work.now_s >= s.resolve_at_s:
        ask(work)
    look(work)


def progress(work: Work) -> None:
    """Do what is due."""
    phase = work.state.phase
    verdict = work.state.verdict
    if verdict is not None and verdict.outcome is Outcome.HARM and withdraw(work, verdict.reason):
        return
    if phase in RESTING:
        start_next(work)
    elif phase in {Phase.LOADING, Phase.WARMING}:
        _load(work)
    elif phase in STEPPING:
        _bake(work)
    elif phase is Phase.PROMOTING:
        _promote(work)
    elif phase is Phase.ROLLBACK_WINDOW:
        _watch(work)


def _load(work: Work) -> None:
    s = work.state
    if s.phase is Phase.LOADING and s.acks:
        work.move(Phase.WARMING, "READY here, waiting for the other replicas")
    if acknowledged(s):
        if not _held_back(work):
            _cross(work, "READY on the replicas")
    elif s.elapsed_s > work.spec.prepare.load_timeout_s:
        reasons = sorted({why for view in s.replicas.values() for why in view.failed.values()})
        limit_s = work.spec.prepare.load_timeout_s
        withdraw(work, f"load_failed: not READY in {limit_s:g} s {'; '.join(reasons)}".rstrip())


def _bake(work: Work) -> None:
    if work.step_at(work.state.step) is None:
        return
    if lacks_data(work) and work.spec.policy.no_data is Hesitation.ABORT:
        withdraw(work, "no_data")
        return
    _time_out(work)
    if work.state.phase not in STEPPING or _restored(work):
        return
    held = _held(work)
    _show(work, held)
    reason = "" if held else _may_leave(work)
    if not reason:
        if work.state.prepared is not None:
            work.set(prepared=None, acks=frozenset())
    elif work.state.prepared is None:
        if not _held_back(work):
            turn_to(work, work.state.step + 1, reason)
    elif acknowledged(work.state) and not _held_back(work):
        _cross(work, reason)


def _promote(work: Work) -> None:
    held = _held(work)
    may = work.state.forced or _may_leave(work)
    if held or not may:
        work.set(prepared=None, acks=frozenset(), forced=False)
        back = _phase_of(work) if not held else Phase.HOLDING
        work.move(back, held or "the step does not pass any more")
    elif acknowledged(work.state) and not _held_back(work):
        _cross(work, "acknowledged by the replicas")


def _watch(work: Work) -> None:
    step = work.step_at(work.state.step)
    if isinstance(step, PromoteStep) and work.state.elapsed_s >= step.keep_stable_warm_s:
        commit_rest(work, work.state.incumbent)
        work.set(gates=None, verdict=None)
        work.move(Phase.PROMOTED, "the rollback window is over")
    start_next(work)


def _cross(work: Work, reason: str) -> None:
    """Commit the prepared directive and enter its step."""
    target = work.state.target_step
    if isinstance(work.step_at(target), PromoteStep) and work.state.phase is not Phase.PROMOTING:
        work.move(Phase.PROMOTING, reason)
    advance(work, target, reason)


def _held_back(work: Work) -> bool:
    """Tell whether nothing may advance now: blocked, or a write whose fate is open."""
    return bool(work.blocked or work.state.store.writing or work.state.store.lost)


def _time_out(work: Work) -> None:
    s, step = work.state, work.step_at(work.state.step)
    if isinstance(step, ShadowStep | WeightStep) and s.served_s >= step.max_bake_s and not s.inconclusive:
        if s.verdict is not None and s.verdict.outcome is Outcome.PASS:
            return
        work.set(inconclusive=True)
        if work.spec.policy.inconclusive is Hesitation.ABORT:
            withdraw(work, "inconclusive: max_bake is over without a pass")


def _restored(work: Work) -> bool:
    """Give the canary its weight again where a replica had lowered it; with evidence of its own."""
    s = work.state
    if s.committed is None or s.prepared is not None or work.blocked or s.serving < 0:
        return False
    lowered = [v for v in s.replicas.values() if v.live and v.lowered and v.epoch == s.committed.epoch]
    if not lowered or not all(s.committed.ready <= v.ready for v in lowered):
        return False
    bake_anew(work, s.base_id, "the canary is READY again where it was not", "controller")
    return True


def _held(work: Work) -> str:
    """Return what forbids to go on though nobody has blocked it; empty when nothing does."""
    s = work.state
    if s.verdict is not None and s.verdict.outcome is Outcome.HOLD:
        return s.verdict.reason
    live = {name: view for name, view in s.replicas.items() if view.live}
    if not live:
        return "no replica is live"
    for arm in (STABLE, CANARY):
        missing = sorted(name for name, view in live.items() if s.targets[arm] not in view.ready)
        if missing and _short_of(work, len(missing), len(live)):
            return f"{arm} is not READY on {', '.join(missing)}"
    return ""


def _short_of(work: Work, missing: int, live: int) -> bool:
    return (live - missing) * 1_000_000 < live * work.spec.prepare.ready_replicas_ppm


def _may_leave(work: Work) -> str:
    """Return why the present step may be left; empty when it may not."""
    s, step = work.state, work.step_at(work.state.step)
    if isinstance(step, ApproveStep):
        given = valid_approvals(work, step)
        return f"approved by {', '.join(sorted(given))}" if len(given) >= step.count else ""
    if isinstance(step, PauseStep):
        over = step.duration_s is not None and s.elapsed_s >= step.duration_s
        return "resumed" if s.released else "the pause is over" if over else ""
    passed = s.verdict is not None and s.verdict.outcome is Outcome.PASS and has_worked(s)
    if isinstance(step, ShadowStep | WeightStep) and passed and s.served_s >= step.min_bake_s:
        return s.verdict.reason if s.verdict is not None else ""
    return ""


def _phase_of(work: Work) -> Phase:
    step = work.step_at(work.state.step)
    if isinstance(step, ApproveStep):
        return Phase.AWAITING_APPROVAL
    return Phase.PAUSED_STEP if isinstance(step, PauseStep) else Phase.BAKING


def _show(work: Work, held: str) -> None:
    """Be HOLDING while a serving step is held, and only then."""
    s = work.state
    if not isinstance(work.step_at(s.step), ShadowStep | WeightStep):
        return
    reason = held or ("inconclusive: max_bake is over without a pass" if s.inconclusive else "")
    if reason and s.phase is Phase.BAKING:
        work.move(Phase.HOLDING, reason)
    elif reason and s.reason != reason:
        work.set(reason=reason)
    elif not reason and s.phase is Phase.HOLDING:
        work.move(Phase.BAKING, "nothing holds it any more")
