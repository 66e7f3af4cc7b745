"""The audit chain on a real disk: what it records, how it is checked, and what cannot be hidden."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING

import pytest
import rfc8785

from gateway.core.state import AuditEntry, StateUnavailable
from gateway.state import AuditChain, AuditOptions, StateDamaged
from gateway.state.chain import NO_RECORD, FaultKind, Head
from gateway.state.verification import read_records, verify
from tests.state.failing_disk import FailingDisk

if TYPE_CHECKING:
    from pathlib import Path

FIRST = "audit-000000000001.jsonl"


def entry(what: str = "advance", rollout: str = "fraud", **detail: object) -> AuditEntry:
    return AuditEntry(kind="transition", what=what, who="controller", rollout=rollout, detail=detail)


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("audit-*"))


async def written(directory: Path, count: int) -> None:
    async with AuditChain(directory, AuditOptions(max_file_bytes=1500)) as chain:
        for number in range(count):
            await chain.append(entry(n=number))


async def test_records_are_chained(tmp_path: Path) -> None:
    """Each line is canonical JSON that anybody can check with SHA-256 alone."""
    async with AuditChain(tmp_path, AuditOptions(wall_s=lambda: 1_700_000_000.25)) as chain:
        await chain.append(entry(n=1), entry(n=2))
        last = await chain.append(entry(n=3))
        assert chain.head == Head(3, last.hash)
    previous = NO_RECORD
    for seq, line in enumerate((tmp_path / FIRST).read_bytes().splitlines(), 1):
        record = json.loads(line)
        assert rfc8785.dumps(record) == line
        digest = record.pop("hash")
        assert hashlib.sha256(rfc8785.dumps(record)).hexdigest() == digest
        assert (record["seq"], record["previous"], record["at"]) == (seq, previous, 1_700_000_000.25)
        previous = digest
    assert previous == last.hash
    assert verify(tmp_path).head == chain.head


async def test_a_chain_goes_on_over_files_and_restarts(tmp_path: Path) -> None:
    """Neither a new file nor a new process begins a new chain."""
    for _ in range(3):
        await written(tmp_path, 7)
    found = verify(tmp_path)
    assert found.fault is None
    assert found.head.seq == 21
    assert found.files == len(files(tmp_path)) > 3
    assert [record.seq for record in read_records(tmp_path)] == list(range(1, 22))


async def test_the_tail_is_of_one_rollout_when_named(tmp_path: Path) -> None:
    """The newest records come from memory, oldest first, also after a restart."""
    async with AuditChain(tmp_path) as chain:
        for number in range(6):
            await chain.append(entry(rollout=("a", "b")[number % 2], n=number))
        assert [record.seq for record in chain.tail(2)] == [5, 6]
    async with AuditChain(tmp_path) as chain:
        assert [record.seq for record in chain.tail(2, "a")] == [3, 5]
        assert chain.tail(5, "c") == []


async def test_what_json_cannot_hold_is_recorded_as_text(tmp_path: Path) -> None:
    """No value in an entry keeps what happened from being recorded."""
    nested: list[object] = []
    for _ in range(5000):
        nested = [nested]
    odd = {"e": float("inf"), "n": 1 << 60, "s": "\ud800", "set": {1}, "t": (1, True, None), 3: nested}
    async with AuditChain(tmp_path) as chain:
        record = await chain.append(entry(odd=odd))
        assert record.entry.detail["odd"] | {"3": ""} == {
            "e": "inf",
            "n": str(1 << 60),
            "s": "?",
            "set": "{1}",
            "t": [1, True, None],
            "3": "",
        }
        huge = await chain.append(entry(fill="x" * (1 << 20)))
        assert huge.entry.detail["left_out_bytes"] > 1 << 20
    assert verify(tmp_path).fault is None


async def test_no_changed_byte_goes_unseen(tmp_path: Path) -> None:
    """Each changed byte of a chain is a fault, at its line or the next."""
    await written(tmp_path, 3)
    path = tmp_path / FIRST
    sound = path.read_bytes()
    for at in range(0, len(sound), 2):
        broken = bytearray(sound)
        broken[at] ^= 1
        path.write_bytes(broken)
        fault = verify(tmp_path).fault
        assert fault is not None, at
        assert (fault.file, fault.line) == (path, sound.count(b"\n", 0, at) + 1)


async def change(tmp_path: Path, index: int, line: bytes | None) -> None:
    """Write 20 records, then replace or remove a line of the second file."""
    await written(tmp_path, 20)
    path = files(tmp_path)[1]
    lines = path.read_bytes().splitlines(keepends=True)
    lines[index : index + 1] = [] if line is None else [line]
    path.write_bytes(b"".join(lines))


async def test_a_missing_record_is_a_gap(tmp_path: Path) -> None:
    """The fault names the file and line, and what is missing."""
    await change(tmp_path, 1, None)
    found = verify(tmp_path)
    assert found.fault is not None
    assert found.fault.kind is FaultKind.GAP
    assert found.fault.line == 2
    assert f"record {found.head.seq + 1} is missing" in str(found.fault)


async def test_a_missing_file_is_a_gap(tmp_path: Path) -> None:
    """A file taken away whole is seen by the next one."""
    await written(tmp_path, 20)
    files(tmp_path)[1].unlink()
    fault = verify(tmp_path).fault
    assert fault is not None
    assert (fault.kind, fault.line) == (FaultKind.GAP, 1)
    assert "are missing" in fault.what


async def test_a_missing_beginning_is_a_gap(tmp_path: Path) -> None:
    """A chain begins with record 1."""
    await written(tmp_path, 20)
    (tmp_path / FIRST).unlink()
    fault = verify(tmp_path).fault
    assert fault is not None
    assert fault.kind is FaultKind.GAP


async def test_a_record_made_anew_breaks_the_link(tmp_path: Path) -> None:
    """Who changes a record and its hash too is found by the record after it."""
    await written(tmp_path, 3)
    path = tmp_path / FIRST
    lines = path.read_bytes().splitlines()
    record = json.loads(lines[0])
    record["entry"]["who"] = "somebody else"
    del record["hash"]
    record["hash"] = hashlib.sha256(rfc8785.dumps(record)).hexdigest()
    path.write_bytes(b"\n".join([rfc8785.dumps(record), *lines[1:], b""]))
    fault = verify(tmp_path).fault
    assert fault is not None
    assert (fault.kind, fault.line) == (FaultKind.BROKEN_LINK, 2)


async def test_only_a_head_kept_elsewhere_shows_a_cut(tmp_path: Path) -> None:
    """Newest records that are gone leave a sound chain, shorter than the head says."""
    await written(tmp_path, 3)
    head = verify(tmp_path).head
    assert verify(tmp_path, head).fault is None
    path = tmp_path / FIRST
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert verify(tmp_path).fault is None
    fault = verify(tmp_path, head).fault
    assert fault is not None
    assert fault.kind is FaultKind.CUT_OFF
    assert "ends with record 2; record 3 was there once" in fault.what


async def test_a_chain_made_anew_is_not_the_one_of_the_head(tmp_path: Path) -> None:
    """Another chain of the same length is told from the one that a head was taken of."""
    await written(tmp_path / "one", 3)
    await written(tmp_path / "two", 4)
    fault = verify(tmp_path / "two", verify(tmp_path / "one").head).fault
    assert fault is not None
    assert (fault.kind, fault.line) == (FaultKind.BROKEN_LINK, 3)


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
async def test_a_torn_end_is_mended_and_recorded(cut: int, tmp_path: Path) -> None:
    """An incomplete last line is a fault until the next start, which drops it and says so in a record."""
    await written(tmp_path, 2)
    path = tmp_path / FIRST
    content = path.read_bytes()
    last = len(content.splitlines()[-1])
    path.write_bytes(content[:-cut])
    fault = verify(tmp_path).fault
    assert fault is not None
    assert (fault.kind, fault.line) == (FaultKind.TORN, 2)
    async with AuditChain(tmp_path) as chain:
        newest = chain.tail(1)[0]
    if cut == 1:  # only the end of the line: the record itself is whole
        assert newest.entry.detail == {"n": 1}
    else:
        assert (newest.seq, newest.entry.what) == (2, "recovered")
        assert newest.entry.detail == {"file": FIRST, "dropped_bytes": last + 1 - cut}
    assert verify(tmp_path).fault is None


async def test_a_damaged_chain_is_not_continued(tmp_path: Path) -> None:
    """The gateway does not append to what was altered; the error says where and what to do."""
    await written(tmp_path, 3)
    path = tmp_path / FIRST
    path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":7'))
    with pytest.raises(StateDamaged, match=rf"{FIRST}:2: .*altered.*Keep the directory as evidence"):
        await AuditChain(tmp_path).open()


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """One process appends to a chain."""
    async with AuditChain(tmp_path):
        with pytest.raises(StateUnavailable, match="in use by the gateway with process id"):
            await AuditChain(tmp_path).open()


class TestWhileTheDiskIsFull:
    """A pause in which nothing is retried until the test says so."""

    def options(self, retry: asyncio.Queue[None], **more: int) -> AuditOptions:
        async def pause(_seconds: float) -> None:
            await retry.get()

        return AuditOptions(wall_s=lambda: 100.0, pause=pause, **more)

    async def test_appending_is_refused_and_changes_nothing(self, tmp_path: Path) -> None:
        """What cannot be on the disk is not in the chain, and the next entry takes its place."""
        disk = FailingDisk()
        async with AuditChain(tmp_path, disk=disk) as chain:
            await chain.append(entry(n=1))
            disk.full = True
            with pytest.raises(StateUnavailable, match=r"disk .* is full .*; nothing was changed"):
                await chain.append(entry(n=2), entry(n=3))
            assert chain.head.seq == 1
            disk.full = False
            assert (await chain.append(entry(n=4))).seq == 2
        assert [record.entry.detail["n"] for record in read_records(tmp_path)] == [1, 4]

    async def test_what_may_not_wait_is_written_late(self, tmp_path: Path) -> None:
        """An abort is kept in memory and written when the disk is well, before what comes then."""
        disk, retry = FailingDisk(), asyncio.Queue[None]()
        async with AuditChain(tmp_path, self.options(retry), disk) as chain:
            disk.full = True
            chain.append_later(entry("abort", n=1))
            await disk.refused.get()
            disk.full = False
            await chain.append(entry("boot"))
        abort, boot = read_records(tmp_path)
        assert abort.entry.detail == {"n": 1, "late": True, "happened_at": 100.0}
        assert boot.entry.what == "boot"

    async def test_it_is_tried_again_by_itself(self, tmp_path: Path) -> None:
        """Nobody has to append anything for what waits to be written."""
        disk, retry = FailingDisk(), asyncio.Queue[None]()
        async with AuditChain(tmp_path, self.options(retry), disk) as chain:
            disk.full = True
            chain.append_later(entry("abort"))
            await disk.refused.get()
            disk.full = False
            retry.put_nowait(None)
            await disk.accepted.get()
            abort = await chain.append(entry("boot"))
            assert (abort.seq, chain.tail(2)[0].entry.what) == (2, "abort")

    async def test_what_is_written_at_once_is_not_late(self, tmp_path: Path) -> None:
        """On a disk that is well an entry looks like any other."""
        async with AuditChain(tmp_path) as chain:
            chain.append_later(entry("abort", n=1))
        assert [record.entry.detail for record in read_records(tmp_path)] == [{"n": 1}]

    async def test_too_many_are_dropped_and_counted(self, tmp_path: Path) -> None:
        """Memory is bounded; the oldest are kept, and a record says how many are not there."""
        disk, retry = FailingDisk(), asyncio.Queue[None]()
        async with AuditChain(tmp_path, self.options(retry, max_waiting=3), disk) as chain:
            disk.full = True
            for number in range(2):
                chain.append_later(entry("abort", n=number))
            await disk.refused.get()
            for number in range(2, 10):
                chain.append_later(entry("abort", n=number))
            assert chain.waiting == 10
            disk.full = False
            await chain.append(entry("boot"))
            assert chain.waiting == 0
        records = list(read_records(tmp_path))
        assert [record.entry.detail.get("n") for record in records] == [0, 1, 2, None, None]
        assert records[3].entry.what == "dropped"
        assert records[3].entry.detail == {"entries": 7, "since": 100.0}

    async def test_a_cancelled_append_is_in_the_tail_if_it_is_in_the_chain(self, tmp_path: Path) -> None:
        """Memory agrees with the disk about an entry whose writer went away, and it is not written twice."""
        async with AuditChain(tmp_path) as chain:
            chain.append_later(entry("abort"))
            appending = asyncio.create_task(chain.append(entry("boot")))
            await asyncio.sleep(0)
            appending.cancel()
            await asyncio.wait([appending])
            await chain.append(entry("end"))
            seen = [record.entry.what for record in chain.tail(10)]
        assert [record.entry.what for record in read_records(tmp_path)] == seen
        assert seen.count("abort") == 1
