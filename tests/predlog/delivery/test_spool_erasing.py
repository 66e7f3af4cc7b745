"""Erased subjects in a spool: gone from its bytes, whoever has it, and everybody else's rows delivered."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gateway.predlog.rows import ColumnKind, Frame
from gateway.predlog.spool.disk import LocalSpoolDisk
from gateway.predlog.spool.erasing import without
from gateway.predlog.spool.erasures import ERASURES_FILE, ask
from gateway.predlog.spool.options import Fsync, SpoolOptions
from gateway.predlog.spool.spool import Spool
from gateway.predlog.spool.tombstones import KEEP_S, Tombstones, loaded
from gateway.predlog.wire import Codec, Producer, decode_frame, frame_of
from tests.predlog.delivery.frames import HOUR_NS, START_NS, batch

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.predlog.rows import RowBatch

ANNA, BERT = 2**63 + 5, 6
LATER_NS = START_NS + 10**9
OPTIONS = SpoolOptions(max_bytes=200_000, segment_bytes=4_000)


def mixed(*subjects: int) -> RowBatch:
    """Return a row of each subject, with a key and a category that say whose it is."""
    made = batch(len(subjects))
    names = {ANNA: b"anna", BERT: b"bert", 0: b"none"}
    words = tuple(dict.fromkeys(names[subject] for subject in subjects))
    codes = np.array([[words.index(names[subject])] for subject in subjects], np.int32)
    columns = tuple(
        replace(c, values=codes, dictionary=words) if c.kind is ColumnKind.CATEGORY else c
        for c in made.columns
    )
    keys = tuple(b"key-of-" + names[subject] for subject in subjects)
    return replace(made, keys=keys, columns=columns, subject_hashes=np.array(subjects, np.uint64))


def frame(sequence: int, *subjects: int, codec: Codec = Codec.NONE) -> Frame:
    return frame_of(mixed(*subjects), Producer("gw", 7), sequence, codec)


def opened(directory: Path) -> Spool:
    spool = Spool(directory, OPTIONS, LocalSpoolDisk())
    spool.open()
    return spool


def keys_of(frame: Frame) -> tuple[bytes, ...]:
    found = decode_frame(frame.data).batch()
    assert found is not None
    return found.keys


def read_all(spool: Spool) -> list[Frame]:
    found = []
    while (read := spool.read()) is not None:
        found.append(read[1])
        spool.release(read[0], read[1].rows)
    return found


def content(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def traces(directory: Path) -> list[bytes]:
    """Return what of a subject is in the bytes of any file: key, category, hash in any order and notation."""
    forms = [b"anna", ANNA.to_bytes(8, "little"), ANNA.to_bytes(8, "big")]
    forms += [b"%d" % ANNA, b"%x" % ANNA]
    data = content(directory)
    return [form for form in forms if form in data]


def test_a_frame_loses_the_rows_of_a_subject_and_keeps_its_length() -> None:
    """Accounts, codec and order stay; neither key nor category of the erased row is left in it."""
    erased = Tombstones()
    erased.add([ANNA], LATER_NS)
    for codec in Codec:
        sent = frame(1, BERT, ANNA, 0, codec=codec)
        kept = without(sent, erased)
        assert kept is not None
        assert (len(kept.data), kept.rows) == (len(sent.data), 3)
        found = decode_frame(kept.data)
        rows = found.batch()
        assert (found.sequence, found.codec, found.rows) == (1, codec, 2)
        assert rows is not None
        assert rows.keys == (b"key-of-bert", b"key-of-none")
        assert [c.dictionary for c in rows.columns if c.dictionary] == [(b"bert", b"none")]


@pytest.mark.parametrize("rows", [2, 3, 8, 50, 51, 52, 300])
def test_any_gap_is_filled(rows: int) -> None:
    """However many bytes one row or all but one of them took."""
    erased = Tombstones()
    erased.add([ANNA], LATER_NS)
    for subjects in ([ANNA] * (rows - 1) + [BERT], [BERT] * (rows - 1) + [ANNA]):
        sent = frame(1, *subjects)
        kept = without(sent, erased)
        assert kept is not None
        assert len(kept.data) == len(sent.data)
        assert set(keys_of(kept)) == {b"key-of-bert"}


def test_frames_without_the_subject_are_left_alone() -> None:
    """Later rows of a subject who came back, frames that nobody can read, accounting."""
    erased = Tombstones()
    assert without(frame(1, ANNA), erased) is not None
    erased.add([ANNA, 0], START_NS)
    for one in (frame(1, ANNA, 0), Frame(producer="gw", epoch=7, sequence=2, rows=3, data=b"garbage")):
        assert without(one, erased) is one


def test_a_spool_is_rewritten_when_it_is_opened(tmp_path: Path) -> None:
    """All of its segments; what is left is read, and what went is counted as unreadable."""
    spool = opened(tmp_path)
    for sequence in range(1, 31):
        spool.append(frame(sequence, *([ANNA] if sequence % 3 == 0 else [BERT, ANNA])), 0.0, 1)
    spool.close()
    assert len(list(tmp_path.glob("*.seg"))) > 3
    assert traces(tmp_path)[:2] == [b"anna", ANNA.to_bytes(8, "little")]
    before = {path.name: path.stat().st_size for path in tmp_path.glob("*.seg")}
    ask(tmp_path, frozenset({ANNA}), LATER_NS)
    spool = opened(tmp_path)
    assert traces(tmp_path) == []
    assert {path.name: path.stat().st_size for path in tmp_path.glob("*.seg")} == before
    found = read_all(spool)
    assert [f.sequence for f in found] == [s for s in range(1, 31) if s % 3]
    assert {key for f in found for key in keys_of(f)} == {b"key-of-bert"}
    assert spool.take_corrupt().earlier == 10
    assert spool.rows == (0, 0)
    spool.close()


def test_a_gateway_that_has_the_spool_rewrites_it(tmp_path: Path) -> None:
    """Frames on their way are released as ever; the segment that is written to has nothing of hers later."""
    spool = opened(tmp_path)
    first = spool.append(frame(1, BERT, ANNA), 0.0, 1, sent=True)
    spool.append(frame(2, ANNA), 0.0, 1)
    ask(tmp_path, frozenset({ANNA}), LATER_NS)
    assert traces(tmp_path)
    spool.expire(2)
    assert traces(tmp_path) == []
    spool.append(frame(3, ANNA), 0.0, 1)
    spool.append(frame(4, ANNA, 0), 0.0, 1)
    assert traces(tmp_path) == []
    assert spool.release(first, 2) == 2
    assert [(f.sequence, keys_of(f)) for f in read_all(spool)] == [(4, (b"key-of-none",))]
    assert spool.take_corrupt().own == 2
    assert spool.rows == (0, 0)
    spool.close()
    again = opened(tmp_path)
    again.append(frame(5, ANNA), 0.0, 1)
    assert traces(tmp_path) == []
    again.close()


def test_what_nobody_can_read_is_wiped_as_well(tmp_path: Path) -> None:
    """Half a record, or one whose checksum is wrong, may hold anybody."""
    spool = opened(tmp_path)
    for sequence in range(1, 4):
        spool.append(frame(sequence, BERT, ANNA), 0.0, 1)
    spool.close()
    (path,) = tmp_path.glob("*.seg")
    data = bytearray(path.read_bytes())
    data[len(data) // 3 + 100] ^= 1  # in the second record's body
    path.write_bytes(data)
    ask(tmp_path, frozenset({ANNA}), LATER_NS)
    spool = opened(tmp_path)
    assert traces(tmp_path) == []
    assert [f.sequence for f in read_all(spool)] == [1, 3]
    assert spool.take_corrupt().earlier == 2
    spool.close()


class Counting(LocalSpoolDisk):
    """Counts flushes."""

    flushed = 0

    def sync(self, descriptor: int) -> None:
        self.flushed += 1
        super().sync(descriptor)


def test_segments_that_were_begun_long_after_are_not_gone_through(tmp_path: Path) -> None:
    """An erasure is remembered for a month; what a restart reads again, once, is of its day."""
    ask(tmp_path, frozenset({ANNA}), LATER_NS)
    spool = opened(tmp_path)
    spool.append(frame(1, BERT), 0.0, LATER_NS + HOUR_NS)
    spool.close()
    for gone_through in (1, 1):
        disk = Counting()
        spool = Spool(tmp_path, replace(OPTIONS, fsync=Fsync.OFF), disk)
        spool.open()
        spool.expire(2)
        assert disk.flushed == gone_through
        spool.append(frame(2, BERT), 0.0, LATER_NS + HOUR_NS + 1)
        spool.close()


class Failing(LocalSpoolDisk):
    """Cannot flush while `failing`."""

    failing = False

    def sync(self, descriptor: int) -> None:
        if self.failing:
            raise OSError(errno.EIO, "a bad disk")
        super().sync(descriptor)


def test_an_erasure_that_failed_is_done_again(tmp_path: Path) -> None:
    """The disk fails at first; a minute later all is rewritten."""
    disk = Failing()
    spool = Spool(tmp_path, OPTIONS, disk)
    spool.open()
    for sequence in range(1, 20):
        spool.append(frame(sequence, BERT, ANNA), 0.0, 1)
    ask(tmp_path, frozenset({ANNA}), LATER_NS)
    disk.failing = True
    spool.expire(2)
    assert traces(tmp_path)
    disk.failing = False
    spool.expire(3)
    assert traces(tmp_path) == []
    spool.close()


def test_erasures_are_remembered_for_their_time_and_told_apart(tmp_path: Path) -> None:
    """Asking again keeps those before, but for what no spool can hold any more; damage is no end."""
    ask(tmp_path, frozenset({ANNA}), START_NS)
    ask(tmp_path, frozenset({BERT}), START_NS + int(KEEP_S * 1e9))
    assert len(loaded((tmp_path / ERASURES_FILE).read_bytes())) == 2
    ask(tmp_path, frozenset({BERT}), START_NS + int(KEEP_S * 1e9) + 1)
    assert len(loaded((tmp_path / ERASURES_FILE).read_bytes())) == 1
    for damage in (
        b"{}",
        b"{",
        b'{"salt":"","subjects":[],"keys":[]}',
        b'{"salt":"ab","subjects":[["ab",1,-1]],"keys":[]}',
    ):
        with pytest.raises(ValueError, match="no record of erasures"):
            loaded(damage)
        (tmp_path / ERASURES_FILE).write_bytes(damage)
        opened(tmp_path).close()
    ask(tmp_path, frozenset({ANNA}), LATER_NS)
    assert len(loaded((tmp_path / ERASURES_FILE).read_bytes())) == 1


def test_rows_and_keys_are_refused_until_they_are_forgotten() -> None:
    """Rows from before the erasure alone, also after being stored; nobody known is nobody refused."""
    erased = Tombstones()
    erased.add([ANNA, 0], 100)
    erased.add_keys([("fraud", b"key")])
    again = loaded(erased.to_bytes())
    subjects = np.array([ANNA, ANNA, ANNA + (1 << 16), BERT, 0], np.uint64)
    done_ns = np.array([100, 101, 0, 0, 0], np.int64)
    assert again.refused(subjects, done_ns).tolist() == [True, False, False, False, False]
    assert again.refuses_key("fraud", b"key")
    assert not again.refuses_key("other", b"key")
    again.forget(101)
    assert not len(again)
    assert not again.refused(subjects, done_ns).any()
    assert not again.refuses_key("fraud", b"key")
