"""Every invariant is shown to be held: where its rule is broken on purpose, the checks say so."""

from collections.abc import Iterator

import pytest

from gateway.rollouts import decider, replica
from tests.rollouts.invariants.actions import Action, does, every_action
from tests.rollouts.invariants.checks import findings
from tests.rollouts.invariants.mutants import MUTANTS, Mutant, broken
from tests.rollouts.invariants.waypoints import waypoints
from tests.rollouts.invariants.world import Decide, Follow, World, spec

FILES = {
    "A": spec(freezes=True),
    "A again": spec(freezes=True, author="somebody else"),
    "B": spec(3),
}
START = dict(waypoints(World(), FILES["A"]))


def played(mutant: Mutant, decide: Decide, follow: Follow) -> list[str]:
    """Return what the first action of a mutant's script finds that finds anything.

    An action that there is nothing to do for, a write or a message that never came to be, is left out.
    """
    world = START[mutant.start].clone()
    world.decide, world.follow = decide, follow
    for wanted in mutant.script:
        act = dict(possible(world)).get(wanted)
        if act is None:
            continue
        before = world.clone()
        act(world)
        if found := findings(before, world):
            return found
    return []


def possible(world: World) -> Iterator[Action]:
    """Yield what may happen, whether or not anything is left to do for it."""
    for name in world.nodes:
        yield f"sync {name}", does(World.sync, name)
        yield f"stale {name}", does(World.stale, name)
    yield from every_action(FILES)(world)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_broken_core_is_found_out(mutant: Mutant) -> None:
    """A finding names one of the invariants that the break is about."""
    with broken(mutant) as (decide, follow):
        found = played(mutant, decide, follow)
    assert {finding.split(" ")[0] for finding in found} & set(mutant.breaks), found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_the_true_core_has_nothing_to_find(mutant: Mutant) -> None:
    """The same script finds nothing in the cores as they are."""
    assert played(mutant, decider.step, replica.step) == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_script_begins_with_something_to_do(mutant: Mutant) -> None:
    """What the true core plays is more than a list of names."""
    assert mutant.script[0] in dict(possible(START[mutant.start]))


def test_every_invariant_of_the_core_has_a_mutant() -> None:
    """None of the checks is there without a break that it was seen to report."""
    known = {name for mutant in MUTANTS for name in mutant.breaks}
    assert known >= {
        "I1",
        "I5",
        "I7",
        "I8",
        "I9",
        "I10",
        "I11",
        "I12",
        "I13",
        "I16",
        "I17",
        "I18",
        "W",
        "F",
        "T",
    }
