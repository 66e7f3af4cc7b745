"""What a rollout file that was read, refused or deleted means."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.rollouts.decider_start import begin, start_next
from gateway.rollouts.decider_steps import bake_anew
from gateway.rollouts.decider_withdraw import end, supersede, withdraw
from gateway.rollouts.edits import Edit, classify
from gateway.rollouts.identity import base_id
from gateway.rollouts.phases import IN_PROGRESS, WITHDRAWING, Phase

if TYPE_CHECKING:
    from gateway.rollouts.decider_work import Work
    from gateway.rollouts.events import SpecGone, SpecRefused, SpecSeen


def on_spec(work: Work, event: SpecSeen) -> None:
    """Take a valid file: begin with it, edit what is in progress, or refuse the edit."""
    who = f"file:{event.path}" if event.path else "file"
    s = work.state
    if event.file_hash == s.file.active_hash and not s.file.error and s.spec is not None and not s.gone:
        work.ignore("this file is in force")
        return
    seen = replace(s.file, path=event.path, seen_hash=event.file_hash)
    work.set(file=seen)
    if s.phase in IN_PROGRESS and not s.gone:
        _edit(work, event, who)
        return
    work.set(gone=False)
    if s.phase is Phase.ROLLBACK_WINDOW and s.spec is not None and s.spec.model != event.spec.model:
        _refuse(work, "the model cannot be changed before the rollback window is over")
        return
    _accept(work, event)
    work.set(next_spec=event.spec)
    start_next(work, who)


def on_refused(work: Work, event: SpecRefused) -> None:
    """Keep what is in force; say why."""
    work.set(file=replace(work.state.file, seen_hash=event.file_hash, error=event.error))
    work.record("config", "refused", "file", {"error": event.error, "file_hash": event.file_hash})


def on_gone(work: Work, event: SpecGone) -> None:
    """Abort what is in progress first; then the model's source decides again."""
    s = work.state
    if s.spec is None and s.next_spec is None:
        work.ignore("there is no file")
        return
    work.set(file=replace(s.file, seen_hash="", active_hash="", error=""), next_spec=None)
    if s.phase in IN_PROGRESS:
        work.set(gone=True)
        withdraw(work, "the file was deleted", event.who or "file")
    elif s.phase in WITHDRAWING:
        work.set(gone=True)
    else:
        end(work, "the file was deleted")


def _edit(work: Work, event: SpecSeen, who: str) -> None:
    s = work.state
    edit, reason = classify(work.spec, event.spec, s.serving, s.step)
    base = base_id(event.spec, s.targets)
    if edit is Edit.REFUSED:
        _refuse(work, reason)
        return
    if edit in {Edit.EASE, Edit.REGATE} and base in s.tombstones:
        _refuse(work, f"withdrawn before ({s.tombstones[base].reason}): change the file, or abort and retry")
        return
    _accept(work, event)
    if edit is Edit.RESTART:
        supersede(work, reason, who)
        work.set(spec=event.spec)
        begin(work, reason, who)
        return
    work.set(spec=event.spec)
    work.record("config", edit.value, who, {"reason": reason})
    if edit in {Edit.EASE, Edit.REGATE}:
        bake_anew(work, base, f"edited ({reason}): the step's evidence is void", who)


def _accept(work: Work, event: SpecSeen) -> None:
    work.set(
        file=replace(
            work.state.file,
            active_hash=event.file_hash,
            error="",
            author=event.author or event.spec.author,
        )
    )


def _refuse(work: Work, reason: str) -> None:
    work.set(file=replace(work.state.file, error=reason))
    work.record("config", "refused", "file", {"error": reason})
