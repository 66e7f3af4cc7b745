"""Fetch the files of one version in parallel parts, going on with what an earlier attempt has left."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.core.registry import RangeUnsupported, RegistryError
from gateway.core.types import VersionState
from gateway.registry.cache.integrity import in_parallel
from gateway.registry.cache.listing import too_large
from gateway.registry.cache.staging import FetchedPart
from gateway.registry.verification.plain_files import shown_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
    from hashlib import _Hash

    from gateway.core.registry import RegistryFile
    from gateway.registry.cache.artifacts import ArtifactRequest
    from gateway.registry.cache.progress import Progress
    from gateway.registry.cache.resources import Resources
    from gateway.registry.cache.room import Promise
    from gateway.registry.cache.staging import Staging

_WRITE_BYTES: Final = 512 << 10
"""So much of a part is gathered before it is written."""


@dataclass(slots=True)
class _Part:
    """Bytes [start, end) of a file, or all of it, which can then only be read from its beginning.

    `done` of them are written, and in `hasher`.
    """

    file: RegistryFile
    start: int
    end: int | None
    whole: bool
    done: int = 0
    hasher: _Hash = field(default_factory=hashlib.sha256)

    def restart(self) -> None:
        self.done = 0
        self.hasher = hashlib.sha256()


class Download:
    """One attempt to get the files of a version into `staging`."""

    def __init__(
        self, request: ArtifactRequest, staging: Staging, progress: Progress, resources: Resources
    ) -> None:
        self._request = request
        self._staging = staging
        self._progress = progress
        self._options = resources.options
        self._workers = resources.workers
        self._room = resources.room
        self._todo: deque[_Part] = deque()
        self._without_ranges: set[str] = set()
        self._complete: dict[str, int] = {}
        self._total = 0

    async def run(self, listing: Sequence[RegistryFile]) -> None:
        """Fetch what is missing. Cancelling, as failing, keeps the parts that are complete.

        Raises:
            RegistryError: step `fetch`.
            OSError: the disk's.
        """
        had = await self._kept(listing)
        self._todo = deque(self._missing(listing, had))
        needed = sum((part.end or 0) - part.start for part in self._todo)
        self._complete = {path: sum(end - start for start, end in had[path]) for path in had}
        self._total = sum(self._complete[f.path] if f.size is None else f.size for f in listing)
        total = None if any(file.size is None for file in listing) else self._total
        self._progress.enter(VersionState.FETCHING, self._total - needed, total)
        free = await self._workers.run(self._room.free_bytes)
        with self._room.promised(self._request.title, needed, free) as promise:
            limit = self._options.parallel_parts
            await in_parallel(self._todo, limit, lambda part: self._fetch(part, promise))

    async def _kept(self, listing: Sequence[RegistryFile]) -> dict[str, list[tuple[int, int]]]:
        """Return the intervals of each file that are here from before, and still as they were recorded."""
        kept: dict[str, list[tuple[int, int]]] = {file.path: [] for file in listing}

        async def look(part: FetchedPart) -> None:
            if await self._workers.run(self._staging.holds, part):
                kept[part.path].append((part.start, part.start + part.length))

        recorded = await self._workers.run(self._staging.resume, listing)
        await in_parallel(deque(recorded), self._options.threads, look)
        return kept

    def _missing(
        self, listing: Iterable[RegistryFile], had: Mapping[str, Sequence[tuple[int, int]]]
    ) -> Iterator[_Part]:
        for file in listing:
            if file.size is not None:
                for start, end in gaps(file.size, had[file.path], self._options.part_bytes):
                    yield _Part(file, start, end, whole=False)
            elif not had[file.path]:
                yield _Part(file, 0, None, whole=True)

    async def _fetch(self, part: _Part, promise: Promise) -> None:
        """Fetch one part, and note that it is complete."""
        path = part.file.path
        try:
            await self._persist(part, promise)
            self._check_whole(part)
        except RangeUnsupported:
            self._take_back(part, promise)
            self._read_whole(part.file, promise)
            return
        self._complete[path] += part.done
        if part.file.size is None:
            await self._workers.run(self._staging.end_file, path, part.done)
        fetched = FetchedPart(path, part.start, part.done, part.hasher.hexdigest())
        await self._workers.run(self._staging.record, fetched)

    def _read_whole(self, file: RegistryFile, promise: Promise) -> None:
        """Let a file be read from its beginning to its end; its parts that are under way give up."""
        if file.path not in self._without_ranges:
            self._without_ranges.add(file.path)
            self._count(-self._complete[file.path], promise)
            self._complete[file.path] = 0
            self._todo.append(_Part(file, 0, file.size, whole=True))

    async def _persist(self, part: _Part, promise: Promise) -> None:
        """Try until a part is complete, or has failed too often."""
        pause_s = self._options.backoff_s
        for attempt in range(1, self._options.attempts + 1):
            try:
                await self._read_on(part, promise)
                return
            except RegistryError as error:
                if not error.may_pass or attempt == self._options.attempts:
                    raise
            if part.whole:
                self._take_back(part, promise)
            await self._options.pause(pause_s)
            pause_s *= 2

    def _take_back(self, part: _Part, promise: Promise) -> None:
        self._count(-part.done, promise)
        if part.file.size is None:
            self._total -= part.done
        part.restart()

    async def _read_on(self, part: _Part, promise: Promise) -> None:
        """Read and write the rest of a part."""
        gathered: list[bytes] = []
        size = 0
        self._check_whole(part)
        async with aclosing(self._pieces(part)) as pieces:
            async for piece in pieces:
                gathered.append(piece)
                size += len(piece)
                self._check_whole(part)
                self._check_length(part, part.done + size)
                if size >= _WRITE_BYTES:
                    await self._write(part, gathered, promise)
                    gathered, size = [], 0
        await self._write(part, gathered, promise)
        if part.end is not None and part.start + part.done < part.end:
            got, wanted = part.start + part.done, part.end
            raise self._failed(part, f"ended after {got} of {wanted} bytes")

    def _check_whole(self, part: _Part) -> None:
        if part.file.path in self._without_ranges and not part.whole:
            raise RangeUnsupported

    def _check_length(self, part: _Part, length: int) -> None:
        if part.end is not None and part.start + length > part.end:
            raise self._failed(part, f"goes on after the {part.end - part.start} bytes asked for")

    async def _write(self, part: _Part, pieces: list[bytes], promise: Promise) -> None:
        if not (size := sum(map(len, pieces))):
            return
        path, offset = part.file.path, part.start + part.done
        await self._workers.run(self._staging.write, path, offset, pieces, part.hasher)
        part.done += size
        self._count(size, promise)
        if part.file.size is None:
            self._total += size
            if self._total > self._options.max_artifact_bytes:
                message = too_large(self._request.title, self._total, self._options)
                raise RegistryError("fetch", message, may_pass=False)

    def _count(self, size: int, promise: Promise) -> None:
        promise.left = max(0, promise.left - size)
        self._progress.add(size)

    async def _pieces(self, part: _Part) -> AsyncGenerator[bytes, None]:
        """Give what the registry sends of the rest of a part; it must not fall silent for long."""
        registry, version = self._request.registry, self._request.version
        stream = registry.read(version, part.file, part.start + part.done, None if part.whole else part.end)
        try:
            while piece := await self._next(part, stream):
                yield piece
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    async def _next(self, part: _Part, stream: AsyncIterator[bytes]) -> bytes:
        """Return the next piece that is not empty; an empty one at the end."""
        timeout_s = self._options.read_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                async for piece in stream:
                    if piece:
                        return piece
                return b""
        except TimeoutError as error:
            raise self._failed(part, f"sent nothing for {timeout_s:g} s") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise self._failed(part, f"could not be read: {reason}") from error

    def _failed(self, part: _Part, what: str) -> RegistryError:
        where = f"{self._request.title} in registry '{self._request.registry.name}'"
        return RegistryError("fetch", f"{shown_path(part.file.path)} of {where} {what}", may_pass=True)


def gaps(size: int, had: Iterable[tuple[int, int]], part_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the pieces of [0, size) that no interval of `had` covers, none longer than `part_bytes`."""
    at = 0
    for start, end in [*sorted(had), (size, size)]:
        while at < min(start, size):
            until = min(at + part_bytes, start, size)
            yield at, until
            at = until
        at = max(at, end)
