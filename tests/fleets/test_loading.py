"""How the manager treats models that run elsewhere."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.core.errors import ModelLoadError
from gateway.core.remote import FleetUnavailable
from gateway.core.types import Artifact, Device, VersionState
from gateway.models.memory import MemoryBudget, MemoryOptions
from gateway.testing import FakeBackend, FakeLoadedModel, settle
from tests.models.stage import Stage, wanted

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.core.options import LoadOptions, ModelSpec

PAUSE_S = 61.0
"""Longer than any pause between two attempts."""


class SettledFake(FakeLoadedModel):
    """A model whose server takes four rows at once."""

    platform = "elsewhere"

    def settled(self, spec: ModelSpec) -> ModelSpec:
        return replace(spec, batching=replace(spec.batching, max_batch_rows=4))


async def test_a_fleet_that_is_down_is_tried_as_long_as_its_version_is_wanted() -> None:
    """More often than a load that fails for another passing reason; then it serves."""
    stage, failures = Stage(), 9

    def make(*_: object) -> FakeLoadedModel:
        nonlocal failures
        if failures:
            failures -= 1
            raise ModelLoadError("no endpoint") from FleetUnavailable("no endpoint")
        return FakeLoadedModel()

    stage.backend.make = make
    version = wanted("m", 1)
    async with stage.manager(jitter=lambda: 0.5, retry_pauses_s=(1.0, 2.0)) as manager:
        manager.apply("source", [version])
        for _ in range(9):
            status = await manager.outcome(version.id)
            assert status is not None
            assert status.state is VersionState.FAILED
            stage.clock.advance(PAUSE_S)
        await manager.wait_settled()
        assert manager.ready_versions("m") == (1,)


async def test_a_server_has_its_say_in_how_its_model_is_served() -> None:
    """Batches no larger than it takes, and its platform; also when the spec changes in passing."""
    stage, numbers = Stage(), []

    def make(_artifact: object, options: LoadOptions) -> FakeLoadedModel:
        numbers.append(options.number)
        return SettledFake(remote=True)

    stage.backend.make = make
    version = wanted("m", 7)
    async with stage.manager() as manager:
        manager.apply("source", [version])
        await manager.wait_settled()
        served = manager.get("m")
        assert (served.platform, served.spec.batching.max_batch_rows) == ("elsewhere", 4)
        assert numbers == [7]
        version.spec = replace(version.spec, required=False)
        manager.apply("source", [version])
        assert not served.spec.required
        assert served.spec.batching.max_batch_rows == 4


async def test_a_remote_model_takes_nothing_of_the_memory_here(tmp_path: Path) -> None:
    """Its files may be larger than the whole budget: they are loaded elsewhere."""
    stage, version = Stage(), wanted("m", 1)
    (tmp_path / "model.onnx").write_bytes(bytes(1000))
    version.artifact = Artifact(tmp_path, tmp_path / "model.onnx", "d")
    budget = MemoryBudget(
        MemoryOptions(limits={"cpu": 1}, remote=frozenset({stage.backend.name})), stage.clock
    )
    stage.backend.make = lambda *_: FakeLoadedModel(remote=True, device=Device("fleet", 0))
    async with stage.manager(budget=budget) as manager:
        manager.apply("source", [version])
        await manager.wait_settled()
        assert manager.ready_versions("m") == (1,)
        assert [(str(row.device), row.held_bytes) for row in budget.devices()] == [("cpu", 0)]
        manager.apply("source", [])
        await settle()
        assert manager.served() == ()


async def test_a_slow_load_elsewhere_keeps_no_load_here_waiting() -> None:
    """It has a place of its own among the loads."""
    stage, slow = Stage(), FakeBackend(name="triton", gate=asyncio.Event())
    elsewhere = wanted("far", 1)
    elsewhere.spec = replace(elsewhere.spec, backend="triton")
    backends = {"fake": stage.backend, "triton": slow}
    async with stage.manager(load_concurrency=1, backends=backends) as manager:
        manager.apply("source", [elsewhere, wanted("near", 1)])
        near = await manager.outcome(wanted("near", 1).id)
        assert near is not None
        assert near.state is VersionState.READY
        assert slow.gate is not None
        slow.gate.set()
        await manager.wait_settled()
        assert manager.is_model_ready("far")
