"""The spool on a real disk: what is written is read, what is damaged is counted, and bounds hold."""

from __future__ import annotations

import errno
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.predlog.rows import Frame
from gateway.predlog.spool.disk import LocalSpoolDisk
from gateway.predlog.spool.epochs import EPOCH_FILE, begin_epoch
from gateway.predlog.spool.lost import LostRows
from gateway.predlog.spool.options import Fsync, SpoolOptions
from gateway.predlog.spool.record import HEADER_BYTES, decode_body, decode_header, encode_record
from gateway.predlog.spool.spool import Spool, SpoolFull
from gateway.predlog.spool.watermark import WATERMARK_FILE
from tests.properties import examples

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = SpoolOptions(max_bytes=40_000, segment_bytes=4_000)


def frame(sequence: int, rows: int = 3, size: int = 500) -> Frame:
    data = random.Random(sequence).randbytes(size)
    return Frame(producer="gw", epoch=7, sequence=sequence, rows=rows, model="m", version=2, data=data)


def opened(directory: Path, options: SpoolOptions = OPTIONS) -> Spool:
    spool = Spool(directory, options, LocalSpoolDisk())
    spool.open()
    return spool


def written(directory: Path, count: int, options: SpoolOptions = OPTIONS) -> None:
    spool = opened(directory, options)
    for sequence in range(1, count + 1):
        spool.append(frame(sequence), 0.0, 1)
    spool.close()


def read_all(spool: Spool) -> list[Frame]:
    found = []
    while (read := spool.read()) is not None:
        found.append(read[1])
        spool.release(read[0], read[1].rows)
    spool.release_read()
    return found


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def test_frames_come_back_as_they_were(tmp_path: Path) -> None:
    """Over several segments and a restart, in order, and then nothing is left but the last file."""
    written(tmp_path, 30)
    assert len(segments(tmp_path)) > 3
    spool = opened(tmp_path)
    assert spool.rows == (90, 0)
    assert read_all(spool) == [frame(s) for s in range(1, 31)]
    assert spool.rows == (0, 0)
    assert segments(tmp_path) == []
    spool.close()
    assert opened(tmp_path).read() is None


def test_what_was_released_is_not_read_again(tmp_path: Path) -> None:
    """The watermark outlives the process; without it all is there once more."""
    written(tmp_path, 10)
    spool = opened(tmp_path)
    for _ in range(5):
        read = spool.read()
        assert read is not None
        spool.release(read[0], read[1].rows)
    spool.close()
    again = opened(tmp_path)
    assert again.rows == (15, 0)
    assert read_all(again) == [frame(s) for s in range(6, 11)]
    again.close()


@pytest.mark.parametrize("damage", [b"", b"garbage", b"00000000 {}\n"])
def test_a_watermark_that_cannot_be_read_sends_more(tmp_path: Path, damage: bytes) -> None:
    """Duplicates are harmless; holes are not."""
    written(tmp_path, 4)
    (tmp_path / WATERMARK_FILE).write_bytes(damage)
    assert len(read_all(opened(tmp_path))) == 4


@pytest.mark.parametrize("cut", [1, 20, HEADER_BYTES, HEADER_BYTES + 1, 400, 569])
def test_a_torn_tail_is_cut_off(tmp_path: Path, cut: int) -> None:
    """Half a frame at the end was never written; nothing is counted, and what is there is read."""
    written(tmp_path, 3)
    (path,) = segments(tmp_path)
    whole = path.read_bytes()
    record = len(whole) // 3
    path.write_bytes(whole[: 2 * record + min(cut, record - 1)])
    spool = opened(tmp_path)
    assert path.stat().st_size == 2 * record
    assert spool.rows == (6, 0)
    assert len(read_all(spool)) == 2
    assert spool.take_corrupt() == (0, 0)


@settings(max_examples=examples(100), deadline=None)
@given(
    damages=st.lists(
        st.tuples(st.integers(0, 11), st.integers(0, 3_900), st.binary(min_size=1, max_size=900)),
        min_size=1,
        max_size=4,
    )
)
def test_damage_is_counted_in_rows(
    tmp_path_factory: pytest.TempPathFactory, damages: list[tuple[int, int, bytes]]
) -> None:
    """Whatever is overwritten wherever: what is read is right, and the rest is corrupt, row by row."""
    directory = tmp_path_factory.mktemp("spool")
    spool = opened(directory, replace(OPTIONS, fsync=Fsync.OFF))
    for sequence in range(1, 41):
        spool.append(frame(sequence, rows=sequence), 0.0, 1)
    for which, offset, data in damages:
        paths = segments(directory)
        with paths[which % len(paths)].open("r+b") as file:
            file.seek(offset)
            file.write(data[: max(0, spool_size(paths[which % len(paths)]) - offset)])
    found = read_all(spool)
    spool.close()
    expected = {s: frame(s, rows=s) for s in range(1, 41)}
    assert all(expected[f.sequence] == f for f in found)
    assert [f.sequence for f in found] == sorted({f.sequence for f in found})
    assert spool.rows == (0, 0)
    assert spool.take_corrupt() == (0, sum(range(1, 41)) - sum(f.rows for f in found))


def spool_size(path: Path) -> int:
    return path.stat().st_size


def test_a_header_with_a_false_length_loses_one_frame(tmp_path: Path) -> None:
    """Reading goes on at the next header that is sound; a frame within a frame is found too."""
    inner = encode_record(frame(50), 1_000, 1)
    spool = opened(tmp_path)
    spool.append(frame(1), 0.0, 1)
    outer = Frame(producer="gw", epoch=7, sequence=2, rows=3, model="m", data=inner)
    spool.append(outer, 0.0, 1)
    spool.append(frame(3), 0.0, 1)
    (path,) = segments(tmp_path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 3 + 30)
        file.write(b"\xff\xff")
    sequences = [f.sequence for f in read_all(spool)]
    assert 50 not in sequences
    assert sequences[-1] == 3


def test_damage_read_twice_is_counted_once(tmp_path: Path) -> None:
    """A lost connection makes the same place be read again."""
    spool = opened(tmp_path)
    for sequence in range(1, 4):
        spool.append(frame(sequence), 0.0, 1)
    (path,) = segments(tmp_path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 3 + HEADER_BYTES + 9)
        file.write(b"\xff\xff\xff")
    first = spool.read()
    assert first is not None
    for _ in range(3):
        assert spool.read() is not None
        spool.rewind(first[0].after)
    assert spool.take_corrupt() == (0, 3)
    assert spool.rows == (0, 6)


def test_beyond_its_bytes_the_oldest_unsent_segment_goes(tmp_path: Path) -> None:
    """Those sent from are kept, for the monitor may have them; the rest is counted as it goes."""
    spool = opened(tmp_path)
    dropped = 0
    for sequence in range(1, 8):
        spool.append(frame(sequence), 0.0, 1)
    read = spool.read()
    assert read is not None
    for sequence in range(8, 201):
        dropped += spool.make_room(frame(sequence)).own
        spool.append(frame(sequence), 0.0, 1)
    assert spool.size_bytes <= OPTIONS.max_bytes
    assert dropped > 300
    assert spool.rows.own == 600 - dropped
    found = [1] + [f.sequence for f in read_all(spool)]
    assert found[:6] == [1, 2, 3, 4, 5, 6]
    assert found[-1] == 200


def test_full_of_what_was_sent_takes_nothing(tmp_path: Path) -> None:
    """Then the newest has to go: the caller knows that it was never sent."""
    spool = opened(tmp_path)
    with pytest.raises(SpoolFull):
        fill(spool)
    rows = spool.rows
    assert spool.make_room(frame(1)) == (0, 0)
    assert spool.rows == rows


def fill(spool: Spool) -> None:
    for sequence in range(1, 1_000):
        spool.append(frame(sequence), 0.0, 1, sent=True)


def test_old_frames_go(tmp_path: Path) -> None:
    """By age of a segment's first frame, on the wall clock; a clock put back drops nothing."""
    options = SpoolOptions(max_bytes=40_000, segment_bytes=1_200, max_age_s=10.0)
    spool = opened(tmp_path, options)
    day_ns = 86_400 * 10**9
    for sequence in range(1, 7):
        spool.append(frame(sequence), 0.0, day_ns + sequence * 10**9)
    assert spool.expire(day_ns) == (0, 0)
    assert spool.expire(day_ns - 10**15) == (0, 0)
    assert spool.expire(day_ns + int(13.5e9)) == (0, 12)
    assert [f.sequence for f in read_all(spool)] == [5, 6]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """The second is refused, and taken when the first has gone."""
    first = opened(tmp_path)
    with pytest.raises(BlockingIOError):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link in the place of a file is an error, not a way out of the directory."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic") as caught:
        opened(tmp_path / "spool")
    assert caught.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()


class CountingDisk(LocalSpoolDisk):
    def __init__(self) -> None:
        self.syncs = 0

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        super().sync(descriptor)


@pytest.mark.parametrize(
    ("policy", "after_four", "after_a_second"), [("off", 0, 0), ("group", 1, 2), ("always", 4, 4)]
)
def test_flushing(tmp_path: Path, policy: str, after_four: int, after_a_second: int) -> None:
    """Each frame, or what comes within a second or so many bytes, or never."""
    disk = CountingDisk()
    options = SpoolOptions(fsync=Fsync(policy), group_bytes=1_500)
    spool = Spool(tmp_path, options, disk)
    spool.open()
    for sequence in range(1, 5):
        spool.append(frame(sequence), 5.0, 1)
    assert disk.syncs == after_four
    spool.sync(5.9)
    assert disk.syncs == after_four
    spool.sync(6.0)
    assert disk.syncs == after_a_second
    spool.close()


def test_a_disk_that_cannot_be_read_gives_a_segment_up(tmp_path: Path) -> None:
    """After it was tried often enough, its rows are corrupt, and the next segment is read."""
    spool = opened(tmp_path, SpoolOptions(max_bytes=40_000, segment_bytes=1_200))
    for sequence in range(1, 7):
        spool.append(frame(sequence), 0.0, 1)
    assert spool.read() is not None
    spool.skip()
    assert spool.take_corrupt() == (0, 3)
    assert [f.sequence for f in read_all(spool)] == [3, 4, 5, 6]


def test_epochs_grow_though_the_clock_goes_back(tmp_path: Path) -> None:
    """The last one is remembered; a file that holds something else is no reason to stop."""
    assert begin_epoch(tmp_path / "a", 1_000) == 1_000
    assert begin_epoch(tmp_path / "a", 500) == 1_001
    assert begin_epoch(tmp_path / "a", 2_000) == 2_000
    (tmp_path / "a" / EPOCH_FILE).write_text("nonsense")
    assert begin_epoch(tmp_path / "a", 3_000) == 3_000
    (tmp_path / "b").write_text("no directory")
    assert begin_epoch(tmp_path / "b", 7) == 7


@given(data=st.binary(max_size=200))
def test_no_bytes_pass_for_a_record(data: bytes) -> None:
    """A header needs its checksum, and so does a body."""
    record = encode_record(frame(1), 9, 1)
    header = decode_header(record)
    assert header is not None
    assert decode_body(header, record[HEADER_BYTES:]) == frame(1)
    assert decode_body(header, data) is None
    assert decode_header(data) is None
    assert decode_header(record[:4] + data) is None or data == record[4:204]


@given(gaps=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=12))
def test_lost_rows_are_told_once(gaps: list[tuple[int, int]]) -> None:
    """Whatever overlaps whatever."""
    lost, seen = LostRows(), set[int]()
    for start, length in gaps:
        new = set(range(start, start + length)) - seen
        assert lost.add(start, start + length) == len(new)
        seen |= new
    assert lost.known(0, 100) == len(seen)
