"""Clients that load and unload models which are otherwise loaded on first use."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import ModelLoadError, NotFound, NotReady, Unavailable
from gateway.core.types import VersionState
from gateway.models.lazy import LazyOptions
from gateway.models.memory import MemoryOptions
from gateway.models.repository import ControlOptions, RepositoryController, RepositoryMode
from gateway.registry.filesystem import FileSystemSource, SourceOptions
from gateway.testing import settle
from tests.models.lazy_stage import MB, LazyStage, sleeper

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from gateway.core.interfaces import WantedVersion
    from gateway.core.options import ModelSpec
    from gateway.models.desired import DesiredVersion
    from gateway.models.manager import ModelManager


def lazily_on_fake_backend(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, backend="fake", lazy=True)


OPTIONS = SourceOptions(adjust=lazily_on_fake_backend, settle_s=0, poll_interval_s=0.2)


def put(root: Path, *models: str) -> None:
    for model in models:
        home = root / model / "1"
        home.mkdir(parents=True)
        (home / "model.onnx").write_text(model)


@dataclass
class OneRegistry:
    """A Followed with the versions that a test puts there."""

    name: str = "registry"
    offered: list[DesiredVersion] = field(default_factory=list)
    looks: int = 0

    async def snapshot(self) -> Sequence[WantedVersion]:
        return self.offered

    async def watch(self) -> AsyncGenerator[Sequence[WantedVersion], None]:
        await asyncio.Event().wait()
        yield ()

    async def models(self) -> Sequence[str]:
        return sorted({version.id.model for version in self.offered})

    async def versions(self, model: str, config: str = "") -> Sequence[WantedVersion]:
        assert not config
        self.looks += 1
        return [version for version in self.offered if version.id.model == model]

    def wanted(self) -> Sequence[WantedVersion]:
        return self.offered

    def problems(self) -> Mapping[str, str]:
        return {}


@asynccontextmanager
async def control(
    stage: LazyStage, *repositories: FileSystemSource, registry: OneRegistry | None = None
) -> AsyncIterator[tuple[ModelManager, RepositoryController]]:
    async with (
        stage.running() as manager,
        RepositoryController(
            manager,
            repositories,
            RepositoryMode.EXPLICIT,
            private=lambda directory: FileSystemSource("private", directory, options=OPTIONS),
            options=ControlOptions(load_at_start=["*"], followed=[registry] if registry else []),
        ) as controller,
    ):
        await manager.wait_settled()
        yield manager, controller


def local(root: Path) -> FileSystemSource:
    return FileSystemSource("repository", root, options=OPTIONS)


def served(manager: ModelManager) -> list[str]:
    return [version.id.model for version in manager.served()]


async def test_a_model_that_a_client_loads_is_loaded_at_once_and_stays(tmp_path: Path) -> None:
    """The load answers when it serves; neither idleness nor another's need of memory takes it away."""
    put(tmp_path, "a", "b", "c")
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 20 * MB}), lazy_options=LazyOptions(max_idle_s=60))
    async with control(stage, local(tmp_path)) as (manager, controller):
        assert served(manager) == []
        await controller.load("a")
        assert served(manager) == ["a"]
        for name in "bc":
            stage.clock.advance(1)
            stage.ask(name)
            await manager.wait_settled()
            stage.answer()
        assert served(manager) == ["a", "c"]
        assert stage.told.evictions == [("b", "memory")]
        stage.clock.advance(200)
        await manager.wait_settled()
        assert served(manager) == ["a"]


async def test_a_model_that_sleeps_is_gone_when_a_client_unloads_it(tmp_path: Path) -> None:
    """As one that is loaded is; a load brings it back."""
    put(tmp_path, "a")
    stage = LazyStage()
    async with control(stage, local(tmp_path)) as (manager, controller):
        await controller.unload("a")
        with pytest.raises(NotFound):
            stage.ask("a")
        await controller.load("a")
        pending = stage.ask("a")
        stage.answer()
        assert pending.result().model_version == "1"
        await controller.unload("a")
        assert served(manager) == []
        with pytest.raises(NotFound):
            stage.ask("a")


async def test_a_client_hears_why_the_model_it_loads_cannot_be(tmp_path: Path) -> None:
    """Requests hear it, too; when a later load has mended it they are answered at once."""
    put(tmp_path, "a")
    stage = LazyStage()
    async with control(stage, local(tmp_path)) as (manager, controller):
        digest = manager.lazy_versions("a")[0].artifact.digest
        stage.backend.failures[digest] = "the file is no model"
        first = stage.ask("a")
        await manager.wait_settled()
        assert isinstance(first.error, NotReady)
        with pytest.raises(ModelLoadError, match="the file is no model"):
            await controller.load("a")
        stage.backend.failures.clear()
        await controller.load("a")
        pending = stage.ask("a")
        stage.answer()
        assert pending.result().model_version == "1"


async def test_a_failure_before_a_load_that_went_well_is_forgotten() -> None:
    """When the client's claim has gone the model sleeps, and the next request wakes it without a pause."""
    stage = LazyStage()
    stage.backend.failures["d"] = "broken"
    lazy = sleeper("m")
    async with stage.running(lazy) as manager:
        stage.ask("m")
        await manager.wait_settled()
        stage.backend.failures.clear()
        eager = dataclasses.replace(lazy, spec=dataclasses.replace(lazy.spec, lazy=False))
        manager.apply("operator", [eager], retry="m")
        await manager.wait_settled()
        manager.apply("operator", [])
        stage.lazy.make_room({stage.budget.devices()[0].device: 1}, "", {})
        await manager.wait_settled()
        assert served(manager) == []
        stage.ask("m")
        await manager.wait_settled()
        assert served(manager) == ["m"]
        stage.answer()


async def test_a_load_of_a_sleeping_model_of_a_registry_looks_at_the_registry_alone() -> None:
    """It is loaded when somebody asks for it; a client may not unload it."""
    registry = OneRegistry(offered=[sleeper("m")])
    stage = LazyStage()
    async with control(stage, registry=registry) as (manager, controller):
        await controller.load("m")
        assert registry.looks == 1
        assert served(manager) == []
        assert manager.index()[0].reason == "loaded on first use"
        with pytest.raises(Unavailable, match="registry 'registry'"):
            await controller.unload("m")
        pending = stage.ask("m")
        await manager.wait_settled()
        stage.answer()
        assert pending.result().model_version == "1"


async def test_a_load_of_a_model_of_a_registry_that_is_awake_waits_for_its_new_version() -> None:
    """What the registry has now is loaded, and the old version serves until then."""
    registry = OneRegistry(offered=[sleeper("m", 1)])
    stage = LazyStage()
    async with control(stage, registry=registry) as (manager, controller):
        stage.ask("m")
        await manager.wait_settled()
        stage.answer()
        registry.offered = [sleeper("m", 2, "e")]
        stage.backend.gate = asyncio.Event()
        loading = asyncio.ensure_future(controller.load("m"))
        await settle()
        assert not loading.done()
        assert manager.get("m").id.number == 1
        stage.backend.gate.set()
        await loading
        assert [v.id.number for v in manager.served()] == [2]


async def test_a_load_of_a_model_of_a_registry_tries_again_what_failed_and_tells() -> None:
    """A failure is tried again without the pause that requests must wait for."""
    registry = OneRegistry(offered=[sleeper("m")])
    stage = LazyStage()
    stage.backend.failures["d"] = "the file is no model"
    async with control(stage, registry=registry) as (manager, controller):
        stage.ask("m")
        await manager.wait_settled()
        with pytest.raises(ModelLoadError, match="the file is no model"):
            await controller.load("m")
        with pytest.raises(NotReady, match="could not be loaded"):
            stage.ask("m")
        stage.backend.failures.clear()
        await controller.load("m")
        assert manager.index()[0].state is VersionState.READY
        pending = stage.ask("m")
        stage.answer()
        assert pending.result().model_version == "1"
