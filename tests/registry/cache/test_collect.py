"""Garbage collection of a real directory, and while it is in use."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.core.registry import RegistryError
from gateway.registry.cache import ArtifactCache, CacheOptions
from tests.registry.cache.shelf import (
    FILES,
    QUICK,
    Shelf,
    Valve,
    contents,
    digest_of,
    ignore,
    request,
    version,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

DAY_S = 86_400.0


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[[CacheOptions], ArtifactCache]]:
    made: list[ArtifactCache] = []

    def cache(options: CacheOptions) -> ArtifactCache:
        made.append(ArtifactCache(tmp_path / "cache", options))
        return made[-1]

    yield cache
    for one in made:
        await one.aclose()


def shelf_of(label: str) -> Shelf:
    return Shelf({"model.onnx": label.encode() * 1000})


async def obtained(cache: ArtifactCache, label: str, model: str = "net") -> str:
    of = version(label, model=model)
    async with cache.obtain(request(shelf_of(label), of=of), ignore) as artifact:
        return artifact.digest


def there(root: Path) -> set[str]:
    return {path.name for path in (root / "cache" / "artifacts").iterdir()}


def make_older(root: Path, by_s: float) -> None:
    """Let everything in the cache be older."""
    for path in (root / "cache").rglob("*"):
        seen = path.stat()
        os.utime(path, (seen.st_atime - by_s, seen.st_mtime - by_s))


async def test_limits_on_a_real_directory(
    make: Callable[[CacheOptions], ArtifactCache], tmp_path: Path
) -> None:
    """Age, count and bytes remove artifacts with their index entries and locks; the report says why."""
    cache = make(replace(QUICK, keep_versions=2))
    digests = []
    for label in "123":
        digests.append(await obtained(cache, label))
        make_older(tmp_path, 10)
    report = await cache.collect()
    assert report.removed == {digests[0]: "count"}
    assert (report.freed_bytes, report.kept, report.kept_bytes, report.pinned) == (1000, 2, 2000, 0)
    assert there(tmp_path) == set(digests[1:])
    assert len(list((tmp_path / "cache" / "index").iterdir())) == 2
    make_older(tmp_path, DAY_S)
    aged = make(replace(QUICK, max_age_s=DAY_S + 15))
    assert (await aged.collect([digests[1]])).removed == {}
    assert (await aged.collect()).removed == {digests[1]: "age"}
    assert (await make(replace(QUICK, max_bytes=999)).collect()).removed == {digests[2]: "bytes"}
    root = tmp_path / "cache"
    assert [
        list((root / name).iterdir()) for name in ("artifacts", "index", "trash", "fetching", "locks")
    ] == [[]] * 5


async def test_the_young_are_spared(make: Callable[[CacheOptions], ArtifactCache], tmp_path: Path) -> None:
    """What was just fetched, or just used, is not removed whatever the limits."""
    cache = make(replace(QUICK, max_bytes=0, grace_s=60))
    digest = await obtained(cache, "1")
    assert (await cache.collect()).removed == {}
    make_older(tmp_path, 61)
    await obtained(cache, "1")
    assert (await cache.collect()).removed == {}
    make_older(tmp_path, 61)
    assert set((await cache.collect()).removed) == {digest}


async def test_use_ends_when_the_context_is_left(
    make: Callable[[CacheOptions], ArtifactCache], tmp_path: Path
) -> None:
    """The age of an artifact that was in use for long counts from the end of that."""
    cache = make(replace(QUICK, max_age_s=DAY_S, grace_s=-1))
    async with cache.obtain(request(shelf_of("1"), of=version("1")), ignore):
        make_older(tmp_path, 2 * DAY_S)
    assert (await cache.collect()).removed == {}


async def test_leftovers_go_after_a_day(
    make: Callable[[CacheOptions], ArtifactCache], tmp_path: Path
) -> None:
    """What a fetch that nobody went on with has left goes when it is old; one under way never does."""
    cache = make(replace(QUICK, attempts=1))
    shelf = Shelf()
    shelf.change = lambda path, at, piece: None if at == 15_000 else piece
    with pytest.raises(RegistryError):
        async with cache.obtain(request(shelf), ignore):
            pass
    assert (await cache.collect()).leftovers == 0
    make_older(tmp_path, DAY_S + 1)
    shelf.change = Shelf().change
    shelf.gate = valve = Valve(after=1)

    async def fetch() -> None:
        async with cache.obtain(request(shelf), ignore) as artifact:
            assert contents(artifact.directory) == FILES

    waiting = asyncio.create_task(fetch())
    await valve.reached.wait()
    make_older(tmp_path, DAY_S + 1)
    assert (await cache.collect()).leftovers == 0
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    make_older(tmp_path, DAY_S + 1)
    assert (await cache.collect()).leftovers == 1
    assert list((tmp_path / "cache" / "fetching").iterdir()) == []


def litter(root: Path, digest: str) -> None:
    """Leave what crashes and gateways that are gone may leave."""
    (root / "trash" / "x" / "deep").mkdir(parents=True)
    (root / "trash" / "x" / "deep" / "file").write_bytes(b"x")
    (root / "trash" / "x" / "deep").chmod(0o500)
    (root / "trash" / "link").symlink_to(root / "artifacts")
    (root / "locks" / f"{'0' * 64}.lock").touch()
    (root / "locks" / f"{'1' * 64}.fetch").touch()
    (root / "index" / ".new-123").write_bytes(b"{")
    (root / "keep" / "gone.json").write_text(f'["{digest}"]')


async def test_trash_locks_and_notes_that_crashes_left(
    make: Callable[[CacheOptions], ArtifactCache], tmp_path: Path
) -> None:
    """Trash is emptied; locks, index entries and notes of nothing go when they are old."""
    cache = make(QUICK)
    digest = await obtained(cache, "1")
    root = tmp_path / "cache"
    litter(root, digest)
    make_older(tmp_path, DAY_S + 1)
    report = await cache.collect([digest])
    assert (report.removed, report.kept) == ({}, 1)
    assert list((root / "trash").iterdir()) == []
    assert [path.name for path in (root / "locks").iterdir()] == [f"{digest}.lock"]
    assert len(list((root / "index").iterdir())) == 1
    assert len(list((root / "keep").iterdir())) == 1
    assert there(tmp_path) == {digest}, "a link in the trash was followed"


async def test_index_entries_of_one_artifact_are_bounded(
    make: Callable[[CacheOptions], ArtifactCache], tmp_path: Path
) -> None:
    """A revision that changes while the files do not leaves the newest index entries only."""
    cache = make(QUICK)
    shelf = shelf_of("1")
    for number in range(20):
        async with cache.obtain(request(shelf, of=version(revision=f"r{number}")), ignore):
            pass
        make_older(tmp_path, 1)
    await cache.collect()
    assert len(list((tmp_path / "cache" / "index").iterdir())) == 16
    shelf.down = True
    async with cache.obtain(request(shelf, of=version(revision="r19")), ignore) as artifact:
        assert artifact.digest == digest_of(shelf.contents)


@pytest.mark.parametrize("seed", range(3))
async def test_obtain_and_collect_at_once(
    make: Callable[[CacheOptions], ArtifactCache], tmp_path: Path, seed: int
) -> None:
    """Whatever is held stays whole while two gateways collect all that they can, again and again."""
    rng = random.Random(seed)
    caches = [make(replace(QUICK, max_bytes=0, grace_s=-1, leftover_age_s=-1)) for _ in range(2)]
    shelves = {label: shelf_of(label) for label in "123"}

    async def use() -> None:
        for _ in range(12):
            label = rng.choice("123")
            shelf = shelves[label]
            async with rng.choice(caches).obtain(request(shelf, of=version(label)), ignore) as artifact:
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                    assert contents(artifact.directory) == shelf.contents

    done = False

    async def clear(cache: ArtifactCache) -> int:
        removed = 0
        while not done:
            removed += len((await cache.collect()).removed)
        return removed

    clearing = [asyncio.create_task(clear(cache)) for cache in caches]
    await asyncio.gather(*(use() for _ in range(4)))
    done = True
    assert sum(await asyncio.gather(*clearing)) > 0
    await caches[0].collect()
    assert there(tmp_path) == set()
