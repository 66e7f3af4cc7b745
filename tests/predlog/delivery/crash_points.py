"""Break a lane's log and its spool at every step of what they do, and see what became of every row.

Run as a program, `python -m tests.predlog.delivery.crash_points SEEDS`, for as many seeds as wanted: each
decides otherwise what is done, and what of the unflushed survives a loss of power.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.predlog.lane_books import LaneBooks
from gateway.predlog.lane_log import FrameLog
from gateway.predlog.rows import Frame
from gateway.predlog.spool.epochs import begin_epoch
from gateway.predlog.spool.options import Fsync, SpoolOptions
from gateway.predlog.spool.spool import Spool
from tests.predlog.delivery.spool_disk import SpoolDisk
from tests.state.simulated_disk import Fault, Killed

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = Path("/spool")
MEMORY_BYTES = 1_500
LENGTH = 45
"""Steps of a process's life."""
POLICIES = (Fsync.ALWAYS, Fsync.GROUP, Fsync.OFF)
Key = tuple[int, int]


@dataclass(frozen=True)
class Point:
    """Where and how one run is broken."""

    step: int
    fault: Fault
    power_lost: bool
    seed: int

    def __str__(self) -> str:
        power = ", then the power fails" if self.power_lost else ""
        return f"step {self.step}: {self.fault.value}{power} (seed {self.seed})"


class NoAccounts:
    """Books that nobody reads: `LaneBooks` keeps its own."""

    def applied(self, rows: int) -> None:
        pass

    def dropped(self, reason: str, rows: int) -> None:
        pass


@dataclass
class Monitor:
    """What is at the other end: every frame once, in the order of its stream."""

    rows: dict[Key, int] = field(default_factory=dict)
    last: Key = (0, 0)

    def connect(self) -> None:
        self.last = (0, 0)

    def receive(self, frame: Frame) -> None:
        key = (frame.epoch, frame.sequence)
        assert key > self.last, f"{key} after {self.last} on one connection"
        self.last = key
        self.rows[key] = frame.rows

    def durable(self, epoch: int, up_to: int) -> dict[int, int]:
        """Return as acknowledgement all of an epoch up to a sequence that was received."""
        return {epoch: max((s for e, s in self.rows if e == epoch and s <= up_to), default=0)}


class Life:
    """One process: puts, sends, spills and settles as a lane does, and keeps account beside it."""

    def __init__(self, disk: SpoolDisk, monitor: Monitor, seed: int, clock_ns: int = 1_000) -> None:
        self.disk = disk
        self.monitor = monitor
        self.put: dict[Key, int] = {}
        self.lost: dict[Key, int] = {}
        self._random = random.Random(seed)
        self.options = SpoolOptions(
            max_bytes=12_000, segment_bytes=1_500, fsync=POLICIES[seed % 3], group_bytes=1_000
        )
        self.epoch = begin_epoch(PLACE, clock_ns, disk)
        self.books = LaneBooks(self.epoch, NoAccounts())
        self.log = FrameLog(MEMORY_BYTES, self.books)
        self._sequence = 0
        self.spool: Spool | None = None
        monitor.connect()
        self.open_spool()

    def open_spool(self) -> None:
        spool = Spool(PLACE, self.options, self.disk)
        with contextlib.suppress(OSError):
            spool.open()
            self.log.rewind()
            self.monitor.connect()
            self.log.attach(spool)
            self.spool = spool

    def run(self, count: int) -> None:
        for _ in range(count):
            step = self._random.choice(
                (self._put, self._put, self._put, self._send, self._send, self._ack, self._spill, self._lose)
            )
            with contextlib.suppress(OSError):
                step()
            self.check()

    def _put(self) -> None:
        self._sequence += 1
        rows = self._random.randint(1, 9)
        data = self._random.randbytes(self._random.randint(10, 600))
        key = (self.epoch, self._sequence)
        frame = Frame(
            producer="p", epoch=self.epoch, sequence=self._sequence, rows=rows, model="m", data=data
        )
        self.put[key] = rows
        self.books.put += rows
        self.log.take(frame)
        with contextlib.suppress(OSError):
            if self.log.is_over():
                self.log.spill(0.0, 1, everything=False)
        self.log.shed()

    def _send(self) -> None:
        frame = self.log.next()
        if frame is not None:
            self.monitor.receive(frame)

    def _ack(self) -> None:
        for epoch in {e for e, _ in self.monitor.rows}:
            self.log.settle(self.monitor.durable(epoch, self._random.randint(0, 60)))
        if self.spool is not None:
            self.spool.checkpoint()

    def _spill(self) -> None:
        if self.spool is None:
            self.open_spool()
        self.log.spill(0.0, 1, everything=True)

    def _lose(self) -> None:
        self.log.rewind()
        self.monitor.connect()

    def check(self) -> None:
        spooled = self.log.spooled()
        books = self.books
        there = books.own_applied + self.log.memory_rows + spooled.own + sum(books.own_dropped.values())
        assert books.put == there, f"{books.put} rows put, {there} accounted for"
        left = books.earlier_applied + spooled.earlier + sum(books.earlier_dropped.values())
        assert books.recovered == left, f"{books.recovered} rows recovered, {left} accounted for"

    def sync_failed(self) -> bool:
        return self.spool is not None and self.spool.sync_failures > 0

    def in_memory(self) -> dict[Key, int]:
        return {(f.epoch, f.sequence): f.rows for f in self.log._memory}

    def drain(self) -> None:
        """Send and acknowledge everything."""
        if self.spool is None:
            self.open_spool()
        self.log.rewind()
        self.monitor.connect()
        while (frame := self.log.next()) is not None:
            self.monitor.receive(frame)
            self.log.settle({frame.epoch: frame.sequence})
            self.check()
        assert not self.log.in_flight_rows

    def close(self) -> None:
        self.log.rewind()
        if self.spool is not None:
            with contextlib.suppress(OSError):
                self.log.spill(0.0, 1, everything=True)
            self.spool.close()
        self.log.abandon()
        self.check()


def points(seeds: int) -> Iterator[Point]:
    """Yield every point of the runs of so many seeds."""
    for seed in range(seeds):
        steps = _steps(seed)
        for step, fault, power in itertools.product(range(1, steps + 1), Fault, (False, True)):
            yield Point(step, fault, power, seed)


def _steps(seed: int) -> int:
    disk = SpoolDisk()
    Life(disk, Monitor(), seed).run(LENGTH)
    return len(disk.steps)


def break_at(point: Point) -> None:
    """Raise AssertionError if a row is lost, counted twice or not at all."""
    disk, monitor = SpoolDisk(str(point)), Monitor()
    disk.fail(point.step, point.fault)
    life = None
    lost: dict[Key, int] = {}
    unflushed: int | None = None
    with contextlib.suppress(Killed):
        life = Life(disk, monitor, point.seed)
        life.run(LENGTH)
    if life is not None:
        lost = {key: rows for key, rows in life.in_memory().items() if key not in monitor.rows}
        if point.power_lost and (life.options.fsync is not Fsync.ALWAYS or life.sync_failed()):
            unflushed = life.log.spooled().own
    disk.crash(power_lost=point.power_lost)
    # The clock goes back, unless the epoch could not be written down: then there is nothing but the clock.
    again = Life(disk, monitor, point.seed + 1, 5 if _is_written(disk, life) else 2_000)
    assert life is None or again.epoch > life.epoch, "an epoch was used twice"
    again.run(LENGTH // 2)
    again.drain()
    again.close()
    spooled = again.log.spooled()
    assert spooled == (0, 0), f"{spooled} stay in the spool"
    _account(monitor, [life, again] if life is not None else [again], lost, unflushed)


def _is_written(disk: SpoolDisk, life: Life | None) -> bool:
    path = PLACE / "epoch"
    return life is None or (path in disk._names and disk.read(path) == b"%d\n" % life.epoch)


def _account(monitor: Monitor, lives: list[Life], lost: dict[Key, int], unflushed: int | None) -> None:
    """See that put = received + dropped + lost with a killed process's memory, each row once.

    Where the power took what was not flushed, up to so many rows may be gone besides; and what had been
    received before may be found corrupt when it is to be sent again.
    """
    put = sum(sum(life.put.values()) for life in lives)
    dropped = sum(sum(life.books.own_dropped.values()) for life in lives)
    dropped += sum(sum(life.books.earlier_dropped.values()) for life in lives)
    received = sum(monitor.rows.values())
    missing = sum(rows for key, rows in lost.items() if key not in monitor.rows)
    gone = put - received - dropped - missing
    doubtful = unflushed is not None and -received <= gone <= unflushed
    assert gone == 0 or doubtful, f"{gone=} {put=} {received=} {dropped=} {missing=} {unflushed=}"


def faults(seeds: int) -> tuple[int, list[str]]:
    """Return how many points were tried, and what went wrong at which."""
    found: list[str] = []
    tried = 0
    for point in points(seeds):
        tried += 1
        try:
            break_at(point)
        except Exception as error:  # noqa: BLE001 - any is a finding
            found.append(f"{point}: {type(error).__name__}: {error}")
    return tried, found


if __name__ == "__main__":
    count, wrong = faults(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    print(json.dumps({"points": count, "faults": wrong[:20], "wrong": len(wrong)}, indent=1))  # noqa: T201
    sys.exit(bool(wrong))
