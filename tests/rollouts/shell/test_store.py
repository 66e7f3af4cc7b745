"""What the lines do when their state cannot be written, and when somebody else writes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.core.errors import Unavailable
from gateway.core.registry import RegistryError
from gateway.core.rollout import PPM
from gateway.core.rollout_control import Verb
from gateway.core.state import StateUnavailable
from gateway.rollouts import controller as controllers
from gateway.rollouts.documents import document_key
from tests.rollouts.shell.scene import rollout
from tests.state.simulated_disk import Fault

if TYPE_CHECKING:
    from tests.rollouts.shell.scene import Scene


async def test_nothing_advances_while_nothing_can_be_written(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        scene.disk.fail(1, Fault.DEAD)
        await life.tick(20, requests=60)
        assert life.weights() == {1: PPM - 100_000, 2: 100_000}
        scene.disk.heal()
        await life.until("promoted")


async def test_an_abort_takes_hold_though_nothing_can_be_written_and_is_recorded_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controllers, "RECORDED_S", 0.05)
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        scene.disk.fail(1, Fault.DEAD)
        shown = await life.operate(Verb.ABORT, reason="bad feeling")
        assert shown["phase"] == "aborting"
        assert life.weights() == {1: PPM}
        with pytest.raises(Unavailable, match="could not be recorded"):
            await life.operate(Verb.PAUSE)
        scene.disk.heal()
        await life.until("aborted", requests=0)
        await life.tick(4)
        aborts = [r.entry for r in life.records() if r.entry.what == "abort"]
        assert [entry.detail["reason"] for entry in aborts] == ["bad feeling"]
        assert aborts[0].who == "user:alice"


async def test_a_line_takes_over_again_after_somebody_else_wrote(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        document = await life.store.read(document_key("line"))
        assert document is not None
        await life.store.write(document.key, document.value, document.revision)
        await life.until("promoted")
        serials = [record.entry.detail["serial"] for record in life.records()]
        assert len(serials) == len(set(serials))


async def test_what_a_replica_withdrew_stays_withdrawn_after_a_takeover(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
        document = await life.store.read(document_key("line"))
        assert document is not None
        await life.store.write(document.key, document.value, document.revision)
        await life.operate(Verb.ABORT)
        await life.tick(4, requests=60)
        assert life.show()["phase"] == "aborted"
        assert life.weights() == {1: PPM}


async def test_a_pin_whose_write_was_made_and_not_confirmed_ends_no_rollout(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("promoted")
        pins = await life.store.read("pins/line")
        assert pins is not None
        await life.store.write(pins.key, pins.value, pins.revision)
        scene.files.put(rollout(canary=3))
        await life.until("promoted", requests=0, limit=1)
        await life.tick(10)
        await life.until("promoted")
        assert life.weights() == {3: PPM}


async def test_versions_come_back_though_their_registry_is_down_at_the_restart(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
    scene.source.fault = RegistryError("resolve", "connection refused", may_pass=True)
    async with scene.life() as life:
        assert life.weights()[1] == PPM
        await life.tick(10, requests=60)
        assert life.show()["phase"] in {"baking", "holding"}
        scene.source.fault = None
        await life.until("promoted")


async def test_what_was_being_found_out_goes_on_at_the_restart_before_any_request(scene: Scene) -> None:
    scene.source.gate = asyncio.Event()
    async with scene.life() as life:
        scene.files.put(rollout())
        await life.tick(2)
        assert life.show()["phase"] == "resolving"
    scene.source.gate = None
    async with scene.life() as life:
        assert life.show()["phase"] != "resolving"
        assert life.weights()


async def test_a_version_that_has_another_identity_after_a_restart_is_the_same_one(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("promoted")
    scene.source.shift = "-other-settings"
    async with scene.life() as life:
        await life.tick(4, requests=60)
        assert life.weights() == {2: PPM}
        route = life.table.routes["m"]
        assert route.stable.version.digest == "m2-other-settings"
        assert route.stable.version in {served.id for served in life.manager.served()}


async def test_a_state_of_another_release_stops_the_start_in_words(scene: Scene) -> None:
    async with scene.life() as life:
        value: dict[str, Any] = {"version": 99}
        await life.store.write(document_key("line"), value, 0)
    with pytest.raises(Exception, match="state of rollout 'line' cannot be read"):
        async with scene.life():
            pass


async def test_a_disk_that_cannot_be_written_stops_the_start(scene: Scene) -> None:
    scene.files.put(rollout())
    async with scene.life() as life:
        await life.until("baking", requests=0)
    scene.disk.fail(1, Fault.READ_ONLY)
    with pytest.raises(StateUnavailable):
        async with scene.life():
            pass
