"""Plain splits: in force as a whole, and only when everything in them is READY."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.core.registry import RegistryError
from gateway.core.rollout import PPM
from gateway.rollouts.splitting import RETRY_S
from tests.rollouts.shell.scene import even_split, rollout

if TYPE_CHECKING:
    from tests.rollouts.shell.scene import Scene

EVEN = {1: PPM // 2, 2: PPM // 2}


async def test_the_first_plan_is_in_force_before_any_request_is_taken(scene: Scene) -> None:
    scene.files.put(even_split())
    async with scene.life() as life:
        assert life.weights() == EVEN
        assert life.loaded() == {1, 2}


async def test_a_change_takes_hold_when_all_of_it_is_ready(scene: Scene) -> None:
    scene.files.put(even_split())
    async with scene.life() as life:
        scene.stage.backend.gate = asyncio.Event()
        scene.files.put(even_split(weights={"1": PPM // 4, "3": PPM - PPM // 4}))
        await life.tick(4)
        assert life.weights() == EVEN
        scene.stage.backend.gate.set()
        await life.tick(2)
        assert life.weights() == {1: PPM // 4, 3: PPM - PPM // 4}
        assert life.loaded() == {1, 3}


async def test_a_version_that_fails_to_load_leaves_what_was(scene: Scene) -> None:
    scene.stage.backend.failures["m3"] = "not a model"
    scene.files.put(even_split())
    async with scene.life() as life:
        scene.files.put(even_split(weights={"1": PPM // 4, "3": PPM - PPM // 4}))
        await life.tick(2)
        assert life.weights() == EVEN
        assert "not a model" in life.controller.splits()[0]["error"]
        scene.files.put(even_split())
        await life.tick(2)
        assert life.controller.splits()[0]["error"] == ""
        assert life.loaded() == {1, 2}


async def test_a_registry_that_is_down_is_asked_again(scene: Scene) -> None:
    scene.source.fault = RegistryError("resolve", "connection refused", may_pass=True)
    scene.files.put(even_split())
    async with scene.life() as life:
        assert life.weights() == {}
        scene.source.fault = None
        await life.tick(int(RETRY_S / 0.5) + 1)
        assert life.weights() == EVEN


async def test_what_nobody_foresaw_does_not_end_the_attempts(scene: Scene) -> None:
    scene.source.fault = ZeroDivisionError("a source's own fault")
    scene.files.put(even_split(), rollout(name="line", model="n"))
    async with scene.life() as life:
        assert life.show()["phase"] == "resolving"
        scene.source.fault = None
        await life.tick(int(RETRY_S / 0.5) + 1)
        assert life.weights() == EVEN
        assert life.show()["phase"] != "resolving"


async def test_a_split_whose_file_is_gone_leaves_nothing(scene: Scene) -> None:
    scene.files.put(even_split())
    async with scene.life() as life:
        scene.files.put()
        await life.tick(2)
        assert life.weights() == {}
        assert life.loaded() == {1}
        assert life.controller.splits() == []
