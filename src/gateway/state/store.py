"""The StateStore of one machine: documents in a journal that one process at a time may use."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from gateway.core.state import Document
from gateway.state.disk import Disk, LocalDisk
from gateway.state.errors import unavailable
from gateway.state.journal import Entry, Journal, JournalOptions, encode
from gateway.state.lock import DirectoryLock
from gateway.state.watching import Documents
from gateway.state.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path
    from types import TracebackType


class JournalStore:
    """Documents in a directory; a `core.state.StateStore`.

    Reads are answered from memory, with what is on the disk. Writes follow each other in a thread. After a
    failure of the disk every write tries first to mend what was left, so the store needs no attention when
    the disk is well again. `async with` opens and closes it.
    """

    def __init__(
        self, directory: Path, options: JournalOptions | None = None, disk: Disk | None = None
    ) -> None:
        self._directory = directory
        self._disk = disk or LocalDisk()
        self._lock = DirectoryLock(directory)
        self._journal = Journal(directory, options or JournalOptions(), self._disk)
        self._worker = Worker("state-documents")
        self._documents = Documents()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Take the directory's lock and read the documents; once, before anything else.

        Raises:
            StateUnavailable: another process uses the directory, it cannot be read, or it is damaged
                (StateDamaged).
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._worker.run(self._open)
        except BaseException:
            await self.aclose()
            raise
        self._documents.replace(self._journal.entries)

    async def aclose(self) -> None:
        """End every watch, finish the writes begun and let go of the directory; harmless twice."""
        self._documents.end()
        await self._worker.aclose()
        self._journal.close()
        self._lock.release()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def read(self, key: str) -> Document | None:
        """Return the document; None when there is none. Never waits."""
        return self._documents.read(key)

    async def keys(self, prefix: str = "") -> list[str]:
        """Return the keys of all documents that begin so, sorted. Never waits."""
        return self._documents.keys(prefix)

    async def write(self, key: str, value: Mapping[str, Any], revision: int) -> Document:
        """Write a document whose revision is `revision` now (0: it must not exist); durable on return.

        Cancelling waits until a write that has begun is over; it may have been done then.

        Raises:
            RevisionConflict: it has another revision. Nothing was written.
            StateUnavailable: nothing was written; or, as OutcomeUnknown, that is not known.
            TypeError: the value is not of JSON types.
        """
        text = encode(value)
        entry = await self._worker.run(self._put, key, text, revision)
        return Document(key, entry.revision, json.loads(text))

    async def delete(self, key: str, revision: int) -> None:
        """Delete a document whose revision is `revision` now. Watchers are not told.

        Raises:
            RevisionConflict, StateUnavailable: as `write`.
        """
        await self._worker.run(self._put, key, None, revision)

    def watch(self, prefix: str = "") -> AsyncIterator[Document]:
        """Give every document that begins so now, then each one as it is written; ends when the store closes.

        A watcher more than a thousand documents behind is given the newest revision of each only.
        """
        return self._documents.watch(prefix)

    # In the thread.

    def _open(self) -> None:
        try:
            self._disk.make_directory(self._directory)
            self._lock.take()
        except OSError as error:
            raise unavailable("the documents cannot be locked", error) from error
        self._journal.open()

    def _put(self, key: str, text: str | None, revision: int) -> Entry:
        entry = self._journal.put(key, text, revision)
        assert self._loop is not None
        # Before the writer hears of it, and even if it was cancelled meanwhile.
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._documents.publish, key, entry)
        return entry
