"""Lists and reads the objects of one store through obstore: bounded in time and count, faults explained."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from obstore.exceptions import BaseError

from gateway.core.registry import RangeUnsupported, RegistryError
from gateway.registry.look import Vanished
from gateway.registry.object_faults import is_without_ranges, store_fault
from gateway.registry.stored_versions import StoredObject, printable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from obstore import GetOptions, GetResult, ObjectMeta
    from obstore.store import ObjectStore

    from gateway.core.registry import RegistryFile
    from gateway.registry.stores import ReadLimits

PIECE_BYTES: Final = 256 << 10
_PAGE: Final = 1000
"""Objects that a store lists at once."""
_SEEN_PREFIX: Final = "seen:"
"""Begins the etag that we make where the store has none."""
_FAULTS: Final = (BaseError, FileNotFoundError, PermissionError, ValueError, OSError)
"""What obstore raises."""


class ObjectReader:
    """Reads one store.

    Args:
        store: obstore's client of a bucket, container or host.
        base: every path begins there; without slashes at its ends, empty for all of the store.
        place: the store and base in words for people.
        limits: bounds.
    """

    def __init__(self, store: ObjectStore, base: str, place: str, limits: ReadLimits) -> None:
        self._store = store
        self._base = f"{base}/" if base else ""
        self._place = place
        self._limits = limits

    async def list(self, step: str, prefix: str) -> list[StoredObject]:
        """Return every object below `prefix`, with paths relative to it.

        Raises:
            RegistryError: of `step`.
        """
        found: list[StoredObject] = []
        subject = f"'{printable(prefix)}'"
        whole = self._base + prefix
        pages = self._store.list(whole, chunk_size=_PAGE)
        while True:
            async with self._explained(step, subject, self._limits.request_timeout_s):
                page = await anext(pages, None)
            if page is None:
                return found
            # An object named like the folder itself stands for the folder.
            found += [self._relative(step, whole, meta) for meta in page if meta["path"] != whole]
            if len(found) > self._limits.max_objects:
                raise RegistryError(
                    step,
                    f"{subject} holds more than {self._limits.max_objects} files at {self._place}: delete "
                    "old versions, or raise the registry's limit",
                    may_pass=True,
                )

    async def small(self, step: str, path: str, limit: int) -> bytes:
        """Return the first `limit` bytes of an object.

        Raises:
            Vanished: there is none.
            RegistryError: of `step`.
        """
        content = b""
        async with self._explained(step, f"'{printable(path)}'", self._limits.request_timeout_s):
            try:
                result = await self._store.get_async(self._base + path)
            except FileNotFoundError as error:
                raise Vanished from error
            async for piece in result.stream(limit):
                content += piece
                if len(content) >= limit:
                    break
        return content[:limit]

    async def read(
        self, path: str, file: RegistryFile, start: int, end: int | None
    ) -> AsyncGenerator[bytes, None]:
        """Give the bytes [start, end) of the object at `path`, which must still be as `file` was listed.

        Raises:
            RegistryError: step `fetch`.
            RangeUnsupported: the store gives only whole files, and `start` is not 0.
        """
        stop = file.size if end is None else end if file.size is None else min(end, file.size)
        if stop is not None and stop <= start:
            return  # also what an object that stands for a folder holds
        subject = f"'{printable(path)}'"
        result = await self._opened(path, file, start, stop)
        self._check_same(subject, file, result)
        missing = (stop if stop is not None else result.meta["size"]) - start
        pieces = result.stream(PIECE_BYTES)
        while missing > 0:
            async with self._explained("fetch", subject, self._limits.read_timeout_s):
                piece = await anext(pieces, None)
            if piece is None:
                raise RegistryError(
                    "fetch", f"{subject} ended {missing} bytes early at {self._place}", may_pass=True
                )
            yield bytes(piece[:missing])
            missing -= len(piece)

    async def _opened(self, path: str, file: RegistryFile, start: int, stop: int | None) -> GetResult:
        async with self._explained("fetch", f"'{printable(path)}'", self._limits.read_timeout_s):
            try:
                return await self._store.get_async(self._base + path, options=_options(file, start, stop))
            except BaseError as error:
                if not is_without_ranges(error):
                    raise
                if start:
                    raise RangeUnsupported from None
            return await self._store.get_async(self._base + path, options=_options(file, 0, None))

    def _check_same(self, subject: str, file: RegistryFile, result: GetResult) -> None:
        now = result.meta
        etag = now["e_tag"]
        told = etag is not None and file.etag and not file.etag.startswith(_SEEN_PREFIX)
        differs = told and _opaque(etag or "") != _opaque(file.etag)
        if differs or (file.size is not None and now["size"] != file.size):
            raise RegistryError(
                "fetch",
                f"{subject} is another file at {self._place} by now; the next look finds it",
                may_pass=True,
            )

    def _relative(self, step: str, prefix: str, meta: ObjectMeta) -> StoredObject:
        path = meta["path"]
        if not path.startswith(f"{prefix}/"):
            raise RegistryError(
                step, f"{self._place} lists what was not asked for: '{printable(path)}'", may_pass=True
            )
        modified_s = meta["last_modified"].timestamp()
        etag = meta["e_tag"] or f"{_SEEN_PREFIX}{modified_s}"
        return StoredObject(
            path=path.removeprefix(f"{prefix}/"), size=meta["size"], etag=etag, modified_s=modified_s
        )

    @asynccontextmanager
    async def _explained(self, step: str, subject: str, timeout_s: float) -> AsyncIterator[None]:
        """Bound the time of what is awaited, and turn its faults into errors of `step`."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            raise RegistryError(
                step,
                f"{subject} cannot be read: {self._place} gave nothing for {timeout_s:g} s",
                may_pass=True,
            ) from None
        except _FAULTS as error:
            # Not chained: its text may hold a signed URL.
            raise store_fault(step, self._place, subject, error) from None


def _options(file: RegistryFile, start: int, stop: int | None) -> GetOptions:
    options: GetOptions = {}
    if file.etag.startswith('"'):  # a weak one never matches, and one without quotes is none
        options["if_match"] = file.etag
    if stop is not None and (start or stop != file.size):
        options["range"] = (start, stop)
    elif start:
        options["range"] = {"offset": start}
    return options


def _opaque(etag: str) -> str:
    """Return what tells an etag from others: WebDAV servers list without the quotes that they send."""
    return etag.removeprefix("W/").strip('"')
