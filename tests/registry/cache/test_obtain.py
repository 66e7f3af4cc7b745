"""Versions are fetched once, verified, and found again."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.core.registry import FetchProgress, RegistryError
from gateway.core.types import VersionState
from gateway.registry.cache import ArtifactCache, CacheOptions, Manifest
from gateway.registry.files import DigestCache, VersionFiles
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


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[ArtifactCache]:
    made = ArtifactCache(tmp_path / "cache", QUICK)
    yield made
    await made.aclose()


async def test_a_version_is_fetched_in_parts_and_found_again(cache: ArtifactCache, tmp_path: Path) -> None:
    """What is handed out is what the registry has, read-only; the second time nothing is fetched."""
    shelf = Shelf()
    async with cache.obtain(request(shelf), ignore) as first:
        assert contents(first.directory) == FILES
        assert first.digest == digest_of(FILES)
        assert set(first.files) == set(FILES)
        for path in [first.directory, *first.directory.rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o500 if path.is_dir() else 0o400)
    assert sum(path == "model.onnx" for path, _, _ in shelf.reads) == 7  # parts of 16 KiB
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    shelf.reads.clear()
    shelf.down = True
    async with cache.obtain(request(shelf), ignore) as second:
        assert second == first
    assert shelf.reads == []
    assert list((tmp_path / "cache" / "fetching").iterdir()) == []
    assert list((tmp_path / "cache" / "trash").iterdir()) == []


async def test_the_digest_is_the_one_of_a_local_tree(cache: ArtifactCache, tmp_path: Path) -> None:
    """Equal trees have equal digests, be they from a registry or from a local repository."""
    files = {"a/b": b"1", "a.b": b"2", "a-b": b"3", "ä/ö": b"4", "Z": b"5", "z": b"6", "a/b.c/d": b""}
    del files["Z"]
    for path, content in files.items():
        (tmp_path / "local" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / path).write_bytes(content)
    local = VersionFiles((tmp_path / "local").resolve(), (tmp_path / "local").resolve())
    async with cache.obtain(request(Shelf(files)), ignore) as artifact:
        assert artifact.digest == DigestCache().version_digest("m", local.directory, local.look())


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize("claims", [True, False])
async def test_registries_of_every_kind(
    cache: ArtifactCache, ranges: bool, sizes: bool, claims: bool
) -> None:
    """Without ranges, sizes, etags or claimed digests the files are fetched all the same."""
    shelf = Shelf()
    shelf.ranges, shelf.sizes, shelf.claims, shelf.etags = ranges, sizes, claims, False
    reports: list[FetchProgress] = []
    async with cache.obtain(request(shelf), reports.append) as artifact:
        assert contents(artifact.directory) == FILES
    total = sum(map(len, FILES.values()))
    fetching = [one for one in reports if one.state is VersionState.FETCHING]
    assert fetching[-1].total_bytes in {total, None}
    if sizes:
        assert fetching[-1].done_bytes == total
        assert max(one.done_bytes for one in fetching) == total


async def test_progress_is_told_now_and_then(tmp_path: Path) -> None:
    """Each state is told when it begins, and in between no more than five times a second."""
    now = 0.0

    def now_s() -> float:
        return now

    async def tick(_path: str, _position: int) -> None:
        nonlocal now
        now += 0.05

    shelf = Shelf()
    shelf.piece_bytes = 1000
    shelf.gate = tick
    options = CacheOptions(free_disk_reserve_bytes=0, part_bytes=1000, parallel_parts=1, now_s=now_s)
    cache = ArtifactCache(tmp_path, options)
    reports: list[FetchProgress] = []
    async with cache.obtain(request(shelf), reports.append):
        pass
    await cache.aclose()
    fetching = [one for one in reports if one.state is VersionState.FETCHING]
    verifying = [one for one in reports if one.state is VersionState.VERIFYING]
    assert reports == fetching + verifying
    assert len(fetching) <= now * 5 + 3
    assert len(fetching) >= now * 4
    total = sum(map(len, FILES.values()))
    assert fetching[0] == FetchProgress(state=VersionState.FETCHING, done_bytes=0, total_bytes=None)
    assert fetching[1].total_bytes == total
    assert verifying[0] == FetchProgress(state=VersionState.VERIFYING, done_bytes=0, total_bytes=total)
    assert verifying[-1].done_bytes == total


async def test_one_download_for_all_who_want_it(cache: ArtifactCache) -> None:
    """Those who come while a version is being fetched get the same artifact, and are told how far it is."""
    shelf = Shelf()
    shelf.gate = valve = Valve(after=10)
    reports: list[FetchProgress] = []
    async with asyncio.TaskGroup() as group:
        for report in (ignore, ignore, reports.append):
            group.create_task(obtained(cache, shelf, report))
        await valve.reached.wait()
        valve.opened.set()
    assert len(shelf.reads) == len(set(shelf.reads))
    assert {one.state for one in reports} == {VersionState.FETCHING, VersionState.VERIFYING}


async def obtained(
    cache: ArtifactCache, shelf: Shelf, report: Callable[[FetchProgress], None] = ignore
) -> dict[str, bytes]:
    async with cache.obtain(request(shelf), report) as artifact:
        found = contents(artifact.directory)
        assert found == shelf.contents
        return found


async def test_the_last_to_give_up_stops_the_download(tmp_path: Path) -> None:
    """Cancelling one of two goes on with the download, cancelling both stops it; what is there is kept."""
    cache = ArtifactCache(tmp_path, replace(QUICK, parallel_parts=1))
    shelf = Shelf()
    shelf.gate = valve = Valve(after=12)
    first = asyncio.create_task(obtained(cache, shelf))
    second = asyncio.create_task(obtained(cache, shelf))
    await valve.reached.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not second.done()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert len(shelf.reads) == 4
    shelf.gate = Shelf().gate
    reports: list[FetchProgress] = []
    await obtained(cache, shelf, reports.append)
    assert reports[1].done_bytes == len(FILES["labels.txt"]) + 2 * 16_384
    assert shelf.reads[4:] == sorted({*shelf.reads[3:]})
    await cache.aclose()


async def test_leader_gives_up_and_the_other_goes_on(cache: ArtifactCache) -> None:
    """The download goes on for the second when the first, who began it, is cancelled."""
    shelf = Shelf()
    shelf.gate = valve = Valve(after=3)
    first = asyncio.create_task(obtained(cache, shelf))
    await valve.reached.wait()
    second = asyncio.create_task(obtained(cache, shelf))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    valve.opened.set()
    await second
    assert len(shelf.reads) == len(set(shelf.reads))


async def test_check_runs_before_publishing_and_each_time(cache: ArtifactCache, tmp_path: Path) -> None:
    """The check sees all files before they are published; a later one may refuse what is in the cache."""
    shelf = Shelf()
    seen: list[Path] = []
    allowed = False

    def check(directory: Path, manifest: Manifest) -> None:
        seen.append(directory)
        assert contents(directory) == FILES
        assert manifest.digest == digest_of(FILES)
        if not allowed:
            raise RegistryError("verify", "not signed", may_pass=False)

    artifacts = tmp_path / "cache" / "artifacts"
    with pytest.raises(RegistryError, match="verify: not signed"):
        await entered(cache, shelf, check)
    assert seen[0].is_relative_to(tmp_path / "cache" / "fetching")
    assert list(artifacts.iterdir()) == []
    allowed = True
    async with cache.obtain(request(shelf, check=check), ignore):
        pass
    async with cache.obtain(request(shelf, check=check), ignore) as artifact:
        assert seen[-1] == artifact.directory
    assert len(seen) == 3
    allowed = False
    with pytest.raises(RegistryError, match="not signed"):
        await entered(cache, shelf, check)


async def entered(
    cache: ArtifactCache,
    shelf: Shelf,
    check: Callable[[Path, Manifest], None] | None = None,
    pinned: str = "",
) -> str:
    async with cache.obtain(request(shelf, check=check, pinned=pinned), ignore) as artifact:
        return artifact.digest


async def test_what_another_s_policy_refuses_is_not_refused_to_all(cache: ArtifactCache) -> None:
    """Of two who wait for one download, only the one whose policy refuses it fails."""

    def refuse(_directory: Path, _manifest: Manifest) -> None:
        raise RegistryError("verify", "not signed", may_pass=False)

    for order in ((refuse, None), (None, refuse)):
        shelf = Shelf()
        shelf.identity = f"shelf://{order[0]}"
        shelf.gate = valve = Valve(after=5)
        waiting = [asyncio.create_task(entered(cache, shelf, check)) for check in order]
        await valve.reached.wait()
        valve.opened.set()
        results = dict(zip(order, await asyncio.gather(*waiting, return_exceptions=True), strict=True))
        assert results[None] == digest_of(FILES)
        assert isinstance(results[refuse], RegistryError)


async def test_a_pinned_digest_must_match(cache: ArtifactCache, tmp_path: Path) -> None:
    """The right digest passes; a wrong one is refused with both named, fetched or in the cache."""
    shelf = Shelf()
    wrong = "0" * 64
    for _ in range(2):
        with pytest.raises(RegistryError, match=f"(?s){digest_of(FILES)}.*{wrong}") as refused:
            await entered(cache, shelf, pinned=wrong)
        assert (refused.value.step, refused.value.may_pass) == ("verify", False)
        assert await entered(cache, shelf, pinned=digest_of(FILES).upper()) == digest_of(FILES)


async def test_one_content_under_two_versions_is_kept_once(cache: ArtifactCache, tmp_path: Path) -> None:
    """Two versions with the same files share an artifact."""
    shelf = Shelf()
    later = request(shelf, of=version("2"))
    async with cache.obtain(request(shelf), ignore) as one, cache.obtain(later, ignore) as two:
        assert one == two
    assert len(list((tmp_path / "cache" / "artifacts").iterdir())) == 1
    assert list((tmp_path / "cache" / "fetching").iterdir()) == []


async def test_aclose_ends_those_who_wait(tmp_path: Path) -> None:
    """Closing the cache fails what is under way with something that may pass, and keeps the parts."""
    cache = ArtifactCache(tmp_path, QUICK)
    shelf = Shelf()
    shelf.gate = valve = Valve(after=12)
    waiting = asyncio.create_task(obtained(cache, shelf))
    await valve.reached.wait()
    await cache.aclose()
    with pytest.raises(RegistryError, match="stopping") as stopped:
        await waiting
    assert stopped.value.may_pass


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_pins_are_let_go(cache: ArtifactCache) -> None:
    """Nothing is left open after a version was used, or refused."""
    before = descriptors()
    shelf = Shelf()
    await entered(cache, shelf)
    with pytest.raises(RegistryError):
        await entered(cache, shelf, pinned="0" * 64)
    async with cache.obtain(request(shelf), ignore), cache.obtain(request(shelf), ignore):
        pass
    assert descriptors() == before
