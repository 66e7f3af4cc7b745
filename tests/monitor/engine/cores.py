"""Engines without their thread, on databases that fail on purpose."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from gateway.config.monitor_ingest import PanesSettings
from gateway.monitor.engine_core import Core, Offered
from gateway.monitor.panes.part import Panes
from gateway.monitor.store.database import open_database
from tests.monitor.panes.making import START_S, Profiles, profile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gateway.monitor.store.database import Database


class Crash(Exception):
    """The process ended here."""


class Faulty(sqlite3.Connection):
    """Fails at one statement: `crash_at` ends the process there, `fail_at` raises what a full disk does."""

    statements = 0
    crash_at: int | None = None
    fail_at: int | None = None

    def _count(self) -> None:
        self.statements += 1
        if self.statements == self.crash_at:
            raise Crash
        if self.statements == self.fail_at:
            raise sqlite3.OperationalError("database or disk is full")

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Count, then execute."""
        self._count()
        return super().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """Count, then execute."""
        self._count()
        return super().executemany(*args)


def faulty(path: str) -> sqlite3.Connection:
    """Connect for tests."""
    connection = sqlite3.connect(path, isolation_level=None, factory=Faulty, check_same_thread=False)
    connection.execute("PRAGMA synchronous = OFF")  # the process is killed, not the machine
    return connection


class Monitor:
    """Panes and a core over a file; `restart` is what a crash and a new start do."""

    def __init__(self, path: Path, settings: PanesSettings | None = None, signals: int = 2) -> None:
        self.path = path
        self.settings = settings or PanesSettings()
        self.profiles = Profiles({"fraud": profile(signals, embedding=False)})
        self.database: Database
        self.start()

    def start(self) -> None:
        """Open and restore."""
        self.database = open_database(self.path, now_s=0, connector=faulty)
        self.panes = Panes(self.profiles, self.settings)
        self.core = Core([self.panes], self.database.connection)
        self.core.restore()

    @property
    def connection(self) -> Faulty:
        """The connection, to make it fail."""
        connection = self.database.connection
        assert isinstance(connection, Faulty)
        return connection

    def restart(self) -> None:
        """Lose all that is in memory, and come back."""
        self.database.close()
        self.start()

    def take(self, frames: Sequence[bytes], now_s: float = START_S + 1) -> None:
        """Have frames taken."""
        self.core.take([Offered(data, now_s) for data in frames])

    def close(self) -> None:
        """Let go of the file."""
        self.database.close()
