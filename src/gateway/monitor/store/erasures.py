"""Who was erased, in the monitor's database: as durable as the deletion, as long as rows may come late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.predlog.spool.tombstones import KEEP_S, Tombstones

if TYPE_CHECKING:
    import sqlite3

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS engine_erasures (one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB NOT NULL)"
)


class Erasures:
    """Keeps `tombstones`, which parts ask and add to.

    Attributes:
        keep_s: seconds after which all rows are refused for their age, and no record of them is left.
    """

    def __init__(self, keep_s: float = KEEP_S) -> None:
        self.tombstones = Tombstones()
        self.keep_s = keep_s
        self._written = self.tombstones.revision
        self._written_before = self._written

    def create(self, database: sqlite3.Connection) -> None:
        """Create the table where it does not exist."""
        database.execute(_TABLE)

    def restore(self, database: sqlite3.Connection) -> None:
        """Read what the last checkpoint wrote."""
        row = database.execute("SELECT body FROM engine_erasures").fetchone()
        if row is not None:
            self.tombstones.load(row[0])
        self._written = self._written_before = self.tombstones.revision

    def flush(self, database: sqlite3.Connection) -> None:
        """Write them if they have changed; the transaction is the caller's."""
        self._written_before = self._written
        if self._written != self.tombstones.revision:
            body = self.tombstones.to_bytes()
            database.execute("INSERT OR REPLACE INTO engine_erasures VALUES (1, ?)", (body,))
            self._written = self.tombstones.revision

    def rolled_back(self) -> None:
        """What the last `flush` wrote is to be written again."""
        self._written = self._written_before

    def forget(self, now_s: float) -> None:
        """Forget erasures that nothing can come after any more."""
        self.tombstones.forget(int((now_s - self.keep_s) * 1e9))
