"""Writing the state down: what waits for it, and what follows when it fails."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.rollouts.decider_evidence import look
from gateway.rollouts.decider_steps import undo
from gateway.rollouts.decider_withdraw import end, recall, serial_of
from gateway.rollouts.effects import Audit, Persist, Publish
from gateway.rollouts.phases import WITHDRAWING, Phase
from gateway.rollouts.state import Store

if TYPE_CHECKING:
    from gateway.rollouts.decider_work import Work
    from gateway.rollouts.effects import Effect
    from gateway.rollouts.events import Restarted, StoreConflict, StoreLost, StoreWritten

WRITE_EVERY_S: Final = 5.0
"""What is not urgent, evidence and time served, is stored this often: a crash loses no more of it."""


def on_written(work: Work, event: StoreWritten) -> None:
    """Let go what waited for the write."""
    store = work.state.store
    if not store.writing or event.ticket != store.ticket:
        work.ignore("an answer about another write")
        return
    for effect in store.with_write:
        work.emit(effect)
    for entry in work.state.outbox[: store.audits]:
        if entry.detail["serial"] not in store.told:
            work.emit(Audit(entry))
    kept = frozenset(entry.detail["serial"] for entry in work.state.outbox[store.audits :])
    work.store(
        revision=event.revision, writing=False, lost=False, with_write=(), undo=None, told=store.told & kept
    )
    work.set(outbox=work.state.outbox[store.audits :])
    _settle(work)


def on_conflict(work: Work, event: StoreConflict) -> None:
    """Be the decider no more: somebody else is, or has this very write been made and nobody said so."""
    store = work.state.store
    if not store.writing or event.ticket != store.ticket:
        work.ignore("an answer about another write")
        return
    work.state = replace(work.state, store=Store(revision=store.revision, ticket=store.ticket))


def on_lost(work: Work, event: StoreLost) -> None:
    """Go back to before an advance; anything else is tried again with the next tick."""
    store = work.state.store
    if not store.writing or event.ticket != store.ticket:
        work.ignore("an answer about another write")
        return
    work.store(writing=False, lost=True)
    undo(work)
    now = work.state.store
    work.store(with_write=(), with_next=now.with_write + now.with_next)
    work.urgent()


def on_restarted(work: Work, event: Restarted) -> None:
    """Take over: make every write of a former decider fail, then tell the replicas where things stand."""
    s, audited = work.state, event.audited or ()
    work.state = replace(
        s,
        entered_s=work.now_s,
        ticked_s=None,
        grew_s=None,
        asked_s={},
        resolve_at_s=work.now_s,
        gates=replace(s.gates, evidence_at_s=work.now_s) if s.gates is not None else None,
        verdict=None,
        serial=max(s.serial, *(serial_of(entry) for entry in audited), 0),
        store=Store(
            revision=event.revision,
            leading=True,
            ticket=s.store.ticket + 1,
            recalls=event.audited is not None,
        ),
    )
    work.record("boot", "clean" if event.clean else "unclean", "controller", {"boot_id": event.boot_id})
    look(work)
    for directive in (s.committed, s.prepared):
        if directive is not None:
            work.publish(directive)
    if event.revision:
        recall(work, audited, s.serial)


def flush(work: Work, *, is_tick: bool) -> None:
    """Begin a write when one is due."""
    store = work.state.store
    if store.writing or not store.dirty or (store.lost and not is_tick):
        return
    if not (store.urgent or (is_tick and work.now_s - store.written_s >= WRITE_EVERY_S)):
        return
    work.store(
        ticket=store.ticket + 1,
        writing=True,
        dirty=False,
        urgent=False,
        written_s=work.now_s,
        with_write=tuple(e for e in store.with_next if not _is_overtaken(work, e)),
        with_next=(),
        audits=len(work.state.outbox),
    )
    key = f"rollouts/{work.state.name}"
    work.emit(Persist(key, store.revision, work.state, work.state.store.ticket))


def _is_overtaken(work: Work, effect: Effect) -> bool:
    """Tell whether an effect publishes a directive that never came to be stored: another took its place."""
    in_force = (work.state.committed, work.state.prepared)
    return isinstance(effect, Publish) and effect.directive not in in_force


def _settle(work: Work) -> None:
    """Finish a withdrawal that is on record now; not one that was made while an earlier state was written."""
    phase = work.state.phase
    if phase not in WITHDRAWING or work.state.history[-1].serial in map(serial_of, work.state.outbox):
        return
    if work.state.gone:
        end(work, "withdrawn, and the file is gone")
        return
    after = Phase.ABORTED if phase is Phase.ABORTING else Phase.ROLLED_BACK
    work.move(after, work.state.reason)
