"""Versions that come late, go, or were never loaded: nothing that has a route is unloaded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.core.rollout import PPM
from gateway.core.rollout_control import Verb
from tests.models.stage import wanted
from tests.rollouts.shell.scene import MODEL, rollout

if TYPE_CHECKING:
    from tests.rollouts.shell.scene import Scene


async def test_what_serves_keeps_serving_until_the_stable_of_a_file_is_loaded(scene: Scene) -> None:
    scene.served[MODEL] = [wanted(MODEL, 4, "m4")]
    gate = scene.stage.backend.gate = asyncio.Event()
    gate.set()
    async with scene.life() as life:
        gate.clear()
        scene.files.put(rollout())
        await life.tick(4, requests=5)
        assert life.weights() == {}
        gate.set()
        await life.tick(2)
        assert life.weights()[1] >= PPM - 100_000
        await life.until("promoted")


async def test_at_the_start_a_plan_is_in_force_before_its_versions_are_loaded(scene: Scene) -> None:
    scene.served[MODEL] = [wanted(MODEL, 4, "m4")]
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        weights = life.weights()
    gate = scene.stage.backend.gate = asyncio.Event()
    scene.served.clear()
    async with scene.life() as life:
        assert life.weights() == {1: PPM}
        gate.set()
        await life.tick(2)
        assert life.weights() == weights


async def test_an_abort_that_is_tried_again_loads_the_canary_again_first(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        await life.operate(Verb.ABORT)
        await life.tick(2)
        assert life.loaded() == {1}
        gate = scene.stage.backend.gate = asyncio.Event()
        await life.operate(Verb.RETRY)
        await life.tick(6, requests=10)
        assert life.weights() == {1: PPM}
        gate.set()
        await life.until("promoted")


async def test_time_that_the_process_slept_through_is_no_bake_time(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        await life.tick(1, requests=60)
        before = life.show()["bake"]["served_s"]
        scene.clock.advance(600.0)
        life.ask(60)
        await life.quiet()
        await life.tick(requests=60)
        assert life.show()["bake"]["served_s"] <= before + 1.0
        assert life.show()["step"]["index"] == 0


async def test_a_stable_that_is_what_the_source_serves_stays_when_the_source_goes_on(scene: Scene) -> None:
    scene.files.put(rollout(stable=None))
    async with scene.life() as life:
        await life.until("baking", requests=0)
        life.manager.apply(f"source {MODEL}", [wanted(MODEL, 4, "m4")])
        await life.tick(2)
        assert life.weights() == {1: PPM - 100_000, 2: 100_000}
        assert life.loaded() == {1, 2, 4}


async def test_the_end_of_the_gateway_is_no_loss_of_the_canary(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
    assert life.show()["phase"] == "baking"
    async with scene.life() as life:
        assert life.show()["phase"] == "baking"
        await life.until("promoted")
