"""A lane: frames kept until they are acknowledged, whatever sink and disk do, and every row accounted for."""

from __future__ import annotations

import errno
import random
import threading
from typing import TYPE_CHECKING

import pytest

from gateway.predlog.accounts import Accounts
from gateway.predlog.delivery import Delivery
from gateway.predlog.lane import Lane, LaneOptions, LaneStatus
from gateway.predlog.lane_errors import FrameRefused, NoCredit
from gateway.predlog.rows import Frame
from gateway.predlog.seams import SinkUnavailable
from gateway.predlog.spool.disk import LocalSpoolDisk
from tests.predlog.delivery.frames import EPOCH, accounting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE_S = 20.0


class FakeSink:
    """A sink in memory: `away` refuses to open, `breaks` says when a send fails."""

    name: str = "fake"

    def __init__(self) -> None:
        self.away = False
        self.acknowledges = True
        self.breaks: Callable[[], bool] = lambda: False
        self.rows: dict[tuple[int, int], int] = {}
        self.order: list[tuple[int, int]] = []
        self.refuses: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False
        self._acknowledged: Callable[[int, int], None] | None = None
        self._changed = threading.Condition()

    def open(self, acknowledged: Callable[[int, int], None]) -> None:
        with self._changed:
            if self.away:
                raise SinkUnavailable("nobody there")
            self._acknowledged = acknowledged
            self.order.clear()

    def send(self, frame: Frame) -> None:
        if not self.gate.wait(0.05):
            raise NoCredit("the gate is closed")
        if frame.sequence in self.refuses:
            raise FrameRefused("never")
        if self.breaks():
            raise SinkUnavailable("broken")
        with self._changed:
            key = (frame.epoch, frame.sequence)
            assert not self.order or key >= self.order[-1], "out of order"
            self.order.append(key)
            if frame.rows:
                self.rows[key] = frame.rows
            self._changed.notify_all()
        if self.acknowledges:
            assert self._acknowledged is not None
            self._acknowledged(frame.epoch, frame.sequence)

    def close(self) -> None:
        self.closed = True

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.rows) >= count, PATIENCE_S), len(self.rows)


class FullDisk(LocalSpoolDisk):
    """A disk that can be full, and unreadable."""

    full = False

    def write_at(self, descriptor: int, data: memoryview, offset: int) -> int:
        if self.full:
            if len(data) > 1:
                return super().write_at(descriptor, data[: len(data) // 2], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write_at(descriptor, data, offset)


def made(sequence: int, *, epoch: int = EPOCH, size: int = 100) -> Frame:
    return Frame(producer="gw", epoch=epoch, sequence=sequence, rows=3, model="m", data=bytes(size))


def lane(sink: FakeSink, directory: Path | None, *, epoch: int = EPOCH, memory: int = 10_000) -> Lane:
    options = LaneOptions(
        epoch=epoch, memory_bytes=memory, spool_directory=directory, backoff_s=0.001, max_backoff_s=0.002
    )
    return Lane(sink, options, Accounts().lane(sink.name))


def ended(given: Lane, grace_s: float = PATIENCE_S) -> LaneStatus:
    given.end(grace_s)
    given.join()
    status = given.status()
    assert_identity(status)
    return status


def assert_identity(status: LaneStatus) -> None:
    known = status.applied + status.memory_rows + status.spooled_rows + sum(status.dropped.values())
    assert status.put == known, status
    earlier = status.earlier_applied + status.earlier_spooled + sum(status.earlier_dropped.values())
    assert status.recovered_rows == earlier, status


def test_what_is_put_arrives() -> None:
    """In order, once, and is applied in the producer's books as well."""
    sink, accounts = FakeSink(), Accounts()
    given = Lane(sink, LaneOptions(epoch=EPOCH), accounts.lane("fake"))
    delivery = Delivery([given])
    delivery.start()
    for sequence in range(1, 101):
        delivery.put(made(sequence))
    delivery.put_to("fake", accounting(100))
    delivery.close(PATIENCE_S)
    (status,) = delivery.status()
    assert_identity(status)
    assert sink.order == [(EPOCH, s) for s in [*range(1, 101), 100]]
    assert status.applied == accounts.lane("fake").totals().applied == 300
    assert sink.closed


def test_accounting_does_not_pile_up(tmp_path: Path) -> None:
    """Its sequence was acknowledged with the frame before: no further acknowledgement comes for it."""
    sink = FakeSink()
    given = lane(sink, tmp_path)
    given.put(made(1))
    given.put(accounting(1))
    given._take_in()
    assert given._log.next() == made(1)
    given._log.settle({EPOCH: 1})
    for _ in range(5):
        given.put(accounting(1))
        given._take_in()
        assert given._log.next() == accounting(1)
        assert given._log.next() is None
    assert given.status().memory_bytes <= len(accounting(1).data)


def test_another_process_sends_what_one_left(tmp_path: Path) -> None:
    """With the sink away all goes to the spool; the next process sends that first, then its own."""
    sink = FakeSink()
    sink.away = True
    first = lane(sink, tmp_path, memory=1_000_000)
    first.start()
    for sequence in range(1, 501):
        first.put(made(sequence))
    status = ended(first, 0.0)
    assert status.spooled_rows == 1_500
    assert status.dropped == {}

    sink = FakeSink()
    second = lane(sink, tmp_path, epoch=EPOCH + 1)
    second.start()
    second.put(made(1, epoch=EPOCH + 1))
    sink.wait_for(501)
    status = ended(second)
    assert sink.order == [*((EPOCH, s) for s in range(1, 501)), (EPOCH + 1, 1)]
    assert status.recovered_rows == status.earlier_applied == 1_500
    assert status.applied == 3
    assert status.spooled_rows == status.earlier_spooled == 0


def test_what_was_not_acknowledged_is_kept(tmp_path: Path) -> None:
    """Frames sent and not acknowledged when the process ends are sent again by the next."""
    sink = FakeSink()
    sink.acknowledges = False
    first = lane(sink, tmp_path)
    first.start()
    for sequence in range(1, 11):
        first.put(made(sequence))
    sink.wait_for(10)
    assert ended(first).spooled_rows == 30
    sink = FakeSink()
    second = lane(sink, tmp_path, epoch=EPOCH + 1)
    second.start()
    sink.wait_for(10)
    assert ended(second).earlier_applied == 30


@pytest.mark.parametrize("with_spool", [False, True])
def test_a_sink_that_flaps(tmp_path: Path, with_spool: bool) -> None:
    """A connection that breaks at every fourth frame delivers all of them all the same."""
    chance = random.Random(4)
    sink = FakeSink()
    sink.breaks = lambda: chance.random() < 0.25
    given = lane(sink, tmp_path if with_spool else None, memory=1_000_000)
    given.start()
    for sequence in range(1, 401):
        given.put(made(sequence))
    sink.wait_for(400)
    sink.breaks = lambda: False
    status = ended(given)
    assert status.applied == 1_200
    assert status.opens > 10
    assert sink.rows == {(EPOCH, s): 3 for s in range(1, 401)}


def test_without_a_spool_the_newest_stay(tmp_path: Path) -> None:
    """Memory is bounded: the oldest frames never sent are dropped for want of credit, and counted."""
    sink = FakeSink()
    sink.away = True
    given = lane(sink, None)
    given.start()
    for sequence in range(1, 1_001):
        given.put(made(sequence))
    status = ended(given, 0.0)
    assert status.put == 3_000
    assert status.dropped["credit"] >= 3_000 - 2 * 3 * 100
    assert set(status.dropped) == {"credit", "shutdown"}


def test_a_slow_sink_fills_the_spool_and_not_memory(tmp_path: Path) -> None:
    """Frames that wait for credit move to the disk, also those on their way; nothing is lost."""
    sink = FakeSink()
    sink.gate.clear()
    given = lane(sink, tmp_path, memory=2_000)
    given.start()
    for sequence in range(1, 301):
        # As an encoder that is a little slower than the disk.
        given.put(made(sequence))
        if sequence % 15 == 0:
            with given._lock:
                given._take_in()
                given._keep(0.0, 1)
    assert given.status().memory_bytes <= 4_000
    sink.gate.set()
    sink.wait_for(300)
    status = ended(given)
    assert status.applied == 900
    assert sink.order == [(EPOCH, s) for s in range(1, 301)]


def test_what_a_sink_never_takes_is_dropped_alone() -> None:
    """It counts as an encoding error, and the others arrive."""
    sink = FakeSink()
    sink.refuses = {2, 3}
    given = lane(sink, None)
    given.start()
    for sequence in range(1, 6):
        given.put(made(sequence))
    sink.wait_for(3)
    status = ended(given)
    assert status.dropped == {"encode_error": 6}
    assert status.applied == 9


def test_a_full_disk_leaves_memory(tmp_path: Path) -> None:
    """Frames stay in memory, what is too much is dropped and counted, and the spool is used again later."""
    sink, disk = FakeSink(), FullDisk()
    options = LaneOptions(epoch=EPOCH, memory_bytes=1_000, spool_directory=tmp_path)
    given = Lane(sink, options, Accounts().lane("fake"), disk)
    given._keep(0.0, 1)
    disk.full = True
    for sequence in range(1, 16):
        given.put(made(sequence))
    given._take_in()
    given._keep(1.0, 1)
    status = given.status()
    assert status.spool_failed
    assert "No space" in status.last_error
    assert status.dropped == {"spool_full": 15}
    assert status.memory_rows == 30
    assert_identity(status)
    disk.full = False
    given._spool_retry_s = 2.0
    given._keep(2.0, 1)
    status = given.status()
    assert not status.spool_failed
    assert status.spooled_rows == 30
    assert_identity(status)
    given.join()


def test_a_spool_in_use_is_left_alone(tmp_path: Path) -> None:
    """A second process with the same directory delivers from memory, and says so."""
    sink = FakeSink()
    sink.away = True
    first = lane(sink, tmp_path)
    first._keep(0.0, 1)
    other = FakeSink()
    second = lane(other, tmp_path, epoch=EPOCH + 1)
    second.start()
    second.put(made(1, epoch=EPOCH + 1))
    other.wait_for(1)
    status = ended(second)
    assert status.spool_failed
    assert status.applied == 3
    first.join()


def test_a_spool_that_comes_late_goes_first_from_then_on(tmp_path: Path) -> None:
    """When the other process has gone, its frames are sent, over a new connection, before newer ones."""
    away = FakeSink()
    away.away = True
    first = lane(away, tmp_path)
    first._keep(0.0, 1)
    first.put(made(1))
    sink = FakeSink()
    second = lane(sink, tmp_path, epoch=EPOCH + 1)
    second.start()
    second.put(made(1, epoch=EPOCH + 1))
    sink.wait_for(1)
    first.join()
    second._spool_retry_s = 0.0
    second._keep_wake.set()
    sink.wait_for(2)
    status = ended(second)
    assert status.earlier_applied == 3
    assert status.applied == 3
    assert status.opens == 2


def test_nothing_is_taken_after_the_end() -> None:
    """What is put then counts as dropped by the shutdown."""
    given = lane(FakeSink(), None)
    given.start()
    given.end(PATIENCE_S)
    given.put(made(1))
    given.join()
    assert given.status().dropped == {"shutdown": 3}


def test_two_lanes_of_one_name_are_refused() -> None:
    """Their books would be one."""
    with pytest.raises(ValueError, match="same name"):
        Delivery([lane(FakeSink(), None), lane(FakeSink(), None)])
