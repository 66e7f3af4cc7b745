"""What happens to the files after they were published: nothing that was changed is handed out."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from gateway.core.registry import RegistryError
from gateway.registry.cache import ArtifactCache
from tests.registry.cache.shelf import (
    FILES,
    QUICK,
    Shelf,
    contents,
    digest_of,
    ignore,
    request,
    sha256,
    version,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[ArtifactCache]:
    made = ArtifactCache(tmp_path / "cache", QUICK)
    yield made
    await made.aclose()


async def obtained(cache: ArtifactCache, shelf: Shelf) -> Path:
    async with cache.obtain(request(shelf), ignore) as artifact:
        assert contents(artifact.directory) == FILES
        return artifact.directory


def opened(path: Path) -> Path:
    """Make a path writable for its owner: the tests may run as another user than root."""
    for one in (path.parent, path):
        if one.exists() and not one.is_symlink():
            one.chmod(0o700)
    return path


def flip_byte(files: Path) -> None:
    path = opened(files / "model.onnx")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    seen = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def cut(files: Path) -> None:
    os.truncate(opened(files / "model.onnx"), 10)


def grow(files: Path) -> None:
    with opened(files / "model.onnx").open("ab") as file:
        file.write(b"x")


def remove(files: Path) -> None:
    opened(files / "labels.txt").unlink()


def add_file(files: Path) -> None:
    opened(files / "libcustom.so").write_bytes(b"code")


def add_directory(files: Path) -> None:
    opened(files / "more").mkdir()


def add_link(files: Path) -> None:
    opened(files / "link").symlink_to("/etc/hostname")


def link_file(files: Path) -> None:
    path = opened(files / "labels.txt")
    path.rename(files.parent / "labels.txt")
    path.symlink_to(files.parent / "labels.txt")


def link_directory(files: Path) -> None:
    opened(files / "weights").rename(files.parent / "weights")
    (files / "weights").symlink_to(files.parent / "weights")


def hard_link(files: Path) -> None:
    os.link(files / "labels.txt", files.parent.parent.parent / "labels.txt")


def link_files(files: Path) -> None:
    opened(files).rename(files.parent.parent.parent / "elsewhere")
    files.symlink_to(files.parent.parent.parent / "elsewhere")


def link_artifact(files: Path) -> None:
    elsewhere = files.parent.parent.parent / "elsewhere"
    files.parent.rename(elsewhere)
    files.parent.symlink_to(elsewhere)


def pipe(files: Path) -> None:
    opened(files / "labels.txt").unlink()
    os.mkfifo(files / "labels.txt")


def manifest_of_others(files: Path) -> None:
    """Change a file, and the manifest with it."""
    flip_byte(files)
    manifest = opened(files.parent / "manifest.json")
    document = json.loads(manifest.read_bytes())
    for entry in document["files"]:
        if entry["path"] == "model.onnx":
            entry["sha256"] = sha256((files / "model.onnx").read_bytes())
    manifest.write_text(json.dumps(document))


def manifest_byte(files: Path) -> None:
    manifest = opened(files.parent / "manifest.json")
    manifest.write_bytes(manifest.read_bytes().replace(b'"size": 8', b'"size": 9'))


def manifest_garbage(files: Path) -> None:
    opened(files.parent / "manifest.json").write_bytes(b"\x00garbage")


def no_manifest(files: Path) -> None:
    (files.parent / "manifest.json").unlink()


def nothing_left(files: Path) -> None:
    shutil.rmtree(opened(files.parent))
    files.parent.mkdir()


def a_file_instead(files: Path) -> None:
    shutil.rmtree(opened(files.parent))
    files.parent.write_bytes(b"")


HARM = [
    flip_byte,
    cut,
    grow,
    remove,
    add_file,
    add_directory,
    add_link,
    link_file,
    link_directory,
    hard_link,
    link_files,
    link_artifact,
    pipe,
    manifest_of_others,
    manifest_byte,
    manifest_garbage,
    no_manifest,
    nothing_left,
    a_file_instead,
]


@pytest.mark.parametrize("harm", HARM, ids=lambda harm: str(harm.__name__))
async def test_a_damaged_artifact_is_fetched_again(
    cache: ArtifactCache, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever was done to it is noticed, and said while the registry is down; then it is fetched again."""
    shelf = Shelf()
    directory = await obtained(cache, shelf)
    harm(directory)
    shelf.down = True
    with pytest.raises(RegistryError, match=r"^fetch: the copy .* was damaged \(.*is down") as failed:
        await obtained(cache, shelf)
    assert failed.value.may_pass
    assert "is damaged" in caplog.text
    shelf.down = False
    assert await obtained(cache, shelf) == directory
    shelf.down = True
    await obtained(cache, shelf)


@pytest.mark.parametrize(
    "harm", [harm for harm in HARM if harm is not nothing_left], ids=lambda h: str(h.__name__)
)
async def test_a_damaged_artifact_is_not_taken_for_new_content(
    cache: ArtifactCache, harm: Callable[[Path], None]
) -> None:
    """A version of which the content is in the cache, damaged, replaces it."""
    shelf = Shelf()
    harm(await obtained(cache, shelf))
    async with cache.obtain(request(shelf, of=version("2")), ignore) as artifact:
        assert contents(artifact.directory) == FILES


async def test_a_damaged_artifact_in_use_leaves_nobody_without_files(cache: ArtifactCache) -> None:
    """Who uses an artifact that another finds damaged has the new copy under the same path."""
    shelf = Shelf()
    async with cache.obtain(request(shelf), ignore) as first:
        flip_byte(first.directory)
        async with cache.obtain(request(shelf), ignore) as second:
            assert second.directory == first.directory
        assert contents(first.directory) == FILES


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"digest": "../../etc"}'])
async def test_a_damaged_index_is_no_index(cache: ArtifactCache, tmp_path: Path, content: bytes) -> None:
    """An index entry that cannot be read costs a fetch and nothing else."""
    shelf = Shelf()
    await obtained(cache, shelf)
    (index,) = (tmp_path / "cache" / "index").iterdir()
    index.write_bytes(content)
    await obtained(cache, shelf)
    shelf.down = True
    await obtained(cache, shelf)


async def test_an_index_that_leads_to_another_version(cache: ArtifactCache, tmp_path: Path) -> None:
    """An entry copied over another one's counts for nothing."""
    other = {"model.onnx": b"other"}
    await obtained(cache, Shelf())
    (index,) = (tmp_path / "cache" / "index").iterdir()
    async with cache.obtain(request(Shelf(other), of=version("2")), ignore) as artifact:
        assert artifact.digest == digest_of(other)
    (second,) = set((tmp_path / "cache" / "index").iterdir()) - {index}
    shutil.copy(second, index)
    await obtained(cache, Shelf())


def staged(root: Path) -> Path:
    (fetching,) = (root / "cache" / "fetching").iterdir()
    return fetching


def outside(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name != "cache"]


def harm_staged(tmp_path: Path, what: str) -> None:
    fetching = staged(tmp_path)
    files = fetching / "artifact" / "files"
    if what == "links":
        (files / "labels.txt").unlink()
        (files / "labels.txt").symlink_to(tmp_path / "outside")
        shutil.rmtree(files / "weights")
        (files / "weights").symlink_to(tmp_path)
    elif what == "extra":
        (files / "extra").write_bytes(b"extra")
        (files / "weights" / "more").mkdir()
        (files / "weights" / "more" / "extra").write_bytes(b"extra")
    elif what == "model.onnx":
        with (files / what).open("r+b") as file:
            file.write(b"\xff\xff\xff")
    else:
        note = fetching / what
        note.write_bytes(note.read_bytes()[:-9] + b"\xff{]")


@pytest.mark.parametrize("what", ["state.json", "parts.jsonl", "model.onnx", "links", "extra"])
async def test_damage_to_what_is_half_fetched(cache: ArtifactCache, tmp_path: Path, what: str) -> None:
    """Parts and notes that an earlier attempt has left are used only as far as they are sound."""
    shelf = Shelf()
    shelf.claims = False  # nothing else would find out
    shelf.change = lambda path, at, piece: (
        None if path == "model.onnx" and at <= 60_000 < at + 5_000 else piece
    )
    with pytest.raises(RegistryError):
        await obtained(cache, shelf)
    shelf.change = Shelf().change
    harm_staged(tmp_path, what)
    await obtained(cache, shelf)
    assert outside(tmp_path) == []


async def test_planted_links_are_refused_before_publishing(cache: ArtifactCache, tmp_path: Path) -> None:
    """A link, or a file more, that appears while the files are verified refuses the version."""
    for plant, words in (
        (lambda files: (files / "x").symlink_to("/etc/hostname"), "symbolic link"),
        (lambda files: os.link(files / "model.onnx", tmp_path / "model.onnx"), "2 hard links"),
        (lambda files: (files / "x").write_bytes(b"x"), "not among the files"),
    ):
        with pytest.raises(RegistryError, match=words) as refused:
            async with cache.obtain(
                request(Shelf(), check=lambda files, _manifest, plant=plant: plant(files)),  # type: ignore[misc]
                ignore,
            ):
                pass
        assert refused.value.step == "verify"
        assert list((tmp_path / "cache" / "artifacts").iterdir()) == []
