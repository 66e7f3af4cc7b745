"""Exhaustive exploration from every waypoint; `python -m tests.rollouts.invariants.explore` goes deeper."""

import sys

import pytest

from gateway.rollouts.phases import Phase
from tests.rollouts.invariants.actions import every_action
from tests.rollouts.invariants.explore import explore
from tests.rollouts.invariants.waypoints import FILES, waypoints
from tests.rollouts.invariants.world import World

START = [name for name, _ in waypoints(World(), FILES["A"])]
DEEPER = {
    "no file",
    "resolving",
    "loading",
    "first commit",
    "baking",
    "cut off",
    "edited, not stored",
    "buried",
    "over",
}
"""From these all sequences of three actions are tried, from the others of two: a minute for all."""


@pytest.mark.soak
@pytest.mark.parametrize("start", START)
def test_nothing_reachable_breaks_an_invariant(start: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Three gateways, two deciders: whatever happens, in whatever order, every rule is kept."""
    depth = 3 if start in DEEPER else 2
    one = explore(dict(waypoints(World(), FILES["A"]))[start], every_action(FILES), depth)
    with capsys.disabled():
        sys.stdout.write(f"\n{start}: {one.states} states, {one.transitions} transitions, depth {one.depth} ")
    assert one.broken is None


def test_every_phase_is_met() -> None:
    """None is left out of what is explored, at depth two already."""
    met = set[Phase]()
    for _, world in waypoints(World(), FILES["A"]):
        met |= explore(world, every_action(FILES), 2).phases
    # What is entered and left within one event is in no state between two.
    assert met >= set(Phase) - {Phase.SUPERSEDED}
