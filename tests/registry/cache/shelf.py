"""A registry of one version whose files are in memory, and which does what a test tells it to."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from gateway.core.registry import (
    FetchProgress,
    NotInRegistry,
    RangeUnsupported,
    RegisteredModel,
    RegistryError,
    RegistryFile,
    RegistryVersion,
)
from gateway.registry.cache import ArtifactRequest, CacheOptions, Manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

MODEL_BYTES = 100_000
FILES: Mapping[str, bytes] = {
    "model.onnx": bytes(i * 7 % 251 for i in range(MODEL_BYTES)),
    "weights/part-0.data": b"weights" * 999,
    "weights/empty": b"",
    "labels.txt": b"cat\ndog\n",
}
QUICK = CacheOptions(
    free_disk_reserve_bytes=0,
    part_bytes=16_384,
    backoff_s=0,
    read_timeout_s=20,
    lock_poll_s=0.01,
    grace_s=0,
    durable=False,
)
"""Small parts, no pauses, no waiting for the disk, and nothing is too young for the garbage collection."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_of(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.split("/")):
        whole.update(path.encode() + b"\0" + sha256(files[path]).encode() + b"\0")
    return whole.hexdigest()


async def _at_once(_path: str, _position: int) -> None:
    pass


def _as_is(_path: str, _position: int, piece: bytes) -> bytes | None:
    return piece


class Shelf:
    """A ModelRegistry.

    Attributes:
        reads: every call of `read`: path, start, end.
        piece_bytes: how much it gives at a time.
        gate: awaited before each piece, with path and position.
        change: what becomes of a piece on its way; None ends the body.
        down: refuses everything.
        etags, claims, sizes, ranges: what it has of each file.
        log: a line is added to this file for each `read`, so that processes can be counted together.
    """

    name = "shelf"
    identity = "shelf://here"

    def __init__(self, files: Mapping[str, bytes] = FILES, *, log: Path | None = None) -> None:
        self.contents = dict(files)
        self.reads: list[tuple[str, int, int | None]] = []
        self.piece_bytes = 5_000
        self.gate: Callable[[str, int], Awaitable[None]] = _at_once
        self.change: Callable[[str, int, bytes], bytes | None] = _as_is
        self.down = False
        self.etags = self.claims = self.sizes = self.ranges = True
        self.log = log

    async def model(self, name: str) -> RegisteredModel:
        raise NotInRegistry(f"no model '{name}'")

    async def files(self, version: RegistryVersion) -> Sequence[RegistryFile]:
        self._check_up()
        return [
            RegistryFile(
                path=path,
                size=len(content) if self.sizes else None,
                etag=sha256(content)[:8] if self.etags else "",
                sha256=sha256(content) if self.claims else "",
            )
            for path, content in self.contents.items()
        ]

    async def read(
        self, version: RegistryVersion, file: RegistryFile, start: int, end: int | None
    ) -> AsyncIterator[bytes]:
        self.reads.append((file.path, start, end))
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{file.path} {start}\n")
        if start and not self.ranges:
            raise RangeUnsupported
        content = self.contents[file.path]
        for at in range(start, len(content) if end is None else end, self.piece_bytes):
            await self.gate(file.path, at)
            self._check_up()
            if self.etags and file.etag != sha256(self.contents[file.path])[:8]:
                raise RegistryError("fetch", f"'{file.path}' has changed", may_pass=True)
            until = min(at + self.piece_bytes, len(content) if end is None else end)
            piece = self.change(file.path, at, self.contents[file.path][at:until])
            if piece is None:
                return
            yield piece

    async def aclose(self) -> None:
        pass

    def _check_up(self) -> None:
        if self.down:
            raise RegistryError("fetch", "registry 'shelf' is down", may_pass=True)


def version(label: str = "1", revision: str = "r1", model: str = "net") -> RegistryVersion:
    return RegistryVersion(
        model=model, label=label, number=int(label), revision=revision, location=f"{model}/{label}"
    )


def request(
    shelf: Shelf,
    *,
    pinned: str = "",
    check: Callable[[Path, Manifest], None] | None = None,
    of: RegistryVersion | None = None,
) -> ArtifactRequest:
    return ArtifactRequest(registry=shelf, version=of or version(), pinned_digest=pinned, check=check)


def ignore(_progress: FetchProgress) -> None:
    pass


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if not path.is_dir()
    }


class Valve:
    """A gate that opens when told; `reached` is set when somebody stands before it."""

    def __init__(self, *, after: int = 0) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self._after = after

    async def __call__(self, _path: str, _position: int) -> None:
        if self._after > 0:
            self._after -= 1
            return
        self.reached.set()
        await self.opened.wait()
