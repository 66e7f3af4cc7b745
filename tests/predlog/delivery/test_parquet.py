"""Parquet files, in a real directory and a real object store's client."""

from __future__ import annotations

import io
import os
import random
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.predlog.lane_errors import FrameRefused
from gateway.predlog.rows import Frame
from gateway.predlog.seams import SinkUnavailable
from gateway.predlog.sinks.parquet import ParquetOptions, ParquetSink
from gateway.predlog.sinks.parquet_erasing import ERASURES, erase
from gateway.predlog.sinks.parquet_objects import ObjectStore
from gateway.predlog.sinks.parquet_retention import LEFTOVER_S, expire
from gateway.predlog.sinks.parquet_store import DirectoryStore, ParquetStore
from tests.predlog.delivery.frames import EPOCH, HOUR_NS, START_NS, frame
from tests.predlog.sink_contract import Acks, SinkContract, send_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class StoreRig:
    """A directory whose disk can be broken."""

    def __init__(self, directory: Path) -> None:
        self.store = BrokenStore(directory)
        self.made: list[ParquetSink] = []

    def sink(self) -> ParquetSink:
        self.made.append(ParquetSink(self.store, ParquetOptions(round_rows=6)))
        return self.made[-1]

    def start(self) -> None:
        self.store.broken = False

    def stop(self) -> None:
        self.store.broken = True

    def received(self) -> dict[tuple[int, int], int]:
        """Return rows by what the file names cover: each has two."""
        found: dict[tuple[int, int], int] = {}
        for path in self.store.names():
            epoch, first, last = map(int, path.rpartition("/")[2].split("-")[1:4])
            rows = read(self.store, path).num_rows
            assert rows == 2 * (last - first + 1), f"{rows} rows in {path}"
            for sequence in range(first, last + 1):
                assert (epoch, sequence) not in found, "a frame is in two files"
                found[epoch, sequence] = 2
        return found


class BrokenStore(DirectoryStore):
    broken = False

    def names(self, prefix: str = "") -> list[str]:
        if self.broken:
            raise OSError("broken")
        return super().names(prefix)

    def write(self, path: str, content: bytes) -> None:
        if self.broken:
            raise OSError("broken")
        super().write(path, content)


class TestContract(SinkContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[StoreRig]:
        made = StoreRig(tmp_path)
        yield made
        for sink in made.made:
            sink.close()

    def test_what_is_acknowledged_is_there(self, rig: Any) -> None:
        """As every sink; frames of as many rows, since files do not tell them apart."""
        acks, sink = Acks(), rig.sink()
        sink.open(acks)
        send_all(sink, range(1, 6))
        assert acks.highest == {EPOCH: 3}
        sink.close()
        assert rig.received() == {(EPOCH, s): 2 for s in range(1, 6)}
        assert acks.highest == {EPOCH: 5}


@pytest.fixture(params=["directory", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ParquetStore:
    if request.param == "directory":
        return DirectoryStore(tmp_path)
    return ObjectStore(tmp_path.as_uri(), {})


def read(store: ParquetStore, path: str) -> pa.Table:
    return pq.read_table(io.BytesIO(store.read(path)), partitioning=None)


def deliver(store: ParquetStore, frames: list[Frame], **options: float) -> Acks:
    acks = Acks()
    with closing(ParquetSink(store, ParquetOptions(**options))) as sink:  # type: ignore[arg-type]
        sink.open(acks)
        for one in frames:
            sink.send(one)
    return acks


def test_rows_are_partitioned_by_model_and_hour(store: ParquetStore) -> None:
    """Each model and hour has its folder; the columns say all that the batch did."""
    deliver(store, [frame(1), frame(2, arrived_ns=START_NS + HOUR_NS), frame(3, model="a/b=c")])
    folders = [path.rpartition("/")[0] for path in store.names()]
    assert folders == [
        "model=a%2Fb%3Dc/date=2024-10-04/hour=00",
        "model=loans/date=2024-10-04/hour=00",
        "model=loans/date=2024-10-04/hour=01",
    ]
    table = read(store, store.names()[1])
    (first, _) = table.to_pylist()
    assert first["key"] == b"key-0"
    assert first["version"] == 3
    assert first["digest"] == "sha256:ab"
    assert first["input.age"] == 0.0
    assert first["input.pair"] == [0.0, 1.0]
    assert first["input.job"] is None
    assert first["weight"] == 1.0
    assert first["arrived_ns"] == START_NS


def test_what_comes_again_after_a_crash_is_there_once(store: ParquetStore) -> None:
    """Killed when one of two files was written: all is sent again, and no row is in the files twice."""
    frames = [frame(s, arrived_ns=START_NS + (s % 2) * HOUR_NS) for s in range(1, 5)]
    deliver(store, frames)
    whole = {path: read(store, path).num_rows for path in store.names()}
    assert list(whole.values()) == [4, 4]
    store.delete(store.names()[0])
    acks = deliver(store, frames)
    assert acks.highest == {EPOCH: 4}
    assert {path: read(store, path).num_rows for path in store.names()} == whole


def test_a_round_ends_in_time_though_no_frame_comes(tmp_path: Path) -> None:
    """Frames are acknowledged after `round_s` at the latest."""
    acks = Acks()
    with closing(ParquetSink(DirectoryStore(tmp_path), ParquetOptions(round_s=0.01))) as sink:
        sink.open(acks)
        sink.send(frame(1))
        acks.wait_for(EPOCH, 1)


ANNA = 2**63 + 5
LATER_NS = START_NS + HOUR_NS


def test_subjects_are_erased(store: ParquetStore) -> None:
    """Their rows are gone from every file, others stay, and empty files are deleted."""
    deliver(store, [frame(1, subject=ANNA), frame(2, rows=3, subject=6)])
    deliver(store, [frame(1, epoch=EPOCH + 1, subject=ANNA)])
    assert erase(store, frozenset({ANNA, 99}), LATER_NS) == 4
    assert erase(store, frozenset({ANNA, 99}), LATER_NS) == 0
    (path,) = store.names()
    assert set(read(store, path)["subject_hash"].to_pylist()) == {6}


def test_rows_of_an_erased_subject_that_come_later_are_not_written(store: ParquetStore) -> None:
    """Out of a spool or a round: those from before the erasure; the frames are acknowledged all the same."""
    erase(store, frozenset({ANNA}), LATER_NS)
    sent = [frame(1, subject=ANNA), frame(2, rows=3, subject=6), frame(3, subject=ANNA, arrived_ns=LATER_NS)]
    assert deliver(store, sent[:1]).highest == {EPOCH: 1}
    assert store.names() == []
    assert deliver(store, sent).highest == {EPOCH: 3}
    found = [read(store, path) for path in store.names()]
    kept = [row for table in found for row in table.select(["subject_hash", "done_ns"]).to_pylist()]
    assert sorted(row["subject_hash"] for row in kept) == [6, 6, 6, ANNA, ANNA]
    assert all(row["done_ns"] > LATER_NS for row in kept if row["subject_hash"] == ANNA)


class Meanwhile(DirectoryStore):
    """Has a subject erased, by somebody else, just before a file is there."""

    erasing = False

    def write(self, path: str, content: bytes) -> None:
        if self.erasing and path != ERASURES:
            self.erasing = False
            assert erase(self, frozenset({ANNA}), LATER_NS) == 0
        super().write(path, content)


def test_a_file_that_is_written_during_an_erasure_is_not_missed(tmp_path: Path) -> None:
    """Its writer looks again when it is there."""
    store = Meanwhile(tmp_path)
    store.erasing = True
    assert deliver(store, [frame(1, subject=ANNA), frame(2, subject=6)]).highest == {EPOCH: 2}
    (path,) = store.names()
    assert set(read(store, path)["subject_hash"].to_pylist()) == {6}


def test_a_record_of_erasures_that_is_damaged_stops_nothing(store: ParquetStore) -> None:
    """It is begun anew by the next erasure."""
    store.write(ERASURES, b"{")
    assert deliver(store, [frame(1, subject=ANNA)]).highest == {EPOCH: 1}
    assert erase(store, frozenset({ANNA}), LATER_NS) == 2
    assert deliver(store, [frame(2, subject=ANNA)]).highest == {EPOCH: 2}
    assert store.names() == []


def half_written(directory: Path, written_s: float) -> Path:
    """Leave what a process that was killed leaves; return where."""
    path = directory / "model=loans" / ".new-gw-7-1-1-0badf00d.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PAR1 and half of somebody's rows")
    os.utime(path, (written_s, written_s))
    return path


def test_what_was_left_half_written_is_erased_whatever_is_in_it(tmp_path: Path) -> None:
    """Nobody can tell whose rows they are; they are sent again."""
    path = half_written(tmp_path, time.time())
    erase(DirectoryStore(tmp_path), frozenset({ANNA}), LATER_NS)
    assert not path.exists()


def test_what_was_left_half_written_is_deleted_after_a_day(tmp_path: Path) -> None:
    """By a clock that is moved; also where whole files are kept for ever."""
    path = half_written(tmp_path, START_NS / 1e9)
    store = DirectoryStore(tmp_path)
    assert expire(store, 0, START_NS / 1e9 + LEFTOVER_S) == 0
    assert path.exists()
    assert expire(store, 0, START_NS / 1e9 + LEFTOVER_S + 1) == 1
    assert not path.exists()


def test_retention(store: ParquetStore) -> None:
    """Files are deleted when their hour ended longer ago than allowed; files of others never."""
    deliver(store, [frame(1), frame(2, arrived_ns=START_NS + 2 * HOUR_NS)])
    store.write("model=x/notes.parquet", b"PAR1")
    start_s = START_NS / 1e9
    assert expire(store, 0, start_s + 1e9) == 0
    assert expire(store, 3_600, start_s + 2 * 3_600 - 1) == 0
    assert expire(store, 3_600, start_s + 2 * 3_600 + 1) == 1
    assert len(store.names()) == 2


def test_a_frame_that_cannot_be_decoded_goes_alone(tmp_path: Path) -> None:
    """The round goes on."""
    acks = Acks()
    with closing(ParquetSink(DirectoryStore(tmp_path), ParquetOptions())) as sink:
        sink.open(acks)
        sink.send(frame(1))
        with pytest.raises(FrameRefused):
            sink.send(
                Frame(producer="gw", epoch=EPOCH, sequence=2, rows=1, data=random.Random(1).randbytes(9))
            )
        sink.send(frame(3))
    assert acks.highest == {EPOCH: 3}


def test_a_disk_that_fails_is_unavailable(tmp_path: Path) -> None:
    """Until it is opened again, also for frames that came in between."""
    store = BrokenStore(tmp_path)
    acks = Acks()
    with closing(ParquetSink(store, ParquetOptions(round_rows=2))) as sink:
        sink.open(acks)
        store.broken = True
        for _ in range(2):
            with pytest.raises(SinkUnavailable, match="broken"):
                sink.send(frame(1))
        store.broken = False
        sink.open(acks)
        sink.send(frame(1))
    assert acks.highest == {EPOCH: 1}
    assert not list(tmp_path.rglob(".new-*"))
