"""Exhaustive breadth-first exploration of the world, to a stated depth, with symmetric states merged.

`python -m tests.rollouts.invariants.explore --depth N [--start WAYPOINT ...]` goes as deep as one can wait
for, from every waypoint or from those named, and prints what it saw.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.rollouts.effects import Directive
from gateway.rollouts.phases import Phase
from gateway.rollouts.state import RolloutState
from tests.rollouts.invariants.actions import Action, every_action
from tests.rollouts.invariants.checks import findings
from tests.rollouts.invariants.waypoints import FILES, waypoints
from tests.rollouts.invariants.world import NAMES, WITHDRAWN, Node, World


@dataclass
class Explored:
    """What an exploration found.

    Attributes:
        states: distinct ones.
        transitions: actions tried.
        depth: reached with every action tried.
        broken: first finding with the actions that lead to it; None: none.
        phases: that a decider was in.
    """

    states: int
    transitions: int
    depth: int
    broken: tuple[str, tuple[str, ...]] | None
    phases: frozenset[Phase]


def explore(start: World, actions: Callable[[World], Iterator[Action]], depth: int) -> Explored:
    """Try every action in every state, breadth first, to `depth` or the first finding."""
    _memo.clear()
    seen = {key_of(start)}
    layer: list[tuple[World, tuple[str, ...]]] = [(start, ())]
    tried, phases = 0, set[Phase]()
    for level in range(depth):
        following = []
        for world, path in layer:
            for name, act in actions(world):
                tried += 1
                after = world.clone()
                act(after)
                if found := findings(world, after):
                    return Explored(len(seen), tried, level, (found[0], (*path, name)), frozenset(phases))
                phases |= {n.decider.phase for n in after.nodes.values() if n.decider is not None}
                key = key_of(after)
                if key not in seen:
                    seen.add(key)
                    if level + 1 < depth:
                        following.append((after, (*path, name)))
        layer = following
    return Explored(len(seen), tried, depth, None, frozenset(phases))


# Keys: equal for worlds that differ in names of gateways, and in what is for show alone.


def key_of(world: World) -> int:
    """Return a hash of the world up to the names of its gateways."""
    local = {name: hash(_node(world, name, _NOBODY)) for name in NAMES}
    order = sorted(NAMES, key=lambda n: local[n])
    names = {name: at for at, name in enumerate(order)}
    ledger = world.ledger
    book = (
        frozenset((names[who], boot[1:], epoch) for who, boot, epoch in ledger.acks),
        frozenset(ledger.buried.items()),
        ledger.retries,
        ledger.evidence,
        ledger.approved,
    )
    nodes = tuple(_node(world, name, names) for name in order)
    return hash((nodes, _document(world.stored, names), book, world.now_s, world.wall_s))


_NOBODY = dict.fromkeys(NAMES, 0)


def _node(world: World, name: str, names: Mapping[str, int]) -> tuple[Any, ...]:
    node, at = world.nodes[name], None
    if node.decider is not None:
        store = node.decider.store
        flags = (store.leading, store.writing, store.lost, store.dirty, store.urgent, store.undo is None)
        at = (*flags, world.revision - store.revision)
    wish = node.writing
    writing = wish and (wish.revision == world.revision, _document(wish.state, names))
    stored = world.stored.serial if world.stored is not None else 0
    audit = tuple(
        (e.rollout_id, min(max(e.detail["serial"] - stored, 0), 3)) for e in node.audit if e.what in WITHDRAWN
    )
    own = (node.up, node.boot, node.counters, node.withdrew, audit)
    return (_replica(node), _document(node.decider, names), writing, at, own)


def _replica(node: Node) -> tuple[Any, ...]:
    r = node.replica
    assert r is not None
    plan = r.plan and (r.plan.epoch, tuple(r.plan.arms), tuple(s.version for s in r.plan.shadows))
    own = (r.ready, r.seen, r.acked, r.epoch, r.lowered, r.fallen, r.harmed, r.connected)
    return (own, plan, _directive(r.wanted), _directive(r.prepared))


def _document(state: RolloutState | None, names: Mapping[str, int]) -> Any:
    if state is None:
        return None
    replicas = frozenset(
        (names[n], v.boot_id[1:], v.live, v.ready, v.epoch, v.lowered) for n, v in state.replicas.items()
    )
    last = frozenset((names[n], e.boot_id[1:], e.rollout_id) for n, e in state.totals.last.items())
    return (_nameless(state), replicas, last, frozenset(names[n] for n in state.acks))


_memo: dict[int, tuple[Any, Any]] = {}


def _nameless(s: RolloutState) -> int:
    """Return a hash of what names no gateway; states are immutable and met again and again."""
    known = _memo.get(id(s))
    if known is None:
        identity = (
            s.phase,
            s.base_id,
            s.rollout_id,
            s.step,
            s.serving,
            s.epoch,
            s.target_step,
            s.resolve_tries,
        )
        flags = (
            s.paused,
            s.forced,
            s.released,
            s.gone,
            s.retrying,
            s.inconclusive,
            s.elapsed_s,
            s.resolve_at_s,
        )
        books = (frozenset(s.attempts.items()), frozenset(s.tombstones), frozenset(s.targets.items()))
        file = (
            s.file.seen_hash,
            s.file.active_hash,
            s.file.error,
            s.next_spec is None,
            s.incumbent,
            s.former,
        )
        arms = frozenset((n, a.requests, a.crashes) for n, a in s.totals.arms.items())
        pairs = frozenset((n, a.compared) for n, a in s.totals.shadows.items())
        people = (s.approvals, s.approval_hash, s.resumer)
        directives = (_directive(s.committed), _directive(s.prepared))
        whole = hash((identity, flags, books, file, arms, pairs, people, directives))
        known = _memo[id(s)] = (s, whole)
    return known[1]


def _directive(d: Directive | None) -> Any:
    """Return what tells directives of one exploration apart."""
    return d and (d.epoch, d.turn, d.rollout_id, d.plan and tuple(d.plan.arms), len(d.keep))


def main(arguments: Sequence[str] | None = None) -> int:
    """Explore, print a line per waypoint and the sums; 1 when anything was found."""
    parser = argparse.ArgumentParser(description="explore what can happen to a rollout")
    parser.add_argument("--depth", type=int, default=3, help="actions in a row (default: %(default)s)")
    parser.add_argument("--start", nargs="*", default=[], metavar="WAYPOINT", help="from these alone")
    chosen = parser.parse_args(arguments)
    states = transitions = 0
    began_s = time.monotonic()
    for name, world in waypoints(World(), FILES["A"]):
        if chosen.start and name not in chosen.start:
            continue
        one = explore(world, every_action(FILES), chosen.depth)
        states, transitions = states + one.states, transitions + one.transitions
        sys.stdout.write(f"{name}: {one.states} states, {one.transitions} transitions, depth {one.depth}\n")
        sys.stdout.flush()
        if one.broken is not None:
            sys.stdout.write(f"BROKEN {one.broken[0]}, by {' > '.join(one.broken[1])}\n")
            return 1
    seconds = time.monotonic() - began_s
    sys.stdout.write(f"{states} states, {transitions} transitions, nothing found, {seconds:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
