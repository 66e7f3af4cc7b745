"""The seam of the monitor: parts that take rows in and survive crashes together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import sqlite3

    from gateway.monitor.values import Applied


class Part(Protocol):
    """Owns some of the monitor's state. Every method runs on the engine's one thread.

    `apply` changes memory alone; `flush` writes what changed within the checkpoint's transaction, together
    with the producers' positions: after a crash, `restore` gives the state as of the last checkpoint, and
    what was applied after it is applied again.
    """

    name: str

    def create(self, database: sqlite3.Connection) -> None:
        """Create the part's tables where they do not exist; their names begin with the part's."""

    def restore(self, database: sqlite3.Connection) -> None:
        """Read the state of the last checkpoint; once, before the first `apply`."""

    def apply(self, applied: Applied) -> None:
        """Take rows in. Never raises for what the rows hold: what cannot be used is counted."""

    def flush(self, database: sqlite3.Connection) -> None:
        """Write what has changed since the last flush. The transaction is the caller's."""

    def expire(self, database: sqlite3.Connection, now_s: float) -> None:
        """Delete, in memory and in the database, what is older than the part's retention.

        Args:
            database: within a transaction of the caller's.
            now_s: wall clock, seconds since the epoch.
        """

    def erase(self, database: sqlite3.Connection, subject_hashes: frozenset[int]) -> int:
        """Delete every record of these subjects; return how many. Aggregates hold no record of anybody."""
