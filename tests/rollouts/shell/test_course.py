"""A rollout from its file to its end, in one life and over several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.core.rollout import PPM
from tests.models.stage import wanted
from tests.rollouts.shell.scene import MODEL, rollout

if TYPE_CHECKING:
    from tests.rollouts.shell.scene import Scene


async def test_a_rollout_goes_from_step_to_step_to_its_promotion(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("promoted")
        assert scene.followed[MODEL] == [
            {1: PPM},
            {1: PPM - 100_000, 2: 100_000},
            {1: PPM // 2, 2: PPM // 2},
            {2: PPM},
        ]
        assert life.show()["phase"] == "promoted"
        serials = [record.entry.detail["serial"] for record in life.records()]
        assert serials == list(range(1, len(serials) + 1))
        assert [n["what"] for n in scene.notices.all][-2:] == ["rollback_window", "promoted"]


async def test_harm_withdraws_within_two_looks(scene: Scene) -> None:
    scene.files.put(rollout(weights=(500_000,)))
    async with scene.life() as life:
        await life.until("baking", requests=0)
        life.crash_canary()
        await life.tick(2)
        assert life.show()["phase"] == "aborted"
        assert life.weights() == {1: PPM}
        assert life.loaded() == {1}


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("looks", [1, 4, 9, 14])
async def test_a_restart_resumes_where_it_was(scene: Scene, *, clean: bool, looks: int) -> None:
    scene.files.put(rollout())
    async with scene.life(clean=clean) as life:
        await life.tick(looks, requests=60)
        # Evidence and served time are stored now and then; a pause of the operator stores all there is.
        before = life.show()
        weights = life.weights()
    async with scene.life() as life:
        now = life.show()
        for same in ("rollout_id", "step", "weight_ppm", "targets", "phase"):
            assert now[same] == before[same], same
        assert now["epoch"] >= before["epoch"]
        assert life.weights() == weights
        await life.until("promoted")


async def test_a_canary_that_fails_to_load_is_never_routed_to(scene: Scene) -> None:
    scene.stage.backend.failures["m2"] = "not a model"
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("aborted", requests=10)
        assert "not a model" in life.show()["reason"]
        assert life.weights() == {1: PPM}


async def test_a_model_that_the_gateway_lacks_ends_its_line_alone(scene: Scene) -> None:
    scene.files.put(rollout(), rollout(name="other", model="nowhere"))
    async with scene.life() as life:
        await life.until("promoted")
        assert life.show("other")["phase"] == "aborted"
        assert "nowhere" in life.show("other")["reason"]


async def test_two_lines_go_on_side_by_side(scene: Scene) -> None:
    scene.served["n"] = [wanted("n", 1, "n1")]
    scene.files.put(rollout(), rollout(name="other", model="n", canary=3))
    async with scene.life() as life:
        for _ in range(40):
            life.ask(60, model="n")
            await life.tick(requests=60)
        assert life.weights() == {2: PPM}
        assert life.weights("n") == {3: PPM}


async def test_without_a_stable_what_serves_is_it(scene: Scene) -> None:
    scene.files.put(rollout(stable=None))
    async with scene.life() as life:
        assert life.show()["targets"]["stable"]["version"] == 1
        await life.until("promoted")
    scene.files.put(rollout(stable=None, canary=3))
    async with scene.life() as life:
        assert life.show()["targets"]["stable"]["version"] == 2
        await life.until("promoted")
        assert life.weights() == {3: PPM}


async def test_without_a_stable_it_waits_for_something_to_serve(scene: Scene) -> None:
    source, scene.served = scene.served, {}
    scene.files.put(rollout(stable=None))
    async with scene.life() as life:
        await life.tick(4)
        assert life.show()["phase"] == "resolving"
        life.manager.apply(f"source {MODEL}", source[MODEL])
        await life.until("promoted")


async def test_what_is_promoted_stands_by_itself(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("rollback_window")
    scene.stage.backend.failures["m1"] = "the old stable is broken by now"
    async with scene.life() as life:
        await life.tick(2, requests=10)
        assert life.weights() == {2: PPM}


async def test_a_clean_end_loses_no_evidence(scene: Scene) -> None:
    scene.files.put(rollout(weights=(100_000,)))
    async with scene.life() as life:
        await life.until("baking")
        await life.tick(3, requests=10)
        before = life.counts("stable")["requests"]
    async with scene.life() as life:
        assert before
        assert life.counts("stable")["requests"] == before


async def test_nothing_is_loaded_that_is_not_needed_any_more(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("promoted")
        assert life.loaded() == {1, 2}  # 1 by the source's own policy
        scene.files.put()
        await life.tick(2)
        assert life.weights() == {}
        assert life.loaded() == {1}
        assert MODEL in scene.source.names
