"""Single versions that rollouts name, from a repository on disk and from a registry."""

from __future__ import annotations

import json
import weakref
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import ModelLoadError, NotFound
from gateway.core.registry import RegistryError
from gateway.core.rollout import Target
from gateway.registry.filesystem import FileSystemSource, SourceOptions
from tests.registry.fakes import Rig, published

if TYPE_CHECKING:
    from pathlib import Path


def repository(root: Path, *numbers: int) -> FileSystemSource:
    for number in numbers:
        file = root / "m" / str(number) / "model.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"model %d" % number)
    return FileSystemSource("repository", root, options=SourceOptions(settle_s=0))


async def test_a_version_that_the_policy_leaves_out_is_found(tmp_path: Path) -> None:
    """It is the version that the policy would offer: claims on it and on the source's own are one."""
    source = repository(tmp_path, 1, 2)
    (latest,) = await source.snapshot()
    older = await source.resolve_target("m", Target("1"))
    newest = await source.resolve_target("m", Target("2"))
    assert older.wanted.id[:2] == ("m", 1)
    assert (older.label, older.wanted.artifact.digest) == ("1", older.digest)
    assert newest.wanted.id == latest.id
    assert [v.id for v in await source.snapshot()] == [latest.id]


@pytest.mark.parametrize(
    ("text", "words"), [("3", "there are: 1, 2"), ("@champion", "no aliases"), ("x", "is no version")]
)
async def test_what_a_repository_does_not_have(tmp_path: Path, text: str, words: str) -> None:
    """The message says what there is."""
    with pytest.raises(NotFound, match=words):
        await repository(tmp_path, 1, 2).resolve_target("m", Target(text))


async def test_a_version_without_its_model_file_is_no_target(tmp_path: Path) -> None:
    """It could only fail to load."""
    source = repository(tmp_path, 1)
    (tmp_path / "m" / "1" / "model.onnx").rename(tmp_path / "m" / "1" / "other")
    with pytest.raises(ModelLoadError, match=r"'model\.onnx' is missing"):
        await source.resolve_target("m", Target("1"))


async def test_a_pin_means_the_same_files_or_none(tmp_path: Path) -> None:
    """Files that have changed under a number since are not what was resolved."""
    source = repository(tmp_path, 1)
    resolved = await source.resolve_target("m", Target("1"))
    pin = json.loads(json.dumps(resolved.pin))
    assert (await source.restore_target("m", pin)).wanted.id == resolved.wanted.id
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(b"something else")
    with pytest.raises(ModelLoadError, match="not those that it was resolved to"):
        await source.restore_target("m", pin)


async def test_an_alias_and_a_version_of_a_registry(tmp_path: Path) -> None:
    """Both lead to the version that the source would offer itself; the source offers what it did."""
    rig = published(Rig(tmp_path))
    (champion,) = await rig.start()
    by_alias = await rig.source.resolve_target("fraud", Target("@champion"))
    by_label = await rig.source.resolve_target("fraud", Target("2"))
    assert by_alias.wanted.id == champion.id
    assert (by_label.label, by_label.wanted.id.number) == ("2", 2)
    assert [v.id for v in rig.source.wanted()] == [champion.id]
    assert rig.source.signature(by_label.wanted.id) is None
    await rig.stop()


@pytest.mark.parametrize(("text", "words"), [("@nobody", "no alias 'nobody'"), ("7", "there are: 1, 2")])
async def test_what_a_registry_does_not_have(tmp_path: Path, text: str, words: str) -> None:
    """The message says what there is."""
    rig = published(Rig(tmp_path))
    await rig.start()
    with pytest.raises(NotFound, match=words):
        await rig.source.resolve_target("fraud", Target(text))
    await rig.stop()


async def test_a_registry_that_is_down_resolves_nothing_and_restores(tmp_path: Path) -> None:
    """A restart without the registry makes the version that was pinned; what is new has to wait."""
    rig = published(Rig(tmp_path))
    await rig.start()
    resolved = await rig.source.resolve_target("fraud", Target("2"))
    pin = json.loads(json.dumps(resolved.pin))
    rig.registry.down = True
    await rig.start()
    with pytest.raises(RegistryError):
        await rig.source.resolve_target("fraud", Target("@champion"))
    restored = await rig.source.restore_target("fraud", pin)
    assert restored.wanted.id == resolved.wanted.id
    assert restored.digest == resolved.digest
    await rig.stop()


async def test_targets_that_are_not_kept_are_forgotten(tmp_path: Path) -> None:
    """An offer outlives looks at the registry for as long as it is kept, with its provider."""
    rig = published(Rig(tmp_path))
    await rig.start()
    first = (await rig.source.resolve_target("fraud", Target("2"))).wanted
    rig.registry.publish("3")
    await rig.pass_s(30.0)
    again = (await rig.source.resolve_target("fraud", Target("2"))).wanted
    assert provider(again) is provider(first)
    known, version = weakref.ref(provider(first)), first.id
    del first, again
    assert known() is not None
    rig.source.keep_targets([])
    assert known() is None
    assert (await rig.source.resolve_target("fraud", Target("2"))).wanted.id == version
    await rig.stop()


def provider(version: object) -> object:
    return getattr(version, "provider", None)


async def test_a_pin_of_another_kind_of_source_is_refused(tmp_path: Path) -> None:
    """The model's entry may name a registry now, and a directory when the rollout began."""
    rig = published(Rig(tmp_path))
    await rig.start()
    with pytest.raises(ModelLoadError, match="another source"):
        await rig.source.restore_target("fraud", {"number": 1, "digest": "d"})
    await rig.stop()
