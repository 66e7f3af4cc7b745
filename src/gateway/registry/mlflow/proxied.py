"""The files of a version that an MLflow server hands out of its own artifact store."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gateway.core.registry import RangeUnsupported, RegistryError, RegistryFile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from gateway.registry.mlflow.downloads import Downloads
    from gateway.registry.mlflow.threads import BlockingCalls

_MAX_FILES: Final = 10_000
_MAX_DIRECTORIES: Final = 1_000
_MAX_PATH: Final = 1_024


class ProxiedArtifacts:
    """An ArtifactSource over an MLflow server.

    A server whose store is its own disk gives ranges. One that fetches from elsewhere, S3 say, makes a copy
    of the whole file for each request: ranges are answered too, each at the price of the file. Such a copy
    has an entity tag of its own, which gives it away, and its files are then read whole.

    Args:
        downloads: makes the requests.
        calls: threads for them.
    """

    def __init__(self, downloads: Downloads, calls: BlockingCalls) -> None:
        self._downloads = downloads
        self._calls = calls
        self._ranges: bool | None = None
        self._probing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def files(self) -> Sequence[RegistryFile]:
        """List them; as `ModelRegistry.files`."""
        found: list[RegistryFile] = []
        directories = [""]
        for directory in directories:
            listing = await self._calls.run(partial(self._downloads.listing, directory))
            for path, is_directory, size in _entries(directory, listing):
                if is_directory:
                    directories.append(path)
                else:
                    found.append(RegistryFile(path=path, size=size))
            if len(found) > _MAX_FILES or len(directories) > _MAX_DIRECTORIES:
                raise _refused(f"it has more than {_MAX_FILES} files or {_MAX_DIRECTORIES} directories")
        if not found:
            raise RegistryError(
                "fetch", f"MLflow at {self._downloads.server} has no files of it", may_pass=True
            )
        return found

    async def read(self, file: RegistryFile, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        """Give bytes of a file; as `ModelRegistry.read`."""
        stop = file.size if end is None else end
        if stop is not None and start >= stop > 0:
            return
        if start and not await self._has_ranges():
            raise RangeUnsupported
        body = await self._calls.run(partial(self._downloads.open, file, start, stop))
        try:
            while piece := await self._calls.run(body.piece):
                yield piece
        finally:
            # Beside: it waits for a read that is under way, which the caller may have given up.
            closing = asyncio.get_running_loop().create_task(self._calls.run(body.close))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _has_ranges(self) -> bool:
        """Find out once, by two requests for one byte of the smallest file."""
        async with self._probing:
            if self._ranges is None:
                sized = [file for file in await self.files() if file.size]
                smallest = min(sized, key=lambda file: file.size or 0, default=None)
                self._ranges = smallest is not None and await self._calls.run(
                    partial(self._downloads.is_steady, smallest)
                )
            return self._ranges


def _entries(directory: str, listing: Any) -> Iterator[tuple[str, bool, int | None]]:
    """Yield path, whether it is a directory, and size of each entry of a listing.

    Raises:
        RegistryError: step `fetch`; an entry is none, or its name leads elsewhere.
    """
    entries = listing.get("files", []) if isinstance(listing, dict) else None
    if not isinstance(entries, list):
        raise _refused("MLflow's list of its files is malformed")
    for entry in entries:
        name = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not _is_plain(name) or len(directory) + len(name) > _MAX_PATH:
            raise _refused(f"MLflow lists a file that no file can be: {name!a:.100}")
        path = f"{directory}/{name}" if directory else name
        yield path, entry.get("is_dir") is True, _size(entry.get("file_size"))


def _is_plain(name: str) -> bool:
    return name not in {"", ".", ".."} and "/" not in name and "\\" not in name and name.isprintable()


def _size(value: Any) -> int | None:
    # The protocol's JSON writes 64-bit integers as text.
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:18])
    return value if type(value) is int and value >= 0 else None


def _refused(message: str) -> RegistryError:
    return RegistryError("fetch", message, may_pass=False)
