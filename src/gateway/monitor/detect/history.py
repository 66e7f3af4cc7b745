"""The scores that were given, for pages: the newest of every stream and window, and those a window apart."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import orjson

from gateway.monitor.detect.table import from_bytes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from gateway.monitor.detect.table import ScoreTable
    from gateway.monitor.values import StreamKey

MAX_BYTES: Final = 128 << 20
"""Of tables in memory; the oldest of the shortest windows make room. The database keeps them all the same."""

_Place = tuple["StreamKey", str]


class History:
    """Owns tables of scores.

    Attributes:
        evicted: tables that made room in memory.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.evicted = 0
        self._max_bytes = max_bytes
        self._bytes = 0
        self._newest: dict[_Place, ScoreTable] = {}
        self._kept: OrderedDict[tuple[StreamKey, str, float], ScoreTable] = OrderedDict()
        self._unwritten: list[ScoreTable] = []
        self._written: list[ScoreTable] = []

    def add(self, table: ScoreTable, *, keep: bool) -> None:
        """Take a table; `keep`: it ends where the next that does not overlap begins."""
        self._newest[table.key, table.window] = table
        if keep:
            self._keep(table)
            self._unwritten.append(table)

    def newest(self, model: str | None = None) -> Iterator[ScoreTable]:
        """Give the last table of every stream and window."""
        return (t for t in self._newest.values() if model in (None, t.key.model))

    def tables(
        self, model: str, window: str | None = None, since_s: float = 0.0, until_s: float = float("inf")
    ) -> Iterator[ScoreTable]:
        """Give kept tables by time, and the newest after them."""
        shown = set()
        for (key, name, end_s), table in self._kept.items():
            if key.model == model and window in (None, name) and since_s < end_s <= until_s:
                shown.add(id(table))
                yield table
        for table in self.newest(model):
            if window in (None, table.window) and since_s < table.end_s <= until_s and id(table) not in shown:
                yield table

    def create(self, database: sqlite3.Connection) -> None:
        """Create the table."""
        database.execute(
            "CREATE TABLE IF NOT EXISTS detection_scores (stream TEXT NOT NULL, window TEXT NOT NULL, "
            "end_s REAL NOT NULL, body BLOB NOT NULL, PRIMARY KEY (stream, window, end_s)) WITHOUT ROWID"
        )
        database.execute("CREATE INDEX IF NOT EXISTS detection_scores_end ON detection_scores (end_s)")

    def restore(self, database: sqlite3.Connection) -> None:
        """Read the newest tables, as many as memory is meant for."""
        rows = database.execute("SELECT body FROM detection_scores ORDER BY end_s DESC")
        found = []
        size = 0
        for (body,) in rows:
            table = from_bytes(body)
            size += table.nbytes
            if size > self._max_bytes:
                break
            found.append(table)
        for table in reversed(found):
            self.add(table, keep=True)
        self._unwritten.clear()

    def flush(self, database: sqlite3.Connection) -> None:
        """Write what was kept since the last flush."""
        database.executemany(
            "INSERT OR REPLACE INTO detection_scores VALUES (?, ?, ?, ?)",
            [(_stream(t.key), t.window, t.end_s, t.to_bytes()) for t in self._unwritten],
        )
        self._written, self._unwritten = self._unwritten, []

    def rolled_back(self) -> None:
        """What the last `flush` wrote is to be written again, as far as it is still held."""
        again = [t for t in self._written if self._kept.get((t.key, t.window, t.end_s)) is t]
        self._written, self._unwritten = [], again + self._unwritten

    def expire(self, database: sqlite3.Connection, before_s: float) -> None:
        """Forget windows that ended before."""
        for place in [p for p in self._kept if p[2] < before_s]:
            self._bytes -= self._kept.pop(place).nbytes
        for newest in [p for p, t in self._newest.items() if t.end_s < before_s]:
            del self._newest[newest]
        database.execute("DELETE FROM detection_scores WHERE end_s < ?", (before_s,))

    def _keep(self, table: ScoreTable) -> None:
        place = (table.key, table.window, table.end_s)
        before = self._kept.pop(place, None)
        self._bytes += table.nbytes - (before.nbytes if before else 0)
        self._kept[place] = table
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.nbytes
            self.evicted += 1


def _stream(key: StreamKey) -> str:
    return orjson.dumps(list(key)).decode()
