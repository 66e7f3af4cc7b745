"""The way of a good canary to promotion, and the worlds along it that explorations start from."""

from collections.abc import Iterator

from gateway.core.rollout import RolloutSpec
from gateway.core.rollout_control import Verb
from gateway.rollouts import events
from tests.rollouts.invariants.actions import later, resolve
from tests.rollouts.invariants.world import FROZEN_S, NAMES, PAUSE, SHADOW, World, spec

FILES = {"A": spec(freezes=True), "B": spec(3), "C": spec(weights=(5_000, 500_000))}
"""What the file may say: the rollout of the way, another canary, a lower first weight."""


def settle(world: World) -> None:
    """Let writes succeed, directives arrive and versions load until nothing is under way."""
    for _ in range(4):
        for name in NAMES:
            if world.nodes[name].writing is not None:
                world.write(name, "ok")
        for name in NAMES:
            world.sync(name)
            world.ready(name)


def waypoints(world: World, file: RolloutSpec) -> Iterator[tuple[str, World]]:
    """Yield the world at every point of the way; each is a copy, and nothing in it is left to be checked."""
    for name, at in _way(world, file):
        at.log, at.wrong = [], []
        yield name, at


def _way(world: World, file: RolloutSpec) -> Iterator[tuple[str, World]]:
    world.elect("a")
    settle(world)
    yield "no file", world.clone()
    yield "shadowed", _shadowed(world.clone())
    world.tell(events.SpecSeen, spec=file, file_hash="A", author="author")
    settle(world)
    yield "resolving", world.clone()
    resolve(world)
    world.write("a", "ok")
    for name in NAMES:
        world.sync(name)
    yield "loading", world.clone()
    for name in NAMES:
        world.ready(name)
    yield "first commit", world.clone()
    settle(world)
    yield "baking", world.clone()
    yield "cut off", _cut_off(world.clone())
    yield "two deciders", _two_deciders(world.clone())
    yield "edited, not stored", _edited(world.clone())
    yield "frozen", _frozen(world.clone())
    yield "buried", _buried(world.clone())
    world.traffic("b")
    yield "prepared", world.clone()
    world.write("a", "ok")
    for name in NAMES:
        world.sync(name)
    yield "second commit", world.clone()
    settle(world)
    yield "second weight", world.clone()
    world.traffic("b")
    settle(world)
    yield "awaiting approval", world.clone()
    world.operate(Verb.APPROVE)
    yield "promoting", world.clone()
    settle(world)
    yield "promoted", world.clone()
    later(world)
    settle(world)
    yield "over", world.clone()


def _cut_off(world: World) -> World:
    """A replica has heard of a greater weight, cannot follow yet, and is cut off."""
    world.crash("c")
    world.sync("c")
    world.partition("c")
    return world


def _frozen(world: World) -> World:
    """A freeze window has opened."""
    world.wall_s = FROZEN_S
    world.tell(events.Tick)
    return world


def _buried(world: World) -> World:
    """It was aborted, and its file has gone."""
    world.operate(Verb.ABORT)
    settle(world)
    world.tell(events.SpecGone, who="file")
    settle(world)
    return world


def _two_deciders(world: World) -> World:
    """Another gateway has taken over, and the first has not noticed."""
    world.elect("b")
    return world


def _edited(world: World) -> World:
    """An edit has given the rollout another identity, and the store refuses to take it."""
    world.tell(events.SpecSeen, spec=FILES["C"], file_hash="C", author="author")
    world.write("a", "lost")
    return world


def _shadowed(world: World) -> World:
    """The canary gets copies; a pause comes before its first weight."""
    file = spec(steps=(SHADOW, PAUSE, *spec().steps))
    world.tell(events.SpecSeen, spec=file, file_hash="D", author="author")
    settle(world)
    resolve(world)
    settle(world)
    return world
