"""Positions tell new frames from old ones; the database opens, refuses, or is set aside."""

from __future__ import annotations

import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitor.store import positions as module
from gateway.monitor.store.database import forget_set_aside, open_database
from gateway.monitor.store.errors import StoreInUse, StoreUnavailable
from gateway.monitor.store.positions import Positions, Standing

if TYPE_CHECKING:
    from pathlib import Path

WEEK_S = 8 * 86_400.0


@given(st.lists(st.integers(1, 30), max_size=80))
def test_each_sequence_is_new_once(sequences: list[int]) -> None:
    """In whatever order and however often frames come, each is new the first time alone."""
    positions, seen = Positions(), set()
    for sequence in sequences:
        standing = positions.standing("a", 1, sequence, 0)
        assert standing is (Standing.AGAIN if sequence in seen else Standing.NEW)
        if standing is Standing.NEW:
            positions.mark("a", 1, sequence, 0)
            seen.add(sequence)
    assert positions.at("a", 1)[0] == max(seen, default=0)


def test_gaps_beyond_the_bound_are_given_up() -> None:
    """Of too many gaps the oldest are forgotten: a frame in one counts as sent again, never twice."""
    positions = Positions()
    for sequence in range(2, 2 * module.MAX_GAPS + 10, 2):
        positions.mark("a", 1, sequence, 0)
    assert positions.forgotten_gaps == 4
    assert positions.standing("a", 1, 1, 0) is Standing.AGAIN
    assert positions.standing("a", 1, 2 * module.MAX_GAPS + 1, 0) is Standing.NEW


def test_old_epochs_are_forgotten_for_good() -> None:
    """An epoch that was forgotten is refused, also after a restart."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    positions = Positions()
    positions.create(database)
    for epoch in range(1, module.MAX_EPOCHS + 3):
        positions.mark("a", epoch, 1, 0)
    positions.flush(database)
    positions.committed()
    again = Positions()
    again.restore(database)
    for one in (positions, again):
        assert one.standing("a", 2, 7, 0) is Standing.EPOCH
        assert one.standing("a", 3, 1, 0) is Standing.AGAIN
        assert one.standing("a", 3, 2, 0) is Standing.NEW
        assert len(one.find("a")) == module.MAX_EPOCHS
    database.close()


def test_producers_are_bounded() -> None:
    """Further producers are refused until one has been silent for a week."""
    positions = Positions()
    for i in range(module.MAX_PRODUCERS):
        positions.mark(f"p{i}", 1, 1, float(i))
    assert positions.standing("new", 1, 1, 1000.0) is Standing.PRODUCERS
    assert positions.standing("p5", 1, 2, 1000.0) is Standing.NEW
    assert positions.standing("new", 1, 1, WEEK_S) is Standing.NEW
    assert positions.find("p0") == {}


def test_positions_come_back(tmp_path: Path) -> None:
    """High, gaps and floors are as they were flushed."""
    with open_database(tmp_path / "m.db", now_s=0) as database:
        positions = Positions()
        positions.create(database.connection)
        for sequence in (1, 2, 5, 9):
            positions.mark("a", 3, sequence, 1.0)
        assert positions.at("a", 3) == (9, 0)
        positions.flush(database.connection)
        positions.committed()
        assert positions.at("a", 3) == (9, 9)
    with open_database(tmp_path / "m.db", now_s=0) as database:
        again = Positions()
        again.restore(database.connection)
        assert again.at("a", 3) == (9, 9)
        found = [again.standing("a", 3, n, 0) is Standing.NEW for n in range(1, 11)]
        assert found == [False, False, True, True, False, True, True, True, False, True]


def test_one_monitor_at_a_time(tmp_path: Path) -> None:
    """A second one is told so; when the first has gone it may come."""
    path = tmp_path / "state" / "monitor.db"
    with open_database(path, now_s=0), pytest.raises(StoreInUse, match="another monitor"):
        open_database(path, now_s=0)
    with open_database(path, now_s=0):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_damaged_files_are_kept_as_long_as_records_are(tmp_path: Path) -> None:
    """By the time in their name; what else is there stays."""
    old = ["monitor.db.damaged-1234", "monitor.db.damaged-1234-wal"]
    others = ["monitor.db", "monitor.db.damaged-5000", "monitor.db.damaged-by-hand"]
    for name in (*old, *others):
        (tmp_path / name).write_bytes(b"")
    assert forget_set_aside(tmp_path / "monitor.db", 1234) == 0
    assert forget_set_aside(tmp_path / "monitor.db", 1235) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == others


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    """A file that is no database, or was overwritten, is kept under another name; an empty one begins."""
    path = tmp_path / "monitor.db"
    path.write_bytes(b"no database at all" * 1000)
    with open_database(path, now_s=1234.5) as database:
        assert database.set_aside == tmp_path / "monitor.db.damaged-1234"
        assert database.set_aside.read_bytes().startswith(b"no database")
        database.connection.execute("CREATE TABLE t (x)")
        database.connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 200)
    data = bytearray(path.read_bytes())
    data[5000:60_000] = bytes(55_000)
    path.write_bytes(data)
    with open_database(path, now_s=99) as database:
        assert database.set_aside == tmp_path / "monitor.db.damaged-99"
    with open_database(path, now_s=100) as database:
        assert database.set_aside is None


def test_what_a_newer_monitor_wrote_is_left_alone(tmp_path: Path) -> None:
    """A newer schema is refused, not touched."""
    path = tmp_path / "monitor.db"
    with open_database(path, now_s=0) as database:
        database.connection.execute("PRAGMA user_version = 77")
    with pytest.raises(StoreUnavailable, match="newer monitor"):
        open_database(path, now_s=0)
    assert [p.name for p in tmp_path.iterdir() if "damaged" in p.name] == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """The message names the file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="state"):
        open_database(tmp_path / "file" / "monitor.db", now_s=0)
