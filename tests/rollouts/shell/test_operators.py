"""What operators ask for: done, refused, and on record before they hear of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import InvalidRequest, NotFound, PermissionDenied
from gateway.core.rollout import PPM, ApproveStep, PromoteStep
from gateway.core.rollout_control import Actor, Command, Verb
from gateway.rollouts.documents import document_key
from tests.rollouts.shell.scene import OPERATOR, rollout

if TYPE_CHECKING:
    from tests.rollouts.shell.scene import Scene


async def test_a_pause_stops_the_advance_and_a_resume_goes_on(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        assert (await life.operate(Verb.PAUSE))["paused"]
        await life.tick(20, requests=60)
        assert life.weights() == {1: PPM - 100_000, 2: 100_000}
        await life.operate(Verb.RESUME)
        await life.until("promoted")


async def test_who_asked_hears_of_it_when_it_is_stored(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        await life.operate(Verb.PAUSE, reason="lunch")
        document = await life.store.read(document_key("line"))
        assert document is not None
        assert document.value["state"]["paused"]
        await life.quiet()
        last = life.records()[-1].entry
        assert (last.kind, last.what, last.who) == ("operator", "pause", "user:alice")
        assert last.detail["reason"] == "lunch"


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (Verb.APPROVE, "nothing awaits approval"),
        (Verb.RESUME, "nothing is paused"),
        (Verb.RETRY, "nothing was withdrawn"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_on_record(scene: Scene, verb: Verb, words: str) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        with pytest.raises(InvalidRequest, match=words):
            await life.operate(verb)
        await life.tick()
        assert life.records()[-1].entry.detail["outcome"] == "refused"


async def test_an_abort_is_done_however_the_replica_takes_it(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        shown = await life.operate(Verb.ABORT)
        assert shown["phase"] in {"aborting", "aborted"}
        assert life.weights() == {1: PPM}
        await life.tick()
        await life.operate(Verb.RETRY)
        await life.until("promoted")


async def test_a_rollback_gives_everything_back(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("rollback_window")
        await life.operate(Verb.ROLLBACK)
        await life.tick()
        assert life.show()["phase"] == "rolled_back"
        assert life.weights() == {1: PPM}


async def test_nobody_approves_who_is_not_known(scene: Scene) -> None:
    spec = rollout()
    steps = (*spec.steps[:1], ApproveStep(1), PromoteStep(1.0))
    scene.files.put(rollout(steps=steps))
    async with scene.life() as life:
        await life.until("awaiting_approval")
        with pytest.raises(PermissionDenied, match="gateway rollout approve line"):
            await life.operate(Verb.APPROVE, Actor("10.0.0.1", is_known=False))
        await life.operate(Verb.APPROVE, OPERATOR)
        await life.until("promoted")


async def test_a_rollout_that_there_is_not_is_named_with_those_near_it(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        with pytest.raises(NotFound, match="did you mean 'line'"):
            await life.controller.operate(Command("lime", Verb.ABORT, OPERATOR))


async def test_watchers_see_every_rollout_that_changes(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        changes = life.controller.changes()
        change = asyncio.ensure_future(anext(changes))
        await life.tick()
        assert (await change)["name"] == "line"
