"""Everything that can happen in a world next; the same whatever its gateways are called."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from gateway.core.rollout import RolloutSpec
from gateway.core.rollout_control import Verb
from gateway.rollouts import events
from gateway.rollouts.phases import STEPPING, TOMBSTONES, Phase
from gateway.rollouts.state import RolloutState
from tests.rollouts.invariants.world import LATER_S, NAMES, V1, V2, V3, Node, World

Action: TypeAlias = tuple[str, Callable[[World], None]]

DECIDERS: Final = 2
"""Gateways that take themselves for the decider at the same time, at most."""


def every_action(specs: Mapping[str, RolloutSpec]) -> Callable[[World], Iterator[Action]]:
    """Return the actions that are possible in a world."""

    def actions(world: World) -> Iterator[Action]:
        yield from _faults(world)
        yield from _routine(world)
        yield from _people(world, specs)

    return actions


def _faults(world: World) -> Iterator[Action]:
    leading = {node.name for node, _ in _leaders(world)}
    for name in NAMES:
        node = world.nodes[name]
        if node.up and name not in leading and len(leading) < DECIDERS:
            yield f"elect {name}", does(World.elect, name)
        if node.writing is not None:
            for outcome in ("ok", "lost", "unknown"):
                yield f"write {name} {outcome}", does(World.write, name, outcome)
    for name in NAMES:
        node = world.nodes[name]
        assert node.replica is not None
        if node.up and sum(n.up for n in world.nodes.values()) == len(NAMES):
            yield f"partition {name}", does(World.partition, name)
        elif not node.up:
            yield f"heal {name}", does(World.heal, name)
        if node.boot < 2:
            yield f"crash {name}", does(World.crash, name)
            yield f"restart {name}", does(World.crash, name, clean=True)
        if V2 in node.replica.ready:
            yield f"lose {name}", does(World.lose, name, V2)


def _routine(world: World) -> Iterator[Action]:
    for name in NAMES:
        node = world.nodes[name]
        assert node.replica is not None
        stored = world.stored
        newest = max((d.epoch for d in (stored.committed, stored.prepared) if d), default=0) if stored else 0
        if node.up and stored is not None and stored.committed is not None and newest >= node.replica.seen:
            yield f"sync {name}", does(World.sync, name)
        if frozenset().union(*node.replica.claimed.values()) - node.replica.ready:
            yield f"ready {name}", does(World.ready, name)
        plan = node.replica.plan
        if plan is not None and plan.rollout_id:
            yield f"traffic {name}", does(World.traffic, name)
            yield f"harm {name}", does(World.traffic, name, crashes=1)
    leaders = [leader for _, leader in _leaders(world)]
    if any(leader.phase is Phase.RESOLVING for leader in leaders):
        yield "resolved", resolve
        yield "registry down", does(World.tell, events.ResolveFailed, reason="down", may_pass=True)
    if leaders:
        yield "tick", does(World.tell, events.Tick)
        if world.now_s == 0.0:
            yield "later", later


def resolve(world: World) -> None:
    """Answer every decider that asks; the file's text says which canary."""
    for node in world.nodes.values():
        d = node.decider
        if d is None or not d.store.leading or not node.up or d.phase is not Phase.RESOLVING:
            continue
        assert d.spec is not None
        assert d.spec.canary is not None
        canary = {"2": V2, "3": V3}[d.spec.canary.text]
        world.tell(events.Resolved, targets={"stable": V1, "canary": canary})
        return


def later(world: World) -> None:
    """Let longer than any time limit go by."""
    world.tell(events.Tick)
    world.now_s += LATER_S
    world.tell(events.Tick)


def _people(world: World, specs: Mapping[str, RolloutSpec]) -> Iterator[Action]:
    leaders = [leader for _, leader in _leaders(world)]
    phases = {leader.phase for leader in leaders}
    for name, wanted in specs.items():
        if any(leader.file.seen_hash != name for leader in leaders):
            yield (
                f"file {name}",
                does(World.tell, events.SpecSeen, spec=wanted, file_hash=name, author="author"),
            )
    if Phase.AWAITING_APPROVAL in phases:
        yield "approve", does(World.operate, Verb.APPROVE)
        yield "approve as author", does(World.operate, Verb.APPROVE, "user:author")
        yield "approve blindly", does(World.operate, Verb.APPROVE, on="other evidence")
    if any(leader.rollout_id for leader in leaders):
        yield "bad file", does(World.tell, events.SpecRefused, file_hash="bad", error="line 1")
        yield "file gone", does(World.tell, events.SpecGone)
        yield "alias moved", does(World.tell, events.Resolved, targets={"stable": V1, "canary": V3})
        yield "abort", does(World.operate, Verb.ABORT)
    if any(leader.rollout_id and not leader.paused for leader in leaders):
        yield "pause", does(World.operate, Verb.PAUSE)
    if any(leader.paused or leader.phase is Phase.PAUSED_STEP for leader in leaders):
        yield "resume", does(World.operate, Verb.RESUME)
    if phases & STEPPING:
        yield "promote", does(World.operate, Verb.PROMOTE)
    if Phase.ROLLBACK_WINDOW in phases:
        yield "rollback", does(World.operate, Verb.ROLLBACK)
    if phases & TOMBSTONES and world.ledger.retries < 1:
        yield "retry", does(World.operate, Verb.RETRY)


def does(act: Callable[..., None], *args: Any, **fields: Any) -> Callable[[World], None]:
    """Return an action: what the world is told to do."""
    return lambda world: act(world, *args, **fields)


def _leaders(world: World) -> list[tuple[Node, RolloutState]]:
    return [
        (node, node.decider)
        for node in world.nodes.values()
        if node.decider is not None and node.decider.store.leading
    ]
