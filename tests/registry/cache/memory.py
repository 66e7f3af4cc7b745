"""How much memory a fetch takes, in a process of its own.

Run as a program: `memory.py CACHE`. Writes by how many bytes the resident set was larger than before, at its
peak while 64 MB were fetched and obtained again.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.registry import RegistryFile, RegistryVersion
from gateway.registry.cache import ArtifactCache, CacheOptions
from tests.registry.cache.shelf import Shelf, ignore, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

SIZE = 64 << 20
PIECE = b"\1" * (256 << 10)


class Large(Shelf):
    """A registry that makes up its one file as it is read."""

    async def files(self, version: RegistryVersion) -> Sequence[RegistryFile]:
        return [RegistryFile(path="model.onnx", size=SIZE, etag="1")]

    async def read(
        self, version: RegistryVersion, file: RegistryFile, start: int, end: int | None
    ) -> AsyncIterator[bytes]:
        for at in range(start, end or SIZE, len(PIECE)):
            await asyncio.sleep(0)
            # A new object each time, as bytes from a socket are.
            yield b"".join((PIECE, b"\1"))[1 : (end or SIZE) - at + 1]


def resident_bytes(kind: str) -> int:
    """Return the resident set: now, `VmRSS`, or at its peak, `VmHWM`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


async def main(root: Path) -> int:
    cache = ArtifactCache(root, CacheOptions(free_disk_reserve_bytes=0, durable=False))
    async with cache.obtain(request(Shelf()), ignore):
        pass  # what the first use of anything takes is not the fetch's
    forget_peak()
    before = resident_bytes("VmRSS")
    shelf = Large()
    shelf.identity = "large"
    for _ in range(2):
        async with cache.obtain(request(shelf), ignore) as artifact:
            assert artifact.manifest.total_bytes == SIZE
    await cache.aclose()
    return resident_bytes("VmHWM") - before


if __name__ == "__main__":
    print(asyncio.run(main(Path(sys.argv[1]))))  # noqa: T201 - its output
