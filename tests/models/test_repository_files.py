"""Repository control: files sent by clients under cancellation, required models, watches that fail."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.core.types import VersionState
from gateway.models.repository import ControlOptions, RepositoryController, RepositoryMode
from gateway.registry.filesystem import FileSystemSource
from gateway.testing import FakeLoadedModel, settle
from tests.models.stage import Stage, wanted
from tests.models.test_repository import OPTIONS, private, put

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from pathlib import Path

    from gateway.core.interfaces import WantedVersion
    from gateway.core.options import LoadOptions
    from gateway.core.types import Artifact
    from gateway.models.manager import ModelManager

NO_OPTIONS = ControlOptions()
FILES = {"file:1/model.onnx": b"the same bytes"}


@asynccontextmanager
async def explicit(
    stage: Stage, root: Path, options: ControlOptions = NO_OPTIONS
) -> AsyncIterator[tuple[ModelManager, RepositoryController]]:
    repository = FileSystemSource("repository", root, options=OPTIONS)
    async with (
        stage.manager(load_concurrency=1) as manager,
        RepositoryController(
            manager, [repository], RepositoryMode.EXPLICIT, private=private, options=options
        ) as controller,
    ):
        yield manager, controller


class Loads:
    """Makes models while their files are there, and keeps what they were loaded from."""

    def __init__(self) -> None:
        self.directories: list[Path] = []

    def __call__(self, artifact: Artifact, _options: LoadOptions) -> FakeLoadedModel:
        if artifact.digest != "d":
            artifact.model_file.read_bytes()
        self.directories.append(artifact.directory)
        return FakeLoadedModel()


async def ordered(manager: ModelManager, controller: RepositoryController, model: str) -> object:
    """Wait for a load that was begun to be claimed and return its order."""
    await manager._until(lambda: bool(manager._records.of(model)))
    return controller._orders[model]


@pytest.mark.parametrize("impatient", ["second", "both"])
async def test_cancelled_load_breaks_no_other_load_of_the_same_files(
    stage: Stage, tmp_path: Path, impatient: str
) -> None:
    """Files sent twice serve although the client of either load goes; only the files in use are kept."""
    loads = stage.backend.make = Loads()
    stage.backend.gate = asyncio.Event()
    async with explicit(stage, tmp_path) as (manager, controller):
        manager.apply("other", [wanted("slow", 1)])  # holds the only slot
        first = asyncio.ensure_future(controller.load("m", "{}", FILES))
        old = await ordered(manager, controller, "m")
        second = asyncio.ensure_future(controller.load("m", "{}", FILES))
        while controller._orders["m"] is old:
            await asyncio.to_thread(int)  # behind the threads that write and read the files sent
        await settle()
        leaving = [second] if impatient == "second" else [first, second]
        for load in leaving:
            load.cancel()
        await asyncio.wait(leaving)
        stage.backend.gate.set()
        await manager.wait_settled()
        if impatient == "second":
            await first
        assert manager.is_model_ready("m")
        used = loads.directories[-1]
        await asyncio.gather(*controller._tasks)
        assert not used.exists()  # the second load's files stand for the model now
        (kept,) = controller._sent._directories
        assert kept.exists()
    assert not kept.exists()


async def test_cancelled_unload_still_deletes_the_files_sent(stage: Stage, tmp_path: Path) -> None:
    """When a client no longer waits for its unload, the model's files are deleted all the same."""
    loads = stage.backend.make = Loads()
    async with explicit(stage, tmp_path) as (manager, controller):
        await controller.load("m", "{}", FILES)
        lease = manager.lease("m")
        unloading = asyncio.ensure_future(controller.unload("m"))
        await manager._until(lambda: manager.index()[0].state is VersionState.DRAINING)
        unloading.cancel()
        await asyncio.wait([unloading])
        lease.release()
        await manager.wait_settled()
        await asyncio.gather(*controller._tasks)
        assert not loads.directories[0].exists()


async def test_required_model_is_required_until_it_is_unloaded(stage: Stage, tmp_path: Path) -> None:
    """A model named for the start that cannot be offered keeps the server unready until it is unloaded."""
    put(tmp_path / "other" / "1" / "model.onnx")
    (tmp_path / "empty").mkdir()
    options = ControlOptions(load_at_start=["empty", "other"], required=["empty"])
    async with explicit(stage, tmp_path, options) as (manager, controller):
        await manager.wait_settled()
        assert not manager.is_ready()
        assert "requires it" in manager.index()[0].reason
        await controller.unload("empty")
        assert manager.is_ready()


class Flaky:
    """A repository whose watch fails at first."""

    name = "flaky"

    def __init__(self) -> None:
        self.watches = 0

    async def snapshot(self) -> Sequence[WantedVersion]:
        return []

    async def models(self) -> Sequence[str]:
        return ["m"]

    async def versions(self, model: str, config: str = "") -> Sequence[WantedVersion]:
        raise NotImplementedError

    async def watch(self) -> AsyncGenerator[Sequence[WantedVersion], None]:
        self.watches += 1
        if self.watches == 1:
            raise RuntimeError("Symlink loop from '/repository/m/1'")
        yield [wanted("m", self.watches)]


async def test_repository_is_followed_on_after_its_watch_failed(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """A watch that raises is logged and begun again after a pause."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async with (
        stage.manager() as manager,
        RepositoryController(
            manager,
            [Flaky()],
            RepositoryMode.POLL,
            private=private,
            options=ControlOptions(pause=pause),
        ),
    ):
        await manager._until(lambda: bool(manager.served()))
        assert manager.ready_versions("m") == (2,)
        assert len(pauses) == 1
        assert "Symlink loop" in caplog.text
