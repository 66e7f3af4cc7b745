"""Repository control in its three modes, over real directories and a fake backend."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import BackendUnavailable, ConfigError, ModelLoadError, NotFound, Unavailable
from gateway.core.types import VersionState
from gateway.models.repository import ControlOptions, RepositoryController, RepositoryMode
from gateway.registry.filesystem import FileSystemSource, SourceOptions
from gateway.testing import FakeLoadedModel, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.core.options import LoadOptions, ModelSpec
    from gateway.core.types import Artifact
    from gateway.models.manager import ModelManager
    from tests.models.stage import Stage


def on_fake_backend(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, backend="fake")


OPTIONS = SourceOptions(adjust=on_fake_backend, settle_s=0, poll_interval_s=0.2)


def put(path: Path, content: bytes = b"model") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def private(directory: Path) -> FileSystemSource:
    return FileSystemSource("private", directory, options=OPTIONS)


@asynccontextmanager
async def control(
    stage: Stage, root: Path, mode: RepositoryMode, *load_at_start: str
) -> AsyncIterator[tuple[ModelManager, RepositoryController]]:
    repository = FileSystemSource("repository", root, options=OPTIONS)
    async with (
        stage.manager() as manager,
        RepositoryController(
            manager,
            [repository],
            mode,
            private=private,
            options=ControlOptions(load_at_start=load_at_start),
        ) as controller,
    ):
        await manager.wait_settled()
        yield manager, controller


async def test_mode_none_serves_everything_and_refuses_control(stage: Stage, tmp_path: Path) -> None:
    """Everything is loaded at start; load and unload are refused in Triton's words."""
    put(tmp_path / "m" / "1" / "model.onnx")
    put(tmp_path / "n" / "1" / "model.onnx")
    async with control(stage, tmp_path, RepositoryMode.NONE) as (manager, controller):
        assert [v.id.model for v in manager.served()] == ["m", "n"]
        for refused in (controller.load("m"), controller.unload("m")):
            with pytest.raises(Unavailable, match="explicit model load / unload is not allowed"):
                await refused


async def test_explicit_mode_loads_what_is_asked(stage: Stage, tmp_path: Path) -> None:
    """Only the models named are loaded at start, the others are listed; load and unload do what they say."""
    for name in "abc":
        put(tmp_path / name / "1" / "model.onnx")
    async with control(stage, tmp_path, RepositoryMode.EXPLICIT, "a") as (manager, controller):
        assert [v.id.model for v in manager.served()] == ["a"]
        assert [(s.id.model, s.id.number) for s in manager.index()] == [("a", 1), ("b", 0), ("c", 0)]
        await controller.load("b")
        assert [v.id.model for v in manager.served()] == ["a", "b"]
        await controller.load("b")
        assert len(stage.backend.loaded) == 2
        await controller.unload("a")
        assert [v.id.model for v in manager.served()] == ["b"]
        assert stage.backend.loaded[0].closed
        with pytest.raises(NotFound, match="failed to load 'x', failed to poll from model repository"):
            await controller.load("x")
        with pytest.raises(NotFound, match="'x'"):
            await controller.unload("x")
        await controller.unload("c")


async def test_every_model_can_be_named_for_the_start(stage: Stage, tmp_path: Path) -> None:
    """`*` loads all; a name that no repository has is a configuration error."""
    put(tmp_path / "a" / "1" / "model.onnx")
    put(tmp_path / "b" / "1" / "model.onnx")
    async with control(stage, tmp_path, RepositoryMode.EXPLICIT, "*") as (manager, _):
        assert [v.id.model for v in manager.served()] == ["a", "b"]
    with pytest.raises(ConfigError, match="model 'x'"):
        async with control(stage, tmp_path, RepositoryMode.EXPLICIT, "x"):
            pass


async def test_failed_load_tells_the_client_and_leaves_the_old(stage: Stage, tmp_path: Path) -> None:
    """A reload that fails raises with the reason; the old version serves on; asking again tries again."""
    put(tmp_path / "m" / "1" / "model.onnx", b"good")
    broken = [False]

    def make(artifact: Artifact, options: LoadOptions) -> FakeLoadedModel:
        if broken[0]:
            raise ModelLoadError("the graph is broken")
        return FakeLoadedModel()

    stage.backend.make = make
    async with control(stage, tmp_path, RepositoryMode.EXPLICIT, "m") as (manager, controller):
        old = manager.get("m").id
        put(tmp_path / "m" / "1" / "model.onnx", b"a new one")
        broken[0] = True
        for _ in range(2):
            with pytest.raises(ModelLoadError, match="failed to load 'm', version 1: the graph is broken"):
                await controller.load("m")
            assert manager.get("m").id == old
        broken[0] = False
        await controller.load("m")
        assert manager.get("m").id != old


@pytest.mark.parametrize("stage_of_failure", ["loading", "warming"])
async def test_load_that_the_server_could_not_do_says_so(
    stage: Stage, tmp_path: Path, stage_of_failure: str
) -> None:
    """A device lost while a client's config is loaded is the cause of the error, without a traceback."""
    put(tmp_path / "m" / "1" / "model.onnx")
    lost = ModelLoadError("no session")
    lost.__cause__ = BackendUnavailable("the device is lost")

    def make(artifact: Artifact, options: LoadOptions) -> FakeLoadedModel:
        raise lost

    if stage_of_failure == "loading":
        stage.backend.make = make
    else:
        stage.warm_up_failures["m"] = lost
    async with control(stage, tmp_path, RepositoryMode.EXPLICIT) as (_, controller):
        with pytest.raises(ModelLoadError, match="failed to load 'm', version 1: no session") as caught:
            await controller.load("m", "{}")
    assert isinstance(caught.value.__cause__, BackendUnavailable)
    assert str(caught.value.__cause__) == "the device is lost"
    assert caught.value.__cause__.__traceback__ is None


async def test_load_that_one_version_is_to_blame_for_has_no_other_cause(stage: Stage, tmp_path: Path) -> None:
    """A device lost for one version does not excuse another that is broken."""
    for number in (1, 2):
        put(tmp_path / "m" / str(number) / "model.onnx")

    def make(artifact: Artifact, options: LoadOptions) -> FakeLoadedModel:
        if artifact.directory.name == "1":
            raise BackendUnavailable("the device is lost")
        raise ModelLoadError("the graph is broken")

    stage.backend.make = make
    async with control(stage, tmp_path, RepositoryMode.EXPLICIT) as (_, controller):
        with pytest.raises(ModelLoadError, match=r"is lost.*is broken") as caught:
            await controller.load("m", '{"version_policy": {"all": {}}}')
    assert caught.value.__cause__ is None


async def test_unload_waits_for_leases(stage: Stage, tmp_path: Path) -> None:
    """`unload` returns when the last request has let go."""
    put(tmp_path / "m" / "1" / "model.onnx")
    async with control(stage, tmp_path, RepositoryMode.EXPLICIT, "m") as (manager, controller):
        lease = manager.lease("m")
        unloading = asyncio.ensure_future(controller.unload("m"))
        await manager._until(lambda: manager.index()[0].state is VersionState.DRAINING)
        await settle()
        assert not unloading.done()
        lease.release()
        await unloading
        assert manager.index()[0].state is VersionState.UNLOADED


async def test_config_override_replaces_the_models_own(stage: Stage, tmp_path: Path) -> None:
    """A JSON config sent with the load is used in place of config.pbtxt, until the next plain load."""
    put(tmp_path / "m" / "1" / "model.onnx")
    put(tmp_path / "m" / "config.pbtxt", b"max_batch_size: 2")
    async with control(stage, tmp_path, RepositoryMode.EXPLICIT, "m") as (manager, controller):
        assert manager.get("m").spec.max_batch_size == 2
        await controller.load("m", '{"max_batch_size": 16}')
        assert manager.get("m").spec.max_batch_size == 16
        with pytest.raises(ModelLoadError, match="field 'sequence_batching'"):
            await controller.load("m", '{"sequence_batching": {}}')
        assert manager.get("m").spec.max_batch_size == 16
        await controller.load("m")
        assert manager.get("m").spec.max_batch_size == 2


async def test_files_override_comes_from_a_private_directory(stage: Stage, tmp_path: Path) -> None:
    """Files sent are served from a directory outside the repository, deleted when they are replaced."""
    root = tmp_path / "root"
    root.mkdir()
    seen: list[Artifact] = []

    def make(artifact: Artifact, options: LoadOptions) -> FakeLoadedModel:
        assert artifact.model_file.read_bytes() in {b"sent", b"sent again"}
        seen.append(artifact)
        return FakeLoadedModel()

    stage.backend.make = make
    async with control(stage, root, RepositoryMode.EXPLICIT) as (manager, controller):
        await controller.load("m", "{}", {"file:1/model.onnx": b"sent"})
        await controller.load("m", "{}", {"file:2/model.onnx": b"sent again"})
        assert manager.ready_versions("m") == (2,)
        assert not any(a.directory.is_relative_to(root.resolve()) for a in seen)
        assert [a.directory.exists() for a in seen] == [False, True]
        with pytest.raises(ModelLoadError, match="need the parameter 'config'"):
            await controller.load("m", files={"file:1/model.onnx": b"sent"})
    assert not seen[1].directory.exists()
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("m", "file:../../evil"),
        ("m", "file:/etc/cron.d/evil"),
        ("m", "file:1/../../../evil"),
        ("m", "file:1\\model.onnx"),
        ("m", "file:"),
        ("..", "file:1/model.onnx"),
        ("a/b", "file:1/model.onnx"),
        ("", "file:1/model.onnx"),
        ("m", "file:1/\0"),
    ],
)
async def test_files_override_cannot_leave_its_directory(
    stage: Stage, tmp_path: Path, model: str, path: str
) -> None:
    """Names that are not plain and relative are refused, and nothing is written."""
    async with control(stage, tmp_path, RepositoryMode.EXPLICIT) as (manager, controller):
        with pytest.raises(ModelLoadError, match="must be relative to the model and plain"):
            await controller.load(model, "{}", {path: b"evil"})
        assert manager.index() == ()


async def test_poll_mode_follows_the_repository(stage: Stage, tmp_path: Path) -> None:
    """New versions, new models and removals on disk are served and withdrawn without a call."""
    put(tmp_path / "m" / "1" / "model.onnx")
    async with (
        asyncio.timeout(60),
        control(stage, tmp_path, RepositoryMode.POLL) as (manager, controller),
    ):
        put(tmp_path / "m" / "2" / "model.onnx")
        put(tmp_path / "n" / "1" / "model.onnx")
        await manager._until(lambda: [v.id[:2] for v in manager.served()] == [("m", 2), ("n", 1)])
        with pytest.raises(Unavailable, match="is not allowed if polling is enabled"):
            await controller.load("m")
