"""Beginning a rollout: from a file that was read to a canary that is being loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.rollout import CANARY, STABLE
from gateway.rollouts.decider_plans import commit_rest, pinned, prepare
from gateway.rollouts.decider_steps import begin_attempt
from gateway.rollouts.decider_withdraw import withdraw
from gateway.rollouts.decider_work import CONTROLLER
from gateway.rollouts.edits import begins_another
from gateway.rollouts.effects import Resolve
from gateway.rollouts.freeze import frozen_until
from gateway.rollouts.identity import base_id
from gateway.rollouts.phases import RESTING, Phase
from gateway.rollouts.state import NO_STEP, Totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.rollout import RolloutSpec, Target
    from gateway.core.types import VersionId
    from gateway.rollouts.decider_work import Work
    from gateway.rollouts.events import Resolved, ResolveFailed

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0


def start_next(work: Work, who: str = CONTROLLER) -> None:
    """Begin what the newest file asks for, if it asks for anything else and nothing forbids it now."""
    spec, s = work.state.next_spec, work.state
    if spec is None or s.phase not in RESTING | {Phase.ROLLBACK_WINDOW}:
        return
    promoted = s.phase in {Phase.PROMOTED, Phase.ROLLBACK_WINDOW}
    if not begins_another(s.spec, spec, promoted=promoted):
        if s.phase in RESTING:
            work.set(spec=spec, next_spec=None)
        return
    if blocked := _blocked(work, spec):
        work.set(reason=f"waits to begin: {blocked}")
        return
    if s.phase is Phase.ROLLBACK_WINDOW:
        commit_rest(work, s.incumbent)
    work.set(spec=spec, next_spec=None)
    begin(work, "file", who)


def begin(work: Work, reason: str, who: str) -> None:
    """Resolve the targets of the specification in force."""
    provisional = base_id(work.spec, {})
    work.set(
        targets={},
        labels={},
        base_id=provisional,
        rollout_id=provisional,
        step=0,
        serving=NO_STEP,
        totals=Totals(),
        gates=None,
        verdict=None,
        prepared=None,
        acks=frozenset(),
        approvals=(),
        approval_hash="",
        forced=False,
        resolve_tries=0,
        elapsed_s=0.0,
        served_s=0.0,
        ticked_s=None,
    )
    work.move(Phase.RESOLVING, reason, who)
    ask(work)


def ask(work: Work) -> None:
    """Ask which versions the targets are."""
    work.set(resolve_at_s=float("inf"))
    work.emit(Resolve(rollout=work.state.name, model=work.spec.model, targets=_asked(work.spec)))


def on_resolved(work: Work, event: Resolved) -> None:
    """Pin the versions, unless a rollout of exactly these was withdrawn, and load them."""
    if work.state.phase is not Phase.RESOLVING:
        work.ignore("resolved already")
        return
    missing = sorted(_asked(work.spec).keys() - event.targets.keys())
    if missing:
        withdraw(work, f"resolve_failed: no version for {', '.join(missing)}")
        return
    targets, note = _with_stable(work, event.targets)
    work.set(targets=targets, labels=dict(event.labels))
    if targets.get(CANARY) == targets[STABLE]:
        work.set(retrying=False)
        work.move(Phase.IDLE, "the canary is what serves already")
        return
    _pin(work, base_id(work.spec, targets), note)


def _pin(work: Work, base: str, note: str) -> None:
    s = work.state
    if (buried := s.tombstones.get(base)) is not None and not s.retrying:
        work.set(base_id=base, rollout_id=buried.rollout_id)
        work.move(Phase.ABORTED, f"withdrawn before ({buried.reason}): change the file, or retry")
        return
    work.set(tombstones={b: t for b, t in s.tombstones.items() if b != base}, retrying=False)
    begin_attempt(work, base)
    if pinned(work.state) != work.state.targets[STABLE]:
        # The source may prefer the canary as soon as it is loaded: stable is nailed down before.
        commit_rest(work, work.state.targets[STABLE])
    prepare(work, 0)
    work.move(Phase.LOADING, f"targets are resolved{note}")


def on_resolve_failed(work: Work, event: ResolveFailed) -> None:
    """Try again, later and later; not where another attempt cannot help."""
    if work.state.phase is not Phase.RESOLVING:
        work.ignore("resolved already")
        return
    if not event.may_pass:
        withdraw(work, f"resolve_failed: {event.reason}")
        return
    wait_s = min(FIRST_RETRY_S * 2 ** min(work.state.resolve_tries, 10), LONGEST_RETRY_S)
    work.set(
        resolve_at_s=work.now_s + wait_s,
        resolve_tries=work.state.resolve_tries + 1,
        reason=f"cannot resolve yet: {event.reason}",
    )


def _asked(spec: RolloutSpec) -> Mapping[str, Target | None]:
    targets: dict[str, Target | None] = {STABLE: spec.stable}
    if spec.canary is not None:
        targets[CANARY] = spec.canary
    return targets | {shadow.name: shadow.target for shadow in spec.shadows}


def _with_stable(work: Work, found: Mapping[str, VersionId]) -> tuple[dict[str, VersionId], str]:
    """Return the targets with what serves in the place of a stable that was taken over from, and a note."""
    s, targets = work.state, dict(found)
    if work.spec.stable is None:
        targets[STABLE] = pinned(s) or targets[STABLE]
    elif s.incumbent is not None and s.incumbent != targets[STABLE] == s.former:
        targets[STABLE] = s.incumbent
        return targets, f"; stable is version {s.incumbent.number}, promoted over the file's"
    return targets, ""


def _blocked(work: Work, spec: RolloutSpec) -> str:
    if work.state.paused:
        return "paused by an operator"
    if spec.paused:
        return "paused by the file"
    return "frozen" if frozen_until(spec.freeze, work.wall_s) is not None else ""
