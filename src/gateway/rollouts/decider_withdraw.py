"""Taking the canary back. The weight is lowered first, and whatever the store says; nothing blocks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.rollout import STABLE
from gateway.rollouts.decider_plans import commit_rest
from gateway.rollouts.decider_work import CONTROLLER
from gateway.rollouts.effects import Audit, Retreat
from gateway.rollouts.identity import attempt_of
from gateway.rollouts.phases import IN_PROGRESS, PREPARING, Phase
from gateway.rollouts.state import NO_STEP, TOMBSTONES_KEPT, Tombstone

if TYPE_CHECKING:
    from gateway.core.state import AuditEntry
    from gateway.rollouts.decider_work import Work

_WITHDRAWALS: Final = frozenset({Phase.ABORTING.value, Phase.ROLLING_BACK.value})


def withdraw(work: Work, reason: str, who: str = CONTROLLER, recalled: AuditEntry | None = None) -> bool:
    """Abort what is in progress, or roll back what was promoted; False where there is nothing to withdraw.

    Args:
        work: under way.
        reason: in words.
        who: wants it.
        recalled: entry of the audit chain that has it already.
    """
    if work.state.phase in IN_PROGRESS:
        _abort(work, reason, who, recalled)
    elif work.state.phase is Phase.ROLLBACK_WINDOW:
        _roll_back(work, reason, who, recalled)
    else:
        return False
    return True


def _abort(work: Work, reason: str, who: str, recalled: AuditEntry | None) -> None:
    _retreat(work, reason)
    _bury(work, reason)
    _give_back(work)
    _move(work, Phase.ABORTING, reason, who, recalled)


def _roll_back(work: Work, reason: str, who: str, recalled: AuditEntry | None) -> None:
    _retreat(work, reason)
    _bury(work, reason)
    commit_rest(work, work.state.former)
    work.set(incumbent=None, former=None)
    _move(work, Phase.ROLLING_BACK, reason, who, recalled)


def recall(work: Work, audited: tuple[AuditEntry, ...], known: int) -> None:
    """Withdraw once more what the audit chain says was withdrawn and the store does not.

    Args:
        work: under way.
        audited: newest entries of the chain about this line.
        known: serial number of the last entry that the store has heard of.
    """
    withdrawals = [e for e in audited if e.kind == "transition" and e.what in _WITHDRAWALS]
    for entry in withdrawals:
        base, attempt = attempt_of(entry.rollout_id)
        if attempt >= work.state.attempts.get(base, 0) and base not in work.state.tombstones:
            _remember(work, base, entry.rollout_id, _reason(entry))
            work.set(attempts={**work.state.attempts, base: attempt})
    s = work.state
    missed = [e for e in withdrawals if serial_of(e) > known or (s.targets and e.rollout_id == s.rollout_id)]
    if missed:
        last = missed[-1]
        reason = f"withdrawn before the gateway ended: {_reason(last)}"
        withdraw(work, reason, last.who, last if serial_of(last) > known else None)


def serial_of(entry: AuditEntry) -> int:
    """Return an audit entry's serial number in its line; 0 when it has none."""
    serial = entry.detail.get("serial")
    return serial if isinstance(serial, int) else 0


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
        # Before the first step no directive is about this canary; one of a promotion before it may be known.
        epoch = 0 if work.state.phase in PREPARING else work.state.epoch
        work.emit(Retreat(work.state.name, work.state.rollout_id, reason, epoch))


def _give_back(work: Work) -> None:
    """Give everything to stable, for good: the source might prefer the canary."""
    if STABLE in work.state.targets:
        work.set(serving=work.state.serving, prepared=None)
        commit_rest(work, work.state.targets[STABLE])


def _bury(work: Work, reason: str) -> None:
    _remember(work, work.state.base_id, work.state.rollout_id, reason)


def _remember(work: Work, base: str, rollout_id: str, reason: str) -> None:
    tombstone = Tombstone(rollout_id=rollout_id, reason=reason, wall_s=work.wall_s)
    others = {other: t for other, t in work.state.tombstones.items() if other != base}
    work.set(tombstones=dict(list({**others, base: tombstone}.items())[-TOMBSTONES_KEPT:]))


def _move(work: Work, phase: Phase, reason: str, who: str, recalled: AuditEntry | None) -> None:
    """Move, and tell the audit chain at once: the next life hears of it even if the store did not."""
    if recalled is not None and recalled.what == phase.value:
        work.move(phase, reason, who, serial=serial_of(recalled))
        return
    work.move(phase, reason, who)
    store = work.state.store
    if not store.recalls:
        return
    for entry in work.state.outbox:
        if entry.detail["serial"] not in store.told:
            work.emit(Audit(entry))
    work.store(told=frozenset(entry.detail["serial"] for entry in work.state.outbox))


def _reason(entry: AuditEntry) -> str:
    return str(entry.detail.get("reason", ""))
