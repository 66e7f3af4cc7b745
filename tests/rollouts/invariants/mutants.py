"""Deliberate breaks of the cores: each is one substitution in a fresh copy of the modules."""

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gateway.rollouts
from tests.rollouts.invariants.world import Decide, Follow

SOURCE = Path(gateway.rollouts.__file__).parent
LOGIC = ("identity", "freeze", "edits", "replica", *sorted(p.stem for p in SOURCE.glob("decider*.py")))
"""Modules that are copied; values (states, events, effects) stay the real ones."""
_numbers = itertools.count()


@dataclass(frozen=True)
class Mutant:
    """A break.

    Attributes:
        name: what is broken.
        module: in which module.
        old: source text, once in it.
        new: in its place.
        breaks: the invariants one of which a check must report.
        start: waypoint that the script begins at.
        script: actions after which, at the latest, a check reports it.
    """

    name: str
    module: str
    old: str
    new: str
    breaks: tuple[str, ...]
    start: str
    script: tuple[str, ...]


MUTANTS = (
    Mutant(
        "advances without acknowledgements",
        "decider_steps",
        "return len(ready) >= needed",
        "return True",
        ("W",),
        "baking",
        (
            "traffic b",
            "write a ok",
        ),
    ),
    Mutant(
        "commits another weight than was prepared",
        "decider_plans",
        "ArmRoute(CANARY, state.targets[CANARY], step.weight_ppm)",
        "ArmRoute(CANARY, state.targets[CANARY], step.weight_ppm + state.epoch)",
        ("W", "I1"),
        "prepared",
        (
            "write a ok",
            "sync a",
            "sync b",
            "sync c",
        ),
    ),
    Mutant(
        "weights that do not sum to everything",
        "decider_plans",
        "ArmRoute(STABLE, stable, PPM - step.weight_ppm)",
        "ArmRoute(STABLE, stable, PPM)",
        ("I1",),
        "baking",
        (
            "traffic b",
            "write a ok",
        ),
    ),
    Mutant(
        "a replica follows a lower epoch",
        "replica",
        "if directive.epoch <= state.seen:",
        "if directive.epoch == state.seen:",
        ("I10",),
        "second weight",
        ("stale b",),
    ),
    Mutant(
        "a replica follows before it is READY",
        "replica",
        "if not wanted.ready <= state.ready:",
        "if False:",
        ("W",),
        "baking",
        (
            "crash c",
            "sync c",
        ),
    ),
    Mutant(
        "a replica raises while cut off",
        "replica",
        "if rises and not state.connected:",
        "if False:",
        ("I11",),
        "cut off",
        ("ready c",),
    ),
    Mutant(
        "a replica forgets that a canary did harm",
        "replica",
        "if wanted.rollout_id in state.harmed or state.fallen >= wanted.epoch:",
        "if state.fallen >= wanted.epoch:",
        ("I8",),
        "baking",
        ("harm a",),
    ),
    Mutant(
        "a replica keeps a canary that it has lost",
        "replica",
        "return replace(state, fallen=wanted.epoch, reason=event.reason)",
        "return state",
        ("W",),
        "baking",
        ("lose c",),
    ),
    Mutant(
        "a replica unloads what it routes to",
        "replica",
        'claims = _union(claims, {"rollout": frozenset(routed)})',
        "claims = {}",
        ("I5", "I16"),
        "baking",
        ("lose c",),
    ),
    Mutant(
        "stable is given back",
        "decider_plans",
        'keep={"rollout": loaded + tuple(shadow.version for shadow in shadows), **window},',
        'keep={"rollout": loaded[1:], **window},',
        ("I16",),
        "prepared",
        (
            "write a ok",
            "sync a",
            "sync b",
            "sync c",
            "write a ok",
        ),
    ),
    Mutant(
        "the old stable is given back in its window",
        "decider_plans",
        'window = {"rollback_window": (stable,)} if promoting else {}\n',
        "window = {}\n    loaded = (canary,) if promoting and canary else loaded\n",
        ("I16",),
        "promoting",
        (
            "write a ok",
            "sync a",
            "sync b",
            "sync c",
            "write a ok",
        ),
    ),
    Mutant(
        "passes without evidence",
        "decider_progress",
        "passed = s.verdict is not None and s.verdict.outcome is Outcome.PASS and has_worked(s)",
        "passed = s.verdict is not None",
        ("I7",),
        "baking",
        (
            "tick",
            "write a ok",
            "sync a",
            "sync b",
            "sync c",
        ),
    ),
    Mutant(
        "counts evidence of another step",
        "decider_evidence",
        "if (report.rollout_id, report.step) != (state.rollout_id, state.serving):",
        "if False:",
        ("I7",),
        "second commit",
        (
            "write a ok",
            "traffic b",
        ),
    ),
    Mutant(
        "harm withdraws nothing",
        "decider_progress",
        "if verdict is not None and verdict.outcome is Outcome.HARM and withdraw(work, verdict.reason):",
        "if False:",
        ("I8",),
        "baking",
        ("harm a",),
    ),
    Mutant(
        "a pause blocks an abort",
        "decider_operator",
        'return "" if withdraw(work, reason, event.who) else "nothing is in progress"',
        'return "" if not work.blocked and withdraw(work, reason, event.who) else "no"',
        ("I17",),
        "baking",
        (
            "pause",
            "abort",
        ),
    ),
    Mutant(
        "a pause does not block an advance",
        "decider_progress",
        "return bool(work.blocked or work.state.store.writing or work.state.store.lost)",
        "return bool(work.state.store.writing or work.state.store.lost)",
        ("F",),
        "baking",
        (
            "pause",
            "write a ok",
            "traffic b",
            "write a ok",
            "sync a",
            "sync b",
            "sync c",
        ),
    ),
    Mutant(
        "a freeze does not block an advance",
        "decider_work",
        'return "frozen" if self.state.frozen else ""',
        'return ""',
        ("F",),
        "frozen",
        (
            "traffic b",
            "write a ok",
            "sync a",
            "sync b",
            "sync c",
        ),
    ),
    Mutant(
        "a tombstone is left by itself",
        "edits",
        "return semantics(old) != semantics(new)",
        "return True",
        ("I9",),
        "baking",
        (
            "abort",
            "write a ok",
            "write a ok",
            "file A again",
        ),
    ),
    Mutant(
        "tombstones are not looked at",
        "decider_start",
        "if (buried := s.tombstones.get(base)) is not None and not s.retrying:",
        "if (buried := s.tombstones.get(base)) is not None and False:",
        ("I9",),
        "buried",
        (
            "file A",
            "write a ok",
            "resolved",
            "write a ok",
        ),
    ),
    Mutant(
        "targets are resolved again",
        "decider_start",
        'if work.state.phase is not Phase.RESOLVING:\n        work.ignore("resolved already")\n'
        "        return\n    missing",
        "if work.state.phase is not Phase.RESOLVING:\n"
        "        work.set(targets=dict(event.targets))\n        return\n    missing",
        ("I13",),
        "baking",
        (
            "alias moved",
            "pause",
            "write a ok",
        ),
    ),
    Mutant(
        "an epoch is given out twice",
        "decider_plans",
        "work.set(committed=directive, prepared=None, acks=frozenset(), epoch=directive.epoch)\n"
        "    work.publish(directive)\n\n\ndef commit_rest",
        "work.set(committed=directive, prepared=None, acks=frozenset())\n"
        "    work.publish(directive)\n\n\ndef commit_rest",
        ("I10",),
        "prepared",
        (
            "write a ok",
            "sync a",
            "sync b",
            "sync c",
            "write a ok",
        ),
    ),
    Mutant(
        "published before it is stored",
        "decider_work",
        "self._hold(Publish(directive))",
        "self.emit(Publish(directive))",
        ("I10",),
        "baking",
        ("traffic b",),
    ),
    Mutant(
        "a failed write counts as made",
        "decider_store",
        "work.store(writing=False, lost=True)\n    undo(work)\n    now = work.state.store\n",
        "work.store(writing=False, lost=True)\n    now = work.state.store\n"
        "    for e in now.with_write:\n        work.emit(e)\n",
        ("I10",),
        "prepared",
        ("write a lost",),
    ),
    Mutant(
        "the author approves",
        "decider_approvals",
        "if person(who) in {person(s.file.author), person(work.spec.author), person(s.resumer)}:",
        "if False:",
        ("I18",),
        "awaiting approval",
        (
            "approve as author",
            "write a ok",
            "sync a",
            "sync b",
            "sync c",
        ),
    ),
    Mutant(
        "approvals are not asked for",
        "decider_progress",
        "if len(given) >= step.count else",
        "if len(given) >= 0 else",
        ("I18",),
        "awaiting approval",
        (
            "tick",
            "write a ok",
            "sync a",
            "sync b",
            "sync c",
        ),
    ),
    Mutant(
        "an approval of other evidence counts",
        "decider_approvals",
        "if evidence_hash != s.approval_hash:",
        "if False:",
        ("I18",),
        "awaiting approval",
        (
            "approve blindly",
            "write a ok",
            "sync a",
            "sync b",
            "sync c",
        ),
    ),
    Mutant(
        "a transition is not audited",
        "decider_work",
        "self.set(serial=serial, outbox=(*s.outbox, entry))",
        'self.set(serial=serial, outbox=s.outbox if kind == "transition" else (*s.outbox, entry))',
        ("I18",),
        "prepared",
        ("write a ok", "sync a", "sync b", "sync c"),
    ),
    Mutant(
        "a file that cannot be used ends the rollout",
        "decider_files",
        "work.set(file=replace(work.state.file, seen_hash=event.file_hash, error=event.error))",
        "work.set(file=replace(work.state.file, error=event.error), paused=True)",
        ("I12",),
        "baking",
        ("bad file",),
    ),
    Mutant(
        "a shortcut past the table",
        "decider_withdraw",
        "_move(work, Phase.ABORTING, reason, who, recalled)",
        "work.set(phase=Phase.ABORTED)",
        ("T",),
        "baking",
        ("abort",),
    ),
    Mutant(
        "a retreat is about one identity alone",
        "replica",
        "meant = [d.rollout_id for d in known if d is not None and d.epoch <= event.epoch]",
        "meant: list[str] = []",
        ("I8",),
        "edited, not stored",
        ("abort",),
    ),
    Mutant(
        "a withdrawal is not told to the audit chain at once",
        "decider_withdraw",
        "            work.emit(Audit(entry))",
        "            pass",
        ("I9",),
        "baking",
        ("abort", "crash a", "elect a"),
    ),
    Mutant(
        "the next life does not listen to the audit chain",
        "decider_store",
        "recall(work, audited, s.serial)",
        "pass",
        ("I9",),
        "baking",
        ("abort", "crash a", "elect a"),
    ),
    Mutant(
        "what was withdrawn under another identity goes on",
        "decider_withdraw",
        "serial_of(e) > known or (s.targets and e.rollout_id == s.rollout_id)",
        "s.targets and e.rollout_id == s.rollout_id",
        ("I9",),
        "edited, not stored",
        ("abort", "crash a", "elect a"),
    ),
    Mutant(
        "a withdrawal is told to the audit chain twice",
        "decider_store",
        'if entry.detail["serial"] not in store.told:',
        "if True:",
        ("I18",),
        "baking",
        ("abort", "write a ok", "write a ok"),
    ),
    Mutant(
        "an audit entry takes a number that was taken",
        "decider_store",
        "serial=max(s.serial, *(serial_of(entry) for entry in audited), 0),",
        "serial=s.serial,",
        ("I18",),
        "baking",
        ("abort", "crash a", "elect a"),
    ),
    Mutant(
        "a cancelled preparation is committed",
        "decider_progress",
        "elif acknowledged(work.state) and not _held_back(work):\n        _cross(work, reason)",
        "elif acknowledged(work.state):\n        _cross(work, reason)",
        ("F",),
        "prepared",
        ("pause", "write a ok", "write a ok", "sync a", "sync b", "sync c"),
    ),
    Mutant(
        "a rollback does not lower",
        "decider_withdraw",
        "    _retreat(work, reason)\n    _bury(work, reason)\n    commit_rest(",
        "    work.emit(Retreat(work.state.name, '', reason))\n    _bury(work, reason)\n    commit_rest(",
        ("I8",),
        "promoted",
        ("rollback",),
    ),
    Mutant(
        "nothing is rolled back in the window",
        "decider_withdraw",
        "elif work.state.phase is Phase.ROLLBACK_WINDOW:",
        "elif False:",
        ("I8",),
        "promoted",
        ("harm a",),
    ),
    Mutant(
        "an operator's promotion skips the approval",
        "decider_operator",
        'return f"step {index} asks for approval first"',
        "pass",
        ("I18",),
        "baking",
        ("promote", "write a ok", "sync a", "sync b", "sync c"),
    ),
    Mutant(
        "a withdrawal is on record with a write that began before it",
        "decider_store",
        "or work.state.history[-1].serial in map(serial_of, work.state.outbox):",
        ":",
        ("I18",),
        "baking",
        ("pause", "abort", "write a ok"),
    ),
)


@contextmanager
def broken(mutant: Mutant) -> Iterator[tuple[Decide, Follow]]:
    """Give both cores with the break in them, from modules of their own."""
    package = f"mutated_{next(_numbers)}"
    made = []
    try:
        for name in LOGIC:
            spec = importlib.util.spec_from_loader(f"{package}.{name}", loader=None)
            assert spec is not None
            made.append(spec.name)
            sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        parent = importlib.util.spec_from_loader(package, loader=None, is_package=True)
        assert parent is not None
        made.append(package)
        sys.modules[package] = importlib.util.module_from_spec(parent)
        done: set[str] = set()
        for name in LOGIC:
            _load(package, name, mutant, done)
        yield sys.modules[f"{package}.decider"].step, sys.modules[f"{package}.replica"].step
    finally:
        for name in made:
            del sys.modules[name]


def _load(package: str, name: str, mutant: Mutant, done: set[str]) -> None:
    """Execute a module's changed source, its dependencies first."""
    if name in done:
        return
    done.add(name)
    source = (SOURCE / f"{name}.py").read_text()
    if name == mutant.module:
        assert source.count(mutant.old) == 1, f"{mutant.name}: found {source.count(mutant.old)} times"
        source = source.replace(mutant.old, mutant.new)
    runtime = source.partition("if TYPE_CHECKING:")[0]
    for other in LOGIC:
        if f"gateway.rollouts.{other} import" in runtime:
            _load(package, other, mutant, done)
        source = source.replace(f"from gateway.rollouts.{other} import", f"from {package}.{other} import")
    exec(compile(source, f"{package}/{name}.py", "exec"), sys.modules[f"{package}.{name}"].__dict__)
