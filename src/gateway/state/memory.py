"""A StateStore that forgets everything: for tests, and for a gateway that keeps no state."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gateway.core.state import Document, RevisionConflict, StateUnavailable
from gateway.state.journal import Entry, encode
from gateway.state.watching import Documents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class MemoryStore:
    """Documents in memory, otherwise as `JournalStore` has them.

    Attributes:
        failing: text of the StateUnavailable that writes are refused with; empty: they are not.
    """

    def __init__(self) -> None:
        self.failing = ""
        self._entries: dict[str, Entry] = {}
        self._documents = Documents()

    async def aclose(self) -> None:
        """End every watch."""
        self._documents.end()

    async def read(self, key: str) -> Document | None:
        """Return the document; None when there is none."""
        return self._documents.read(key)

    async def keys(self, prefix: str = "") -> list[str]:
        """Return the keys of all documents that begin so, sorted."""
        return self._documents.keys(prefix)

    async def write(self, key: str, value: Mapping[str, Any], revision: int) -> Document:
        """Write a document whose revision is `revision` now. Raises as `JournalStore.write`."""
        text = encode(value)
        entry = self._put(key, text, revision)
        return Document(key, entry.revision, json.loads(text))

    async def delete(self, key: str, revision: int) -> None:
        """Delete a document whose revision is `revision` now."""
        self._put(key, None, revision)

    def watch(self, prefix: str = "") -> AsyncIterator[Document]:
        """Give every document that begins so now, then each one as it is written."""
        return self._documents.watch(prefix)

    def _put(self, key: str, text: str | None, revision: int) -> Entry:
        if self.failing:
            raise StateUnavailable(self.failing)
        before = self._entries.get(key, Entry(0, None))
        current = before.revision if before.text is not None else 0
        if revision != current:
            raise RevisionConflict(f"document '{key}' has revision {current}, not {revision}")
        entry = self._entries[key] = Entry(before.revision + 1, text)
        self._documents.publish(key, entry)
        return entry
