"""The border between memory and disk, and between sent and not sent, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.predlog.accounts import Accounts
from gateway.predlog.lane_books import LaneBooks
from gateway.predlog.lane_log import FrameLog
from gateway.predlog.rows import Frame
from gateway.predlog.spool.disk import LocalSpoolDisk
from gateway.predlog.spool.options import SpoolOptions
from gateway.predlog.spool.spool import Spool
from tests.predlog.delivery.frames import EPOCH

if TYPE_CHECKING:
    from pathlib import Path


def made(sequence: int) -> Frame:
    return Frame(producer="gw", epoch=EPOCH, sequence=sequence, rows=1, model="m", data=bytes(400))


def logged(directory: Path, max_bytes: int = 20_000) -> tuple[FrameLog, LaneBooks]:
    books = LaneBooks(EPOCH, Accounts().lane("fake"))
    log = FrameLog(100_000, books)
    spool = Spool(directory, SpoolOptions(max_bytes=max_bytes, segment_bytes=1_000), LocalSpoolDisk())
    spool.open()
    log.attach(spool)
    return log, books


def sent(log: FrameLog) -> list[int]:
    found = []
    while (frame := log.next()) is not None:
        found.append(frame.sequence)
    return found


def test_what_may_have_been_sent_is_never_dropped_for_room(tmp_path: Path) -> None:
    """Sent, the connection lost, then moved to a disk that overflows: the monitor may have counted them."""
    log, books = logged(tmp_path)
    for sequence in range(1, 6):
        log.take(made(sequence))
    assert sent(log) == [1, 2, 3, 4, 5]
    log.rewind()
    for sequence in range(6, 201):
        log.take(made(sequence))
        log.spill(0.0, 1, everything=True)
    assert books.own_dropped["spool_full"] > 100
    again = sent(log)
    assert again[:5] == [1, 2, 3, 4, 5]
    assert again[-1] == 200
    assert len(again) + books.own_dropped["spool_full"] == 200


def test_frames_on_their_way_move_to_the_disk(tmp_path: Path) -> None:
    """They are not sent again, leave when they are acknowledged, and those behind them go on."""
    log, books = logged(tmp_path)
    for sequence in range(1, 7):
        log.take(made(sequence))
    assert [log.next(), log.next()] == [made(1), made(2)]
    log.spill(0.0, 1, everything=True)
    assert log.memory_rows == 0
    assert log.in_flight_rows == 2
    log.settle({EPOCH: 1})
    assert log.spooled() == (0, 5)
    log.take(made(7))
    assert sent(log) == [3, 4, 5, 6, 7]
    log.settle({EPOCH: 7})
    assert log.spooled() == (0, 0)
    assert books.own_applied == 7


def test_an_acknowledgement_of_what_is_still_to_be_sent_is_taken(tmp_path: Path) -> None:
    """A monitor's greeting says how far it is: so much is not sent again, on disk or in memory."""
    log, books = logged(tmp_path)
    for sequence in range(1, 5):
        log.take(made(sequence))
    log.spill(0.0, 1, everything=True)
    for sequence in range(5, 9):
        log.take(made(sequence))
    log.settle({EPOCH: 6, EPOCH - 1: 100})
    assert sent(log) == [7, 8]
    assert books.own_applied == 6


def test_a_refused_frame_on_disk_is_dropped_once(tmp_path: Path) -> None:
    """Though a lost connection makes it be read, and refused, again."""
    log, books = logged(tmp_path)
    for sequence in range(1, 4):
        log.take(made(sequence))
    log.spill(0.0, 1, everything=True)
    for _ in range(2):
        assert log.next() == made(1)
        second = log.next()
        assert second == made(2)
        log.refuse(second, "encode_error")
        log.rewind()
    assert books.own_dropped == {"encode_error": 1}
    assert sent(log) == [1, 2, 3]
    log.settle({EPOCH: 3})
    assert books.own_applied == 2
    assert log.spooled() == (0, 0)


def test_accounting_is_kept_once(tmp_path: Path) -> None:
    """The newer one says all that the older did; between two frames each stays."""
    log, _ = logged(tmp_path)
    ends = [Frame(producer="gw", epoch=EPOCH, sequence=1, rows=0, data=b"%d" % i) for i in range(3)]
    log.take(made(1))
    log.take(ends[0])
    log.take(ends[1])
    log.take(made(2))
    log.take(ends[2])
    assert sent(log) == [1, 1, 2, 1]
