"""Opening the monitor's database: SQLite in WAL mode, one writer, damaged files set aside."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.monitor.store.errors import StoreInUse, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

SCHEMA: Final = 1
"""Of all tables together, kept as `user_version`; a newer one is refused."""

_MODE: Final = 0o600
_DAMAGED: Final = ".damaged-"
_WAL_PAGES: Final = 4000


class Database:
    """One open database and the lock that keeps other monitors out of it. Owned by the engine's thread.

    Attributes:
        path: of the file.
        connection: in autocommit mode: transactions are begun and ended by the engine.
        set_aside: where a damaged file was moved to by `open_database`; None: it was sound.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int, set_aside: Path | None) -> None:
        self.path = path
        self.connection = connection
        self.set_aside = set_aside
        self._lock = lock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let other monitors have it; a transaction in progress is lost."""
        try:
            self.connection.close()
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1


def connect(path: str) -> sqlite3.Connection:
    """Return a connection that any one thread may use, in autocommit mode."""
    return sqlite3.connect(
        path, timeout=2.0, isolation_level=None, check_same_thread=False, cached_statements=256
    )


def open_database(
    path: Path, *, now_s: float, connector: Callable[[str], sqlite3.Connection] = connect
) -> Database:
    """Open the database, or create it, readable by its owner alone.

    A damaged file is moved to `NAME.damaged-SECONDS` and an empty one begun: gateways send again what was not
    durable, everything earlier is missing until somebody repairs the file.

    Args:
        path: of the file; its directory is created.
        now_s: wall clock, for the name of a damaged file.
        connector: opens the file; tests inject faults by it.

    Raises:
        StoreInUse: another process has it.
        StoreUnavailable: it cannot be opened or written, or a newer version wrote it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _locked(path.with_name(f"{path.name}.lock"))
    except OSError as exc:
        raise StoreUnavailable(f"the monitor's state {path} cannot be opened: {exc}") from exc
    try:
        return _opened(path, lock, now_s, connector)
    except BaseException:
        os.close(lock)
        raise


def forget_set_aside(path: Path, before_s: float) -> int:
    """Delete damaged databases that were set aside before a time (wall clock); return how many files.

    Raises:
        OSError: one cannot be deleted.
    """
    gone = 0
    for part in sorted(path.parent.glob(f"{path.name}{_DAMAGED}*")):
        at_s = part.name.removeprefix(f"{path.name}{_DAMAGED}").partition("-")[0]
        if at_s.isdigit() and int(at_s) < before_s:
            part.unlink(missing_ok=True)
            gone += 1
    return gone


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StoreInUse(
            f"another monitor uses {path.with_suffix('')}: give each its own directory"
        ) from None
    return lock


def _opened(path: Path, lock: int, now_s: float, connector: Callable[[str], sqlite3.Connection]) -> Database:
    set_aside = None
    try:
        connection = _prepared(path, connector)
    except sqlite3.DatabaseError as exc:
        if not _damaged(exc):
            raise StoreUnavailable(f"the monitor's state {path} cannot be used: {exc}") from exc
        set_aside = path.with_name(f"{path.name}{_DAMAGED}{int(now_s)}")
        for suffix in ("", "-wal", "-shm"):
            part = Path(f"{path}{suffix}")
            if part.exists():
                part.replace(f"{set_aside}{suffix}")
        connection = _prepared(path, connector)
    return Database(path, connection, lock, set_aside)


def _prepared(path: Path, connector: Callable[[str], sqlite3.Connection]) -> sqlite3.Connection:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _MODE))
    connection = connector(str(path))
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        _check(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(path: Path, connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > SCHEMA:
        raise StoreUnavailable(f"{path} was written by a newer monitor (schema {found}, known is {SCHEMA})")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")
    complaint = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if complaint != "ok":
        raise sqlite3.DatabaseError(f"malformed: {complaint}")


def _damaged(error: sqlite3.DatabaseError) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "malformed" in str(error)
