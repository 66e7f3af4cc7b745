"""Kill a real process at every step of what the cache does, and look what the next one makes of the rest.

Run as a program: `crashing.py SCENARIO DIRECTORY`. For n = 1, 2, ... a child process (a fork: nothing is
imported anew) does what the scenario says and kills itself with SIGKILL just before its nth step: a change
of the file system, a lock, a piece from the registry. Then another one, which nothing kills, does it again.
It is over with the first n that the child outlives. Writes a line of JSON: how many steps there are, and what
failed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from gateway.registry.cache import ArtifactCache, CacheOptions
from tests.registry.cache.shelf import Shelf, contents, digest_of, ignore, request, version

FILES = {"model.onnx": bytes(range(250)) * 160, "data/weights": b"w" * 9_000}
OPTIONS = CacheOptions(
    free_disk_reserve_bytes=0,
    part_bytes=16_384,
    backoff_s=0,
    parallel_parts=2,
    lock_poll_s=0.01,
    durable=False,
)
CHANGES = {
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.truncate",
    "os.utime",
    "fcntl.flock",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Steps:
    """Counts what happens, and ends the process at one of them."""

    def __init__(self, last: int) -> None:
        self._left = last
        sys.addaudithook(self._on_event)

    def take(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def gate(self, _path: str, _position: int) -> None:
        self.take()

    def _on_event(self, event: str, arguments: tuple[object, ...]) -> None:
        flags = arguments[2] if event == "open" else 0
        if event in CHANGES or (isinstance(flags, int) and flags & WRITING):
            self.take()


async def obtain(root: Path, shelf: Shelf, *, durable: bool = False) -> None:
    """Obtain version 1 and see that it is what the registry has."""
    cache = ArtifactCache(root, replace(OPTIONS, durable=durable))
    async with cache.obtain(request(shelf), ignore) as artifact:
        assert contents(artifact.directory) == FILES, "handed out something else"
        assert artifact.digest == digest_of(FILES)
    await cache.aclose()


async def obtain_durably(root: Path, shelf: Shelf) -> None:
    """Obtain version 1, flushing everything to the disk on the way."""
    await obtain(root, shelf, durable=True)


async def damage(root: Path, shelf: Shelf) -> None:
    """Have version 1 in the cache, with a flipped byte."""
    await obtain(root, shelf)
    flip_byte(root)


def flip_byte(root: Path) -> None:
    file = next(root.glob("artifacts/*/files/model.onnx"))
    file.chmod(0o600)
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)


async def publish_elsewhere(root: Path, shelf: Shelf) -> None:
    """Have the content of version 1 in the cache as that of version 2."""
    cache = ArtifactCache(root, OPTIONS)
    async with cache.obtain(request(shelf, of=version("2")), ignore):
        pass
    await cache.aclose()


async def collect(root: Path, shelf: Shelf) -> None:
    """Remove everything."""
    cache = ArtifactCache(root, CacheOptions(max_bytes=0, grace_s=-1, leftover_age_s=-1))
    await cache.collect()
    await cache.aclose()


async def collect_all(root: Path, shelf: Shelf) -> None:
    """Have nothing left in the cache, when what there was is old."""
    make_old(root)
    await collect(root, shelf)
    assert left(root) == []


async def obtain_old(root: Path, shelf: Shelf) -> None:
    """Have had version 1 in the cache for long."""
    await obtain(root, shelf)
    make_old(root)


def make_old(root: Path) -> None:
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))


def left(root: Path) -> list[str]:
    """Return what is in the cache but what gateways want kept."""
    kept = root / "keep"
    return [str(path) for path in root.rglob("*") if path.parent not in {root, kept}]


async def nothing(root: Path, shelf: Shelf) -> None:
    """Begin with no cache."""


Work = Callable[[Path, Shelf], Awaitable[None]]
SCENARIOS: dict[str, tuple[Work, Work]] = {
    "fetch": (nothing, obtain_durably),
    "without-ranges": (nothing, obtain),
    "replace-damaged": (damage, obtain),
    "same-content": (publish_elsewhere, obtain),
    "collect": (obtain_old, collect),
}


def child(work: Callable[[], Awaitable[None]]) -> int:
    """Do it in a process of its own; return its status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            asyncio.run(_awaited(work))
            status = 0
        except BaseException:  # noqa: BLE001 - a fork must not go on with what its parent does
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def shelf_of(scenario: str) -> Shelf:
    shelf = Shelf(FILES)
    shelf.piece_bytes = 8_192
    shelf.ranges = scenario != "without-ranges"
    return shelf


def run(scenario: str, root: Path) -> dict[str, object]:
    """Return how many steps there are, and after which of them things went wrong."""
    before, work = SCENARIOS[scenario]
    faults: list[str] = []
    for step in itertools.count(1):
        place = root / str(step)
        place.mkdir()

        async def killed(place: Path = place, step: int = step) -> None:
            shelf = shelf_of(scenario)
            await before(place / "cache", shelf)
            steps = Steps(step)
            shelf.gate = steps.gate
            await work(place / "cache", shelf)

        async def again(place: Path = place) -> None:
            await work(place / "cache", shelf_of(scenario))
            await obtain(place / "cache", shelf_of(scenario))
            await collect_all(place / "cache", shelf_of(scenario))

        status = child(killed)
        if status not in {0, -signal.SIGKILL}:
            faults.append(f"step {step}: the first ended with {status}")
        if (after := child(again)) != 0:
            faults.append(f"step {step}: the next ended with {after}")
        shutil.rmtree(place)
        if status != -signal.SIGKILL:
            return {"steps": step - 1, "faults": faults}
    raise AssertionError("unreachable")


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], Path(sys.argv[2]))))  # noqa: T201 - its output
