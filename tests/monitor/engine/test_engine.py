"""The engine's thread: bounded inbox, calls in turn, minutes, failures said, a last checkpoint."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gateway.config.monitor_ingest import EngineSettings, PanesSettings
from gateway.monitor.engine import Engine, EngineClosed, Receipt
from gateway.monitor.engine_clock import Minutes
from gateway.monitor.panes.part import Panes
from gateway.monitor.store.errors import StoreError, StoreInUse
from gateway.monitor.values import StreamKey
from tests.monitor.engine.cores import Faulty, faulty
from tests.monitor.panes.making import START_S, Profiles, frame, profile, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = StreamKey("fraud", 3, "d" * 8)
SELDOM = EngineSettings.model_validate({"checkpoint": "10m"})


def made(path: Path, settings: EngineSettings = SELDOM, **given: Any) -> tuple[Engine, Panes]:
    """Return an engine over panes, not started."""
    panes = Panes(Profiles({"fraud": profile(2, embedding=False)}), PanesSettings())
    given.setdefault("wall", lambda: START_S + 1.0)
    return Engine([panes], path / "monitor.db", settings, **given), panes


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Engine, Panes]]:
    """A started engine."""
    engine, panes = made(tmp_path)
    engine.start()
    yield engine, panes
    engine.close()


def rows_of(panes: Panes) -> float:
    """Return the rows of all panes; on the engine's thread."""
    return panes.window(KEY, START_S - 600, START_S + 600).rows


async def test_offered_rows_are_read_by_calls(running: tuple[Engine, Panes]) -> None:
    """Frames from any thread are applied, and a later call sees them."""
    engine, panes = running
    settled: list[Receipt] = []
    done = threading.Event()

    def note(receipt: Receipt) -> None:
        settled.append(receipt)
        if len(settled) == 5:
            done.set()

    for i in range(5):
        assert engine.offer(frame(traffic(10, i, signals=2), i + 1), note)
    await asyncio.to_thread(done.wait, 10)
    assert await engine.call(lambda: rows_of(panes)) == 50
    assert await engine.call(lambda: engine.position("one", 1)) == (5, 0)
    await engine.make_durable()
    assert await engine.call(lambda: engine.position("one", 1)) == (5, 5)
    assert engine.generation >= max(receipt.generation for receipt in settled)
    status = engine.status()
    assert status.counters["rows"] == 50
    assert status.inbox_bytes == 0


async def test_what_a_call_raises_is_the_callers(running: tuple[Engine, Panes]) -> None:
    """An exception comes back; the engine goes on."""
    engine, _ = running
    with pytest.raises(ZeroDivisionError):
        await engine.call(lambda: 1 / 0)
    assert await engine.call(lambda: 7) == 7


async def test_the_inbox_is_bounded(tmp_path: Path) -> None:
    """While the engine is busy frames are taken up to the bound and no further; then there is room again."""
    engine, _ = made(tmp_path, EngineSettings.model_validate({"inbox": 1 << 20, "checkpoint": "10m"}))
    engine.start()
    entered, leave = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        leave.wait(30)

    blocked = asyncio.create_task(engine.call(block))
    await asyncio.to_thread(entered.wait, 10)
    taken = 0
    while engine.offer(frame(traffic(1000, taken, signals=2), taken + 1)):
        taken += 1
    assert 0 < engine.status().inbox_bytes <= 1 << 20
    assert engine.room < 1 << 17
    leave.set()
    await blocked
    await engine.aclose()
    assert rows_of_file(tmp_path) == 1000 * taken


def rows_of_file(path: Path) -> float:
    """Return the rows that a new engine finds in the database."""
    engine, panes = made(path)
    engine.start()
    try:
        return engine.submit(lambda: rows_of(panes)).result()
    finally:
        engine.close()


def test_closing_applies_what_waits_and_makes_it_durable(tmp_path: Path) -> None:
    """Nothing that was taken is lost by an orderly end; nothing is taken after it."""
    engine, _ = made(tmp_path)
    engine.start()
    for i in range(20):
        assert engine.offer(frame(traffic(10, i, signals=2), i + 1))
    engine.close()
    engine.close()
    assert not engine.offer(b"")
    with pytest.raises(EngineClosed):
        engine.submit(lambda: None)
    assert rows_of_file(tmp_path) == 200


def test_a_full_disk_is_said_and_made_up_for(tmp_path: Path) -> None:
    """While the database cannot be written, reading goes on, and the status says why; then all is durable."""
    connections: list[Faulty] = []

    def connector(path: str) -> sqlite3.Connection:
        connection = faulty(path)
        assert isinstance(connection, Faulty)
        connections.append(connection)
        return connection

    engine, panes = made(tmp_path, connector=connector)
    engine.start()
    engine.offer(frame(traffic(10, 1, signals=2), 1))
    engine.submit(lambda: setattr(connections[0], "fail_at", connections[0].statements + 4)).result()
    with pytest.raises(StoreError, match="disk is full"):
        engine.checkpoint()
    assert "full" in engine.status().failure
    assert engine.submit(lambda: rows_of(panes)).result() == 10
    engine.checkpoint()
    assert engine.status().failure == ""
    engine.close()
    assert rows_of_file(tmp_path) == 10


def test_another_programs_lock_is_waited_for(tmp_path: Path) -> None:
    """A lock held elsewhere fails a checkpoint and harms nothing."""
    engine, _ = made(tmp_path)
    engine.start()
    engine.offer(frame(traffic(10, 1, signals=2), 1))
    other = sqlite3.connect(tmp_path / "monitor.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="lock"):
        engine.checkpoint()
    other.execute("ROLLBACK")
    other.close()
    engine.checkpoint()
    engine.close()
    assert rows_of_file(tmp_path) == 10


def test_two_engines_do_not_share_a_file(running: tuple[Engine, Panes], tmp_path: Path) -> None:
    """The second fails at its start."""
    del running
    second, _ = made(tmp_path)
    with pytest.raises(StoreInUse):
        second.start()
    second.close()


def test_minutes_are_closed_by_the_engine(tmp_path: Path) -> None:
    """A hook is called when a minute has closed and settled; what one raises does not stop the next."""
    now_s, seen, called = [START_S + 0.0], [], threading.Event()

    def raising(_: float) -> None:
        raise ZeroDivisionError

    def hook(at_s: float) -> None:
        seen.append(at_s)
        called.set()

    engine, _ = made(tmp_path, wall=lambda: now_s[0], on_minute=[raising, hook])
    engine.start()
    engine.submit(lambda: None).result()
    now_s[0] = START_S + 81.0
    engine.submit(lambda: None).result()
    assert called.wait(10)
    engine.close()
    assert seen == [START_S + 81.0]
    assert engine.status().counters["minute_failed"] == 1


def test_minutes_and_jumps_of_the_clock() -> None:
    """Each minute is told once; a jump back begins anew, and deletes nothing for a while."""
    minutes = Minutes(20.0)
    told = [minutes.closed(START_S + t, t) for t in (0, 19, 21, 22, 79, 80, 81)]
    assert told == [False, False, True, False, False, True, False]
    assert minutes.steady(81)
    assert minutes.closed(START_S + 100_000, 82)
    assert not minutes.steady(90)
    assert not minutes.closed(START_S + 84, 84)
    assert minutes.jumps == 2
    assert minutes.closed(START_S + 141, 141)
    assert minutes.steady(84 + 600)
