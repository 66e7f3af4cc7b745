"""The source over a real directory of models and the real artifact cache: from an alias to files and back."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.core.clock import LoopClock
from gateway.core.registry import RegistryError
from gateway.core.types import Artifact
from gateway.models.desired import DesiredVersion
from gateway.registry.cache import ArtifactCache, CacheOptions
from gateway.registry.directory_registry import DirectoryOptions, DirectoryRegistry
from gateway.registry.following import ResolutionStatus, SourcedModel
from gateway.registry.reference import parse_reference
from gateway.registry.resolutions import ResolutionStore
from gateway.registry.source import RegistrySource, SourceParts


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@asynccontextmanager
async def gateway(root: Path, source: str, **fields: str) -> AsyncGenerator[RegistrySource, None]:
    """A source as a process has it; entered again with the same root it is the next process."""
    registry = DirectoryRegistry("models", root / "models", DirectoryOptions(settle_s=0))
    cache = ArtifactCache(root / "cache", CacheOptions(free_disk_reserve_bytes=0, durable=False))
    model = SourcedModel(name="public", reference=parse_reference(source, root), **fields)  # type: ignore[arg-type]  # only texts
    parts = SourceParts(registry, cache, ResolutionStore(root / "cache-resolutions"), LoopClock())
    try:
        yield RegistrySource("registry models", [model], parts)
    finally:
        await cache.aclose()
        await registry.aclose()


@asynccontextmanager
async def files(wanted: DesiredVersion) -> AsyncGenerator[Artifact, None]:
    """The files of one version, as the loader gets them."""
    assert wanted.provider is not None
    async with wanted.provider.obtain(lambda _progress: None) as artifact:
        yield artifact


async def test_from_alias_to_files(tmp_path: Path) -> None:
    """The alias's version, its settings from beside the versions, and its files; then without it all."""
    models = tmp_path / "models"
    put(models / "fraud" / "1.4.0" / "net.onnx", b"old")
    put(models / "fraud" / "1.5.0" / "net.onnx", b"new")
    put(models / "fraud" / "1.5.0" / "weights" / "part.bin", b"weights")
    put(models / "fraud" / "aliases" / "champion", b"1.5\n")
    put(models / "fraud" / "config.pbtxt", b'default_model_filename: "net.onnx" max_batch_size: 8')
    async with gateway(tmp_path, "models/fraud@champion") as source:
        (wanted,) = await source.snapshot()
        assert source.problems() == {}
        assert wanted.id[:2] == ("public", 1_000_005_000_000)
        assert wanted.spec.max_batch_size == 8
        async with files(wanted) as artifact:
            assert artifact.model_file == artifact.directory / "net.onnx"
            assert artifact.model_file.read_bytes() == b"new"
            assert (artifact.directory / "weights" / "part.bin").read_bytes() == b"weights"
            assert source.keep_digests() == {artifact.digest}
    models.rename(tmp_path / "away")
    async with gateway(tmp_path, "models/fraud@champion") as source:
        (again,) = await source.snapshot()
        assert again.id == wanted.id
        assert source.resolutions()[0].status in {ResolutionStatus.STALE, ResolutionStatus.MISSING}
        async with files(again) as artifact:
            assert artifact.model_file.read_bytes() == b"new"


async def test_a_pinned_digest(tmp_path: Path) -> None:
    """Other files than those pinned are refused with both digests."""
    put(tmp_path / "models" / "fraud" / "1" / "model.onnx", b"model")
    async with gateway(tmp_path, "models/fraud", digest="0" * 64) as source:
        (wanted,) = await source.snapshot()
        with pytest.raises(RegistryError, match="0" * 64) as caught:
            async with files(wanted):
                pass
        assert (caught.value.step, caught.value.may_pass) == ("verify", False)


async def test_a_version_with_a_config_of_its_own(tmp_path: Path) -> None:
    """A config.pbtxt inside a version is refused before anything of it is published."""
    put(tmp_path / "models" / "fraud" / "1" / "model.onnx", b"model")
    put(tmp_path / "models" / "fraud" / "1" / "config.pbtxt", b"max_batch_size: 8")
    async with gateway(tmp_path, "models/fraud@1") as source:
        (wanted,) = await source.snapshot()
        with pytest.raises(RegistryError, match="put it beside the versions"):
            async with files(wanted):
                pass
    assert list((tmp_path / "cache" / "artifacts").iterdir()) == []
