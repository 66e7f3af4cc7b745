"""Files that come, change, are refused and go, while lines are under way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.config.rollout_set import RolloutFiles
from gateway.core.rollout import PPM, Assignment, HashSpec, Target
from gateway.core.rollout_control import Verb
from tests.rollouts.shell.scene import even_split, rollout

if TYPE_CHECKING:
    from tests.rollouts.shell.scene import Scene


async def test_a_file_that_is_gone_takes_its_rollout_along(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        scene.files.put()
        await life.tick(2)
        assert life.weights() == {}
        assert life.controller.rollouts() == []
        assert life.loaded() == {1}


async def test_a_directory_that_cannot_be_read_is_no_deletion(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        scene.files.show(RolloutFiles(error="no such directory", complete=False))
        await life.until("promoted")


async def test_a_refused_file_leaves_the_last_good_one_and_is_mended_by_it(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        scene.files.put(rollout(), broken={"line": "line.yaml:3: no such gate"})
        await life.tick()
        assert life.show()["file"]["error"] == "line.yaml:3: no such gate"
        refused = [r for r in life.records() if r.entry.what == "refused"]
        await life.tick(4)
        assert len([r for r in life.records() if r.entry.what == "refused"]) == len(refused) == 1
        scene.files.put(rollout())
        await life.until("promoted")
        assert life.show()["file"]["error"] == ""


async def test_an_edit_that_is_refused_is_gone_with_the_edit(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        scene.files.put(rollout(assign=Assignment(HashSpec("pepper"))))
        await life.tick()
        assert life.show()["file"]["error"]
        scene.files.put(rollout())
        await life.tick()
        assert life.show()["file"]["error"] == ""


async def test_an_edit_that_was_refused_is_taken_up_after_the_rollout(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        other = rollout(canary=2, assign=Assignment(HashSpec("pepper")))
        scene.files.put(other)
        await life.tick()
        first = life.show()["rollout_id"]
        assert life.show()["file"]["error"]
        await life.operate(Verb.ABORT)
        await life.until("promoted")
        assert life.show()["rollout_id"] != first
        assert life.show()["file"]["error"] == ""


async def test_an_edit_of_a_later_step_keeps_the_weight_and_begins_its_evidence_anew(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        await life.tick(requests=60)
        before = life.show()["rollout_id"]
        scene.files.put(rollout(weights=(100_000, 300_000)))
        await life.tick()
        assert life.show()["rollout_id"] != before
        assert life.weights() == {1: PPM - 100_000, 2: 100_000}
        assert life.counts().get("requests", 0) == 0
        await life.until("promoted")
        assert {1: 700_000, 2: 300_000} in scene.followed["m"]


async def test_another_canary_begins_another_rollout(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        scene.files.put(rollout(canary=3))
        await life.until("promoted")
        assert life.weights() == {3: PPM}
        assert 2 not in life.loaded()


async def test_a_version_is_taken_from_the_newest_file_though_an_older_question_is_answered_first(
    scene: Scene,
) -> None:
    gate = scene.source.gate = asyncio.Event()
    async with scene.life() as life:
        scene.files.put(rollout(canary=2))
        await life.tick()
        scene.source.gate = asyncio.Event()
        scene.files.put(rollout(canary=3))
        await life.tick()
        gate.set()
        await life.tick()
        scene.source.gate.set()
        scene.source.gate = None
        await life.until("promoted")
        assert life.weights() == {3: PPM}
        assert not any(2 in weights for weights in scene.followed["m"])


async def test_a_file_that_waits_for_the_end_of_a_pause_can_be_taken_away(scene: Scene) -> None:
    scene.files.put(rollout(paused=True))
    async with scene.life() as life:
        await life.tick(2)
        assert [row["name"] for row in life.controller.rollouts()] == ["line"]
        scene.files.put()
        await life.tick(2)
        assert life.controller.rollouts() == []
        scene.files.put(rollout(canary=3))
        await life.until("promoted")


async def test_a_split_takes_over_from_a_rollout_of_its_model(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        scene.files.put(even_split())
        await life.tick(4)
        assert life.weights() == {1: PPM // 2, 2: PPM // 2}
        scene.files.put(rollout())
        await life.tick(2)
        await life.operate(Verb.RETRY)
        await life.until("promoted")


async def test_an_alias_is_found_out_once_for_a_rollout(scene: Scene) -> None:
    scene.files.put(replace(rollout(), canary=Target("@best")))
    async with scene.life() as life:
        await life.until("baking", requests=0)
    scene.source.aliases["best"] = 3
    async with scene.life() as life:
        await life.until("promoted")
        assert life.weights() == {2: PPM}
