"""Audit entries that wait for the disk: bounded, and what does not fit is counted. Event loop only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.core.state import AuditEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class _Waiting:
    entry: AuditEntry
    since_s: float
    late: bool

    def as_entry(self) -> AuditEntry:
        if not self.late:
            return self.entry
        detail = {**self.entry.detail, "late": True, "happened_at": self.since_s}
        return replace(self.entry, detail=detail)


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries taken out to be written, and what was dropped after them."""

    waiting: Sequence[_Waiting]
    dropped: int
    dropped_since_s: float

    def __bool__(self) -> bool:
        return bool(self.waiting or self.dropped)

    def entries(self) -> Iterator[AuditEntry]:
        """Yield the entries as they are to be written; what was dropped is an entry too."""
        for one in self.waiting:
            yield one.as_entry()
        if self.dropped:
            detail = {"entries": self.dropped, "since": self.dropped_since_s}
            yield AuditEntry(kind="audit", what="dropped", who="gateway", detail=detail)


class WaitingEntries:
    """Entries in the order they came."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[_Waiting] = deque()
        self._dropped = 0
        self._dropped_since_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting) + self._dropped

    def add(self, entry: AuditEntry, now_s: float) -> None:
        """Keep an entry, or count it as dropped."""
        if len(self._waiting) < self._limit:
            self._waiting.append(_Waiting(entry, now_s, late=False))
            return
        self._dropped_since_s = self._dropped_since_s if self._dropped else now_s
        self._dropped += 1

    def take(self) -> Batch:
        """Take out everything."""
        batch = Batch(tuple(self._waiting), self._dropped, self._dropped_since_s)
        self._waiting.clear()
        self._dropped = 0
        return batch

    def put_back(self, batch: Batch) -> None:
        """Keep what could not be written, before what came since; it is late now."""
        late = [replace(one, late=True) for one in batch.waiting]
        kept = [*late, *self._waiting]
        beyond = len(kept) - self._limit
        self._waiting = deque(kept[: self._limit])
        since_s = [kept[self._limit].since_s] if beyond > 0 else []
        since_s += [self._dropped_since_s] if self._dropped else []
        since_s += [batch.dropped_since_s] if batch.dropped else []
        self._dropped += batch.dropped + max(beyond, 0)
        self._dropped_since_s = min(since_s, default=0.0)
