"""Another gateway that shares the cache, as a process of its own.

Run as a program: `process.py CACHE LOG GATE [UID]`. It obtains version 1, writes a line of JSON for each
report of progress, one with the digest, holds the artifact until its standard input ends, and then leaves.
Reads from the registry are added to the file LOG. When GATE is not empty it is a named pipe: the fetch stops
in the middle until somebody has opened it for writing. With UID it becomes that user once everything is
imported, for the interpreter may lie where only the user who runs the tests can read.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from gateway.core.registry import FetchProgress, RegistryError
from gateway.registry.cache import ArtifactCache
from tests.registry.cache.shelf import FILES, QUICK, Shelf, contents, request

GATED_PIECE = 14


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - its output


def report(progress: FetchProgress) -> None:
    say(state=progress.state.value, done=progress.done_bytes, total=progress.total_bytes)


def gated(shelf: Shelf, pipe: Path) -> None:
    """Let the registry wait for the pipe before one of the pieces, and say that it does."""
    pieces = 0

    async def gate(_path: str, _position: int) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == GATED_PIECE:
            say(gate="reached")
        if pieces >= GATED_PIECE:
            await asyncio.to_thread(_passed, pipe)

    shelf.gate = gate


def _passed(pipe: Path) -> None:
    pipe.open("rb").close()


async def main(root: Path, log: Path, pipe: str) -> None:
    shelf = Shelf(log=log)
    if pipe:
        gated(shelf, Path(pipe))
    cache = ArtifactCache(root, replace(QUICK, parallel_parts=1))
    try:
        async with cache.obtain(request(shelf), report) as artifact:
            say(digest=artifact.digest, right=contents(artifact.directory) == FILES)
            await asyncio.to_thread(sys.stdin.read)
            say(right=contents(artifact.directory) == FILES)
    except RegistryError as error:
        say(error=str(error), may_pass=error.may_pass, step=error.step)
    await cache.aclose()


def become(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


if __name__ == "__main__":
    if sys.argv[4:]:
        become(int(sys.argv[4]))
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
