"""Documents as their readers see them, and those who watch them. Event loop only."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.core.state import Document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from gateway.state.journal import Entry

MAX_BACKLOG: Final = 1024
"""Documents kept for a watcher that does not keep up; beyond it gets each one's newest revision only."""


class Watcher:
    """One who watches."""

    def __init__(self, prefix: str, documents: list[Document]) -> None:
        self.prefix = prefix
        self._documents = deque(documents)
        self._changed = asyncio.Event()
        self._ended = False

    def give(self, document: Document) -> None:
        """Add a document."""
        if len(self._documents) >= MAX_BACKLOG:
            newest = {held.key: held for held in [*self._documents, document]}
            self._documents = deque(newest.values())
        else:
            self._documents.append(document)
        self._changed.set()

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._changed.set()

    async def next(self) -> Document | None:
        """Return the next document; None at the end."""
        while not self._documents:
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._documents.popleft()


class Documents:
    """What `StateStore.read`, `keys` and `watch` answer from."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._watchers: set[Watcher] = set()
        self._ended = False

    def replace(self, entries: Mapping[str, Entry]) -> None:
        """Begin with these."""
        self._entries = dict(entries)

    def publish(self, key: str, entry: Entry) -> None:
        """Show a write to readers and watchers; a deletion is shown to readers alone."""
        self._entries[key] = entry
        for watcher in self._watchers:
            if key.startswith(watcher.prefix) and (document := self.read(key)) is not None:
                watcher.give(document)

    def read(self, key: str) -> Document | None:
        """Return a document, its value a copy of its own."""
        entry = self._entries.get(key)
        if entry is None or entry.text is None:
            return None
        return Document(key, entry.revision, json.loads(entry.text))

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of the documents that begin so, sorted."""
        found = (key for key, entry in self._entries.items() if entry.text is not None)
        return sorted(key for key in found if key.startswith(prefix))

    async def watch(self, prefix: str) -> AsyncIterator[Document]:
        """Give every document that begins so now, then each one as it is written, until `end`."""
        now = (self.read(key) for key in self.keys(prefix))
        watcher = Watcher(prefix, [document for document in now if document is not None])
        if self._ended:
            watcher.end()
        self._watchers.add(watcher)
        try:
            while (document := await watcher.next()) is not None:
                yield document
        finally:
            self._watchers.discard(watcher)

    def end(self) -> None:
        """End every watch."""
        self._ended = True
        for watcher in self._watchers:
            watcher.end()
