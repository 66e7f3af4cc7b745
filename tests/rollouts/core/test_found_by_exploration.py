"""What explorations and random walks have found, as the shortest way to it."""

from dataclasses import replace

from gateway.core.rollout_control import Verb
from gateway.rollouts import events
from gateway.rollouts.decider import step
from gateway.rollouts.decider_steps import acknowledged
from gateway.rollouts.phases import WITHDRAWING, Phase
from gateway.rollouts.replica import canary_ppm
from gateway.rollouts.state import RolloutState
from tests.rollouts.invariants.waypoints import FILES, waypoints
from tests.rollouts.invariants.world import FROZEN_S, MONDAY_S, NAMES, World, spec

START = dict(waypoints(World(), FILES["A"]))


def decider_of(world: World, name: str = "a") -> RolloutState:
    decider = world.nodes[name].decider
    assert decider is not None
    return decider


def stored(world: World) -> None:
    while world.nodes["a"].writing is not None:
        world.write("a", "ok")


def share_at(world: World, name: str) -> int:
    now = world.nodes[name].replica
    assert now is not None
    return canary_ppm(now.plan, now.wanted)


def test_an_abort_lowers_what_replicas_follow_under_an_older_identity() -> None:
    """The store refused an edit, so that the rollout had another identity than what was in force."""
    world = START["edited, not stored"].clone()
    assert share_at(world, "a") > 0
    world.operate(Verb.ABORT)
    assert share_at(world, "a") == 0


def test_an_abort_outlives_a_process_that_ended_before_it_was_stored() -> None:
    """The audit chain had it; the store never did."""
    world = START["baking"].clone()
    world.operate(Verb.ABORT)
    world.write("a", "lost")
    world.crash("a", clean=True)
    world.elect("a")
    assert decider_of(world).phase in WITHDRAWING
    world.sync("a")
    world.ready("a")
    assert share_at(world, "a") == 0


def test_an_abort_under_another_identity_outlives_the_process_too() -> None:
    """What is in the store is an older identity of what was withdrawn; neither begins again by itself."""
    world = START["edited, not stored"].clone()
    world.operate(Verb.ABORT)
    withdrawn = decider_of(world).base_id
    world.crash("a", clean=True)
    world.elect("a")
    assert decider_of(world).base_id != withdrawn
    assert decider_of(world).phase in WITHDRAWING
    assert withdrawn in decider_of(world).tombstones


def test_a_retry_is_not_called_off_by_the_abort_before_it() -> None:
    """After a retry the chain still has the withdrawal; it is about an attempt that is over."""
    world = START["baking"].clone()
    world.operate(Verb.ABORT)
    stored(world)
    world.operate(Verb.RETRY)
    world.tell(events.Resolved, targets=START["baking"].nodes["a"].decider.targets)  # type: ignore[union-attr]  # elected
    stored(world)
    world.crash("a", clean=True)
    world.elect("a")
    assert decider_of(world).phase is Phase.LOADING


def test_a_withdrawal_waits_for_a_write_that_has_it() -> None:
    """A write that began before does not put it on record."""
    world = START["baking"].clone()
    world.operate(Verb.PAUSE)
    world.operate(Verb.ABORT)
    world.write("a", "ok")
    assert decider_of(world).phase is Phase.ABORTING
    world.write("a", "ok")
    assert decider_of(world).phase is Phase.ABORTED


def test_a_freeze_window_that_an_edit_brings_holds_at_once() -> None:
    """The edit that lifts the file's pause opens no gap before its own window is looked at."""
    world = dict(waypoints(World(), spec()))["prepared"]
    world.tell(events.SpecSeen, spec=spec(paused=True), file_hash="paused", author="author")
    stored(world)
    for name in NAMES:
        world.sync(name)
    stored(world)
    before = decider_of(world)
    assert acknowledged(before)
    world.wall_s = FROZEN_S
    world.tell(events.SpecSeen, spec=spec(freezes=True), file_hash="frozen", author="author")
    assert decider_of(world).step == before.step


def test_an_acknowledgement_of_another_life_does_not_count() -> None:
    """The replica that gave it has begun anew, and has nothing loaded."""
    decider = decider_of(START["loading"].clone())
    assert decider.prepared is not None
    late = events.ReplicaAck(
        replica="b", epoch=decider.prepared.epoch, boot_id="b0", now_s=0.0, wall_s=MONDAY_S
    )
    assert "another life" in step(decider, late)[0].ignored
    assert step(decider, replace(late, boot_id="b1"))[0].acks == {"b"}
