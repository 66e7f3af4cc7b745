"""The sketches of each stream's hours: the running ones in memory, all of them in the database."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from gateway.monitor.panes import sketches

if TYPE_CHECKING:
    import sqlite3

    from gateway.monitor.panes.sketches import Sketches

Place = tuple[int, int]
"""Stream and hour since the epoch."""

HELD: Final = 2
"""Hours whose sketches stay in memory."""


class SketchedHours:
    """Sketches by stream and hour, at most `memory` bytes of them in memory; beyond it hours get none.

    Attributes:
        counters: `sketches_refused`, `sketches_damaged`, `novel_dropped`.
        nbytes: about, in memory.
    """

    def __init__(self, memory: int) -> None:
        self.counters: Counter[str] = Counter()
        self.nbytes = 0
        self._memory = memory
        self._database: sqlite3.Connection
        self._held: dict[Place, Sketches] = {}
        self._dirty: set[Place] = set()
        self._flushed: set[Place] = set()
        self._newest = 0

    def create(self, database: sqlite3.Connection) -> None:
        """Create the table where it does not exist."""
        database.execute(
            "CREATE TABLE IF NOT EXISTS panes_sketches (stream INTEGER, at INTEGER, data BLOB,"
            " PRIMARY KEY (stream, at))"
        )

    def restore(self, database: sqlite3.Connection) -> None:
        """Remember where they are."""
        self._database = database

    def open(self, stream: int, hour: int, signals: int) -> Sketches | None:
        """Return the sketches of an hour to be added to; None where memory does not allow for it.

        Args:
            stream: its number.
            hour: since the epoch.
            signals: numeric ones that will be sketched.
        """
        place = stream, hour
        found = self._held.get(place)
        if found is None:
            if self.nbytes > self._memory:
                self.counters["sketches_refused"] += 1
                return None
            found = self._held[place] = self._read(place) or sketches.Sketches()
            self.nbytes += 12 * sketches.K * signals
        self._newest = max(self._newest, hour)
        self._dirty.add(place)
        return found

    def _read(self, place: Place) -> Sketches | None:
        row = self._database.execute(
            "SELECT data FROM panes_sketches WHERE stream = ? AND at = ?", place
        ).fetchone()
        return None if row is None else self._parsed(row[0])

    def _parsed(self, data: bytes) -> Sketches | None:
        try:
            return sketches.from_bytes(data)
        except ValueError:
            self.counters["sketches_damaged"] += 1
            return None

    def between(self, stream: int, first: int, end: int) -> Sketches:
        """Return the merged sketches of the hours in [first, end); yours to keep."""
        parts = (self._held.get((stream, hour)) or self._read((stream, hour)) for hour in range(first, end))
        return sketches.merged(part for part in parts if part is not None)

    def committed(self) -> None:
        """The last flush is in the database: sketches of hours that are over may go."""
        self._flushed = set()
        for place in [p for p in self._held if p not in self._dirty and p[1] <= self._newest - HELD]:
            del self._held[place]

    def flush(self, database: sqlite3.Connection) -> None:
        """Write those that have changed."""
        database.executemany(
            "INSERT OR REPLACE INTO panes_sketches VALUES (?, ?, ?)",
            [(*place, self._held[place].to_bytes()) for place in self._dirty],
        )
        self._flushed, self._dirty = self._dirty, set()
        self.nbytes = sum(held.nbytes for held in self._held.values())
        self.counters["novel_dropped"] += sum(held.dropped for held in self._held.values())
        for held in self._held.values():
            held.dropped = 0

    def rolled_back(self) -> None:
        """The last flush is not in the database."""
        self._dirty |= self._flushed
        self._flushed = set()

    def expire(self, database: sqlite3.Connection, hour: int) -> None:
        """Delete sketches before this hour."""
        database.execute("DELETE FROM panes_sketches WHERE at < ?", (hour,))
        for place in [p for p in self._held if p[1] < hour]:
            del self._held[place]
            self._dirty.discard(place)
            self._flushed.discard(place)

    def prune(self, database: sqlite3.Connection, least: float) -> None:
        """Forget the novel categories of all hours that were seen less often than this in their hour."""
        self._dirty |= {place for place, held in self._held.items() if held.prune(least)}
        stored = database.execute("SELECT stream, at, data FROM panes_sketches").fetchall()
        for stream, hour, data in stored:
            if (stream, hour) not in self._held and (parsed := self._parsed(data)) and parsed.prune(least):
                row = stream, hour, parsed.to_bytes()
                database.execute("INSERT OR REPLACE INTO panes_sketches VALUES (?, ?, ?)", row)

    def forget(self, database: sqlite3.Connection, stream: int) -> None:
        """Delete what is left of a stream."""
        database.execute("DELETE FROM panes_sketches WHERE stream = ?", (stream,))
        for place in [p for p in self._held if p[0] == stream]:
            del self._held[place]
            self._dirty.discard(place)
            self._flushed.discard(place)
