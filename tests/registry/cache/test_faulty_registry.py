"""What a registry can do wrong: nothing of it is served, and each has a message a person can act on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.core.registry import FetchProgress, RegistryError, RegistryFile, RegistryVersion
from gateway.registry.cache import ArtifactCache
from tests.registry.cache.shelf import (
    FILES,
    MODEL_BYTES,
    QUICK,
    Shelf,
    Valve,
    contents,
    digest_of,
    ignore,
    request,
    sha256,
)

if TYPE_CHECKING:
    from pathlib import Path

Change = Callable[[str, int, bytes], bytes | None]


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[ArtifactCache]:
    made = ArtifactCache(tmp_path / "cache", QUICK)
    yield made
    await made.aclose()


async def obtained(cache: ArtifactCache, shelf: Shelf, pinned: str = "") -> None:
    async with cache.obtain(request(shelf, pinned=pinned), ignore) as artifact:
        assert contents(artifact.directory) == FILES


def flip(piece: bytes) -> bytes:
    return bytes([piece[0] ^ 1]) + piece[1:]


def times(count: int, change: Callable[[bytes], bytes | None], at: int = 40_000) -> Change:
    """Return a change of the piece of the model at `at`, which happens `count` times."""
    left = count

    def changed(path: str, position: int, piece: bytes) -> bytes | None:
        nonlocal left
        if path == "model.onnx" and position <= at < position + len(piece) and left > 0:
            left -= 1
            return change(piece)
        return piece

    return changed


async def test_a_truncated_part_is_read_on(cache: ArtifactCache) -> None:
    """A body that ends early is gone on with where it ended."""
    shelf = Shelf()
    shelf.change = times(2, lambda _piece: None)
    await obtained(cache, shelf)
    retried = [start for path, start, _ in shelf.reads if path == "model.onnx" and start % 16_384]
    assert len(retried) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _piece: None, "ended after"),
        (lambda piece: piece * 9, "goes on after"),
    ],
)
async def test_a_body_of_the_wrong_length(
    cache: ArtifactCache, change: Callable[[bytes], bytes | None], words: str
) -> None:
    """A body that is too short or too long again and again fails the fetch, which may pass."""
    shelf = Shelf()
    shelf.change = times(1_000, change)
    with pytest.raises(RegistryError, match=f"'model.onnx' of version '1' of 'net' .* {words}") as failed:
        await obtained(cache, shelf)
    assert (failed.value.step, failed.value.may_pass) == ("fetch", True)
    shelf.change = Shelf().change
    await obtained(cache, shelf)


async def test_a_byte_flipped_on_the_way_is_fetched_again(cache: ArtifactCache) -> None:
    """One file that does not have the digest claimed is fetched once more; the others are not."""
    shelf = Shelf()
    shelf.change = times(1, flip)
    await obtained(cache, shelf)
    paths = [path for path, _, _ in shelf.reads]
    assert (paths.count("model.onnx"), paths.count("labels.txt")) == (14, 1)


async def test_a_wrong_claim_is_refused_for_good(cache: ArtifactCache, tmp_path: Path) -> None:
    """A file that twice has another digest than claimed is refused, both named; nothing of it stays."""
    shelf = Shelf()
    shelf.change = times(1_000, flip)
    flipped = bytearray(FILES["model.onnx"])
    flipped[40_000] ^= 1
    with pytest.raises(RegistryError, match=f"'model.onnx'.*claims {sha256(FILES['model.onnx'])}") as refused:
        await obtained(cache, shelf)
    assert (refused.value.step, refused.value.may_pass) == ("verify", False)
    assert list((tmp_path / "cache" / "artifacts").iterdir()) == []
    assert list((tmp_path / "cache" / "fetching").iterdir()) == []


async def test_a_byte_flipped_on_the_way_and_a_pinned_digest(cache: ArtifactCache) -> None:
    """Where the registry claims no digests the pinned one finds the flipped byte, and it is fetched again."""
    shelf = Shelf()
    shelf.claims = False
    shelf.change = times(1, flip)
    await obtained(cache, shelf, pinned=digest_of(FILES))
    assert [path for path, _, _ in shelf.reads].count("model.onnx") == 14


async def test_a_file_that_changes_while_it_is_fetched(cache: ArtifactCache) -> None:
    """The fetch fails; the next one takes the file as it is then, and the other files' parts from before."""
    shelf = Shelf()
    shelf.gate = valve = Valve(after=12)
    waiting = asyncio.create_task(obtained(cache, shelf))
    await valve.reached.wait()
    changed = FILES["model.onnx"][::-1]
    shelf.contents["model.onnx"] = changed
    valve.opened.set()
    with pytest.raises(RegistryError, match="has changed") as failed:
        await waiting
    assert failed.value.may_pass
    shelf.reads.clear()
    async with cache.obtain(request(shelf), ignore) as artifact:
        assert contents(artifact.directory) == {**FILES, "model.onnx": changed}
    assert sum(path == "model.onnx" for path, _, _ in shelf.reads) == 7


async def test_a_part_from_which_nothing_comes(tmp_path: Path) -> None:
    """A silent read is given up, tried again, and in the end fails the fetch, which may pass."""
    options = replace(QUICK, read_timeout_s=0.05)
    cache = ArtifactCache(tmp_path, options)
    shelf = Shelf({"model.onnx": b"model"})
    shelf.gate = Valve()
    with pytest.raises(RegistryError, match=r"sent nothing for 0\.05 s") as failed:
        await obtained(cache, shelf)
    assert failed.value.may_pass
    assert len(shelf.reads) == options.attempts
    await cache.aclose()


async def test_empty_pieces_are_silence(tmp_path: Path) -> None:
    """A body of nothing but empty pieces is given up as one from which nothing comes."""

    class Empty(Shelf):
        async def read(
            self, version: RegistryVersion, file: RegistryFile, start: int, end: int | None
        ) -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(0)
                yield b""

    cache = ArtifactCache(tmp_path, replace(QUICK, read_timeout_s=0.01, attempts=1))
    with pytest.raises(RegistryError, match="sent nothing for"):
        await obtained(cache, Empty())
    await cache.aclose()


async def test_a_listing_that_does_not_come(tmp_path: Path) -> None:
    """Files that are not listed in time fail the fetch, which may pass."""

    class Silent(Shelf):
        async def files(self, version: object) -> list[object]:  # type: ignore[override]
            await asyncio.Event().wait()
            raise AssertionError

    cache = ArtifactCache(tmp_path, replace(QUICK, listing_timeout_s=0.01))
    with pytest.raises(RegistryError, match="registry 'shelf' did not list the files") as failed:
        await obtained(cache, Silent())
    assert failed.value.may_pass
    await cache.aclose()


async def test_pauses_between_attempts_grow(tmp_path: Path) -> None:
    """A part is tried as often as the options say, after pauses that double."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    options = replace(QUICK, pause=pause, backoff_s=0.25, attempts=4, parallel_parts=1)
    cache = ArtifactCache(tmp_path, options)
    shelf = Shelf({"model.onnx": b"model"})
    shelf.change = lambda _path, _position, _piece: None
    with pytest.raises(RegistryError, match="ended after 0 of 5 bytes"):
        await obtained(cache, shelf)
    assert pauses == [0.25, 0.5, 1.0]
    await cache.aclose()


async def test_a_registry_that_raises_what_it_should_not(cache: ArtifactCache) -> None:
    """A connection's error is the registry's fault, not the disk's; a programming error is not hidden."""
    shelf = Shelf()

    async def reset(_path: str, _position: int) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    shelf.gate = reset
    with pytest.raises(RegistryError, match="could not be read: Connection reset by peer"):
        await obtained(cache, shelf)

    async def wrong(_path: str, _position: int) -> None:
        raise KeyError("etag")

    shelf.gate = wrong
    with pytest.raises(KeyError):
        await obtained(cache, shelf)


async def test_a_version_that_is_too_large(tmp_path: Path) -> None:
    """Sizes are checked before anything is fetched, and while it is where they are not known before."""
    cache = ArtifactCache(tmp_path, replace(QUICK, max_artifact_bytes=MODEL_BYTES))
    shelf = Shelf()
    with pytest.raises(RegistryError, match="has 107 kB or more, the limit is 100 kB") as refused:
        await obtained(cache, shelf)
    assert (refused.value.may_pass, shelf.reads) == (False, [])
    shelf.sizes = False
    with pytest.raises(RegistryError, match="the limit is 100 kB"):
        await obtained(cache, shelf)
    await cache.aclose()


async def test_a_disk_without_room(tmp_path: Path) -> None:
    """What does not fit beside the reserve is refused with the numbers before anything is fetched."""
    cache = ArtifactCache(tmp_path, replace(QUICK, free_disk_reserve_bytes=1 << 60))
    shelf = Shelf()
    with pytest.raises(RegistryError, match=r"needs 107 kB more .* of which 1152921\.5 TB stay") as refused:
        await obtained(cache, shelf)
    assert (refused.value.step, refused.value.may_pass, shelf.reads) == ("fetch", True, [])
    assert str(tmp_path) not in str(refused.value)
    await cache.aclose()


async def test_parts_are_kept_when_the_registry_goes_down(tmp_path: Path) -> None:
    """What was complete is not fetched again, and counts as done from the start."""
    cache = ArtifactCache(tmp_path, replace(QUICK, parallel_parts=1))
    shelf = Shelf()
    shelf.gate = valve = Valve(after=12)
    waiting = asyncio.create_task(obtained(cache, shelf))
    await valve.reached.wait()
    shelf.down = True
    valve.opened.set()
    with pytest.raises(RegistryError, match="registry 'shelf' is down"):
        await waiting
    shelf.down = False
    shelf.reads.clear()
    reports: list[FetchProgress] = []
    async with cache.obtain(request(shelf), reports.append) as artifact:
        assert contents(artifact.directory) == FILES
    assert reports[1].done_bytes == len(FILES["labels.txt"]) + 2 * 16_384
    assert len(shelf.reads) == 6
    await cache.aclose()
