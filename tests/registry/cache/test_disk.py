"""Full disks, directories that are somebody else's, and directories that are something else."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.core.registry import RegistryError
from gateway.registry.cache import ArtifactCache, Manifest
from tests.registry.cache.shelf import FILES, QUICK, Shelf, contents, ignore, request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

ROOT = Path(__file__).parents[3]
TMPFS_BYTES = 2 << 20
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
LARGE = {"model.onnx": bytes(1_200_000), "labels.txt": b"cat\n"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> None:
    """Leave no room at all, of what another program may write on the same disk."""
    with (place / "filler").open("ab", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass


async def obtained(
    cache: ArtifactCache, shelf: Shelf, check: Callable[[Path, Manifest], None] | None = None
) -> str:
    async with cache.obtain(request(shelf, check=check), ignore) as artifact:
        assert contents(artifact.directory) == shelf.contents
        return artifact.digest


async def test_too_large_for_the_disk(small_disk: Path) -> None:
    """What the disk has no room for is not begun, and what runs out of room has the numbers too."""
    cache = ArtifactCache(small_disk / "cache", QUICK)
    shelf = Shelf({"model.onnx": bytes(3_000_000)})
    with pytest.raises(RegistryError, match=r"needs 3\.0 MB more .* has 2\.1 MB free"):
        await obtained(cache, shelf)
    assert shelf.reads == []
    shelf.sizes = False
    with pytest.raises(
        RegistryError, match=r"the disk of the artifact cache is full, \d.* free; free some"
    ) as full:
        await obtained(cache, shelf)
    assert (full.value.step, full.value.may_pass) == ("fetch", True)
    assert str(small_disk) not in str(full.value)
    await cache.aclose()


@pytest.mark.parametrize("piece", range(0, 76, 5))
async def test_a_disk_that_fills_up_while_fetching(small_disk: Path, piece: int) -> None:
    """Whenever it happens the fetch fails with words for it, and goes on when there is room again."""
    cache = ArtifactCache(small_disk / "cache", replace(QUICK, part_bytes=65_536))
    shelf = Shelf(LARGE)
    shelf.piece_bytes = 16_384
    pieces = 0

    async def gate(_path: str, _position: int) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == piece + 1:
            fill(small_disk)

    shelf.gate = gate
    if piece < 74:
        with pytest.raises(RegistryError, match="the disk of the artifact cache is full") as full:
            await obtained(cache, shelf)
        assert full.value.may_pass
        assert list((small_disk / "cache" / "artifacts").iterdir()) == []
        with pytest.raises(RegistryError, match="the artifact cache"):
            await obtained(cache, shelf)
    (small_disk / "filler").unlink(missing_ok=True)
    await obtained(cache, shelf)
    await cache.aclose()


async def test_a_disk_that_fills_up_before_publishing(small_disk: Path) -> None:
    """Without room for the manifest nothing is published; afterwards only what is missing is fetched."""
    cache = ArtifactCache(small_disk / "cache", QUICK)
    shelf = Shelf(LARGE)
    with pytest.raises(RegistryError, match="is full"):
        await obtained(cache, shelf, lambda _files, _manifest: fill(small_disk))
    assert list((small_disk / "cache" / "artifacts").iterdir()) == []
    (small_disk / "filler").unlink()
    before = len(shelf.reads)
    await obtained(cache, shelf)
    assert len(shelf.reads) == before
    await cache.aclose()


async def test_a_full_disk_can_be_collected_and_read(small_disk: Path) -> None:
    """On a full disk what is in the cache is handed out, and garbage collection makes room."""
    cache = ArtifactCache(small_disk / "cache", replace(QUICK, max_bytes=0, grace_s=-1))
    shelf = Shelf(LARGE)
    digest = await obtained(cache, shelf)
    fill(small_disk)
    shelf.down = True
    await obtained(cache, shelf)
    assert (await cache.collect()).removed == {digest: "bytes"}
    await cache.aclose()


async def refused(directory: Path) -> RegistryError:
    cache = ArtifactCache(directory, QUICK)
    calls: list[Callable[[], Awaitable[object]]] = [
        cache.prepare,
        lambda: obtained(cache, Shelf()),
        cache.collect,
    ]
    errors = []
    for call in calls:
        with pytest.raises(RegistryError) as caught:
            await call()
        errors.append(caught.value)
    await cache.aclose()
    assert all(str(directory) not in str(error) for error in errors)
    assert {error.may_pass for error in errors} == {True}
    return errors[1]


async def test_a_directory_that_is_something_else(tmp_path: Path) -> None:
    """A directory with other files, a cache of another format and a file are refused, and left alone."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("thesis")
    assert "is not empty, and no artifact cache" in str(await refused(tmp_path / "home"))
    assert os.listdir(tmp_path / "home") == ["thesis.tex"]  # noqa: PTH208
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "FORMAT").write_text("model-gateway artifact cache, format 2\n")
    assert "another format, 'model-gateway artifact cache, format 2'" in str(
        await refused(tmp_path / "newer")
    )
    (tmp_path / "file").write_text("file")
    assert "cannot be read or written" in str(await refused(tmp_path / "file"))


async def test_a_directory_that_others_may_enter_is_closed(tmp_path: Path) -> None:
    """The directory is made private if it is not, parents are made, and it may go while the gateway runs."""
    directory = tmp_path / "deep" / "cache"
    cache = ArtifactCache(directory, QUICK)
    await cache.prepare()
    directory.chmod(0o755)
    await obtained(cache, Shelf())
    assert directory.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(directory)
    await obtained(cache, Shelf())
    await cache.aclose()


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user can reach; pytest's own cannot be."""
    place = Path(tempfile.mkdtemp(prefix="gateway-cache-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def as_nobody(place: Path) -> list[dict[str, object]]:
    """Obtain the version as a user without privileges, return what was said; see `process.py`."""
    command = [
        sys.executable,
        "-m",
        "tests.registry.cache.process",
        str(place / "cache"),
        str(place / "log"),
        "",
    ]
    done = subprocess.run(
        [*command, str(nobody())], cwd=ROOT, input="", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def nobody() -> int:
    return pwd.getpwnam("nobody").pw_uid


@needs_root
async def test_another_user_s_cache(open_place: Path) -> None:
    """Another user's cache, and a place where none may be made, are errors that name the user."""
    (open_place / "log").touch()
    (open_place / "log").chmod(0o666)
    nowhere = as_nobody(open_place)[-1]
    cache = ArtifactCache(open_place / "cache", QUICK)
    await obtained(cache, Shelf())
    await cache.aclose()
    closed = as_nobody(open_place)[-1]
    (open_place / "cache").chmod(0o777)
    for path in (open_place / "cache").rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    loose = as_nobody(open_place)[-1]
    for said in (nowhere, closed, loose):
        assert said["may_pass"] is True
        assert f"must belong to user {nobody()}, who runs the gateway" in str(said["error"])
        assert str(open_place) not in str(said["error"])


@needs_root
def test_everything_works_without_privileges(open_place: Path) -> None:
    """A user whom file modes bind fetches, finds again, replaces what is damaged, goes on after a crash."""
    os.chown(open_place, nobody(), nobody())
    assert [said["right"] for said in as_nobody(open_place) if "right" in said] == [True, True]
    assert [said["right"] for said in as_nobody(open_place) if "right" in said] == [True, True]
    (file,) = (open_place / "cache").glob("artifacts/*/files/model.onnx")
    with file.open("r+b") as damaged:
        damaged.write(b"\xff\xff")
    assert [said["right"] for said in as_nobody(open_place) if "right" in said] == [True, True]
    (artifact,) = (open_place / "cache").glob("artifacts/*")
    (index,) = (open_place / "cache").glob("index/*")
    # As a process has left it that was killed just before it published.
    fetching = open_place / "cache" / "fetching" / index.stem
    fetching.mkdir()
    artifact.rename(fetching / "artifact")
    for path in (fetching, *fetching.rglob("*")):
        os.chown(path, nobody(), nobody())
    assert [said["right"] for said in as_nobody(open_place) if "right" in said] == [True, True]
    assert list((open_place / "cache" / "trash").iterdir()) == []
    assert set(contents(next((open_place / "cache").glob("artifacts/*/files")))) == set(FILES)
