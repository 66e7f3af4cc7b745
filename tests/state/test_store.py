"""Documents in a journal on a real disk, and in memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gateway.core.state import StateUnavailable
from gateway.state import JournalOptions, JournalStore, MemoryStore, StateDamaged
from gateway.state.journal import FILE
from tests.state.store_contract import StoreContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def modes_of(directory: Path) -> set[int]:
    """Return what others than the owner may do with a directory and what is in it."""
    return {path.stat().st_mode & 0o077 for path in [directory, *directory.iterdir()]}


async def refusal(directory: Path) -> str:
    """Return what a store says that refuses damaged documents; empty if it reads what was written."""
    store = JournalStore(directory)
    try:
        await store.open()
    except StateDamaged as error:
        return str(error)
    else:
        values = [await store.read("a"), await store.read("b")]
        assert [value and value.value for value in values] == [{"n": 1}, {"n": 2}]
        return ""
    finally:
        await store.aclose()


class TestMemoryStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[MemoryStore]:
        store = MemoryStore()
        yield store
        await store.aclose()

    async def test_writes_can_be_made_to_fail(self, store: MemoryStore) -> None:
        """A test can have the store refuse writes, which then change nothing."""
        store.failing = "the disk is full"
        with pytest.raises(StateUnavailable, match="the disk is full"):
            await store.write("a", {}, 0)
        assert await store.keys() == []


class TestJournalStore(StoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[JournalStore]:
        async with JournalStore(tmp_path / "state") as store:
            yield store

    async def test_it_is_there_after_a_restart(self, tmp_path: Path) -> None:
        """Documents and the revisions of deleted ones survive closing."""
        async with JournalStore(tmp_path / "deep" / "state") as store:
            await store.write("a", {"n": 1}, 0)
            await store.write("b", {}, 0)
            await store.delete("b", 1)
        async with JournalStore(tmp_path / "deep" / "state") as store:
            document = await store.read("a")
            assert document is not None
            assert (document.revision, document.value) == (1, {"n": 1})
            assert (await store.write("b", {}, 0)).revision == 3

    async def test_it_is_private(self, tmp_path: Path) -> None:
        """Nobody else may read the state."""
        async with JournalStore(tmp_path / "state"):
            modes = modes_of(tmp_path / "state")
        assert modes == {0}

    async def test_a_second_process_is_refused(self, tmp_path: Path) -> None:
        """The error names the process that uses the directory; afterwards it is free."""
        second = (
            "import asyncio, pathlib, sys\n"
            "from gateway.state import JournalStore\n"
            "asyncio.run(JournalStore(pathlib.Path(sys.argv[1])).open())\n"
        )
        command = [sys.executable, "-c", second, str(tmp_path)]
        async with JournalStore(tmp_path):
            with pytest.raises(
                StateUnavailable, match=f"in use by the gateway with process id {os.getpid()};"
            ):
                await JournalStore(tmp_path).open()
            refused = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, check=False
            )
        assert f"in use by the gateway with process id {os.getpid()};" in refused.stderr
        async with JournalStore(tmp_path):
            pass

    @pytest.mark.parametrize("left", range(1, 60))
    async def test_a_torn_end_is_dropped(
        self, left: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Of a write that a crash cut off nothing is left, and a warning says how much was dropped."""
        async with JournalStore(tmp_path) as store:
            await store.write("a", {"n": 1}, 0)
            size = (tmp_path / FILE).stat().st_size
            await store.write("a", {"n": 2}, 1)
        os.truncate(tmp_path / FILE, size + left)
        async with JournalStore(tmp_path) as store:
            document = await store.read("a")
            assert document is not None
            if document.revision == 1:
                assert f"an incomplete write of {left} bytes" in caplog.text
            assert (await store.write("a", {"n": 3}, document.revision)).revision == document.revision + 1
        async with JournalStore(tmp_path) as store:
            assert await store.keys() == ["a"]

    async def test_blocks_that_never_reached_the_disk_are_a_torn_end(self, tmp_path: Path) -> None:
        """A last line with a hole in it is dropped, even if its own end is there."""
        async with JournalStore(tmp_path) as store:
            await store.write("a", {"n": 1}, 0)
            await store.write("a", {"fill": "x" * 3000}, 1)
        content = bytearray((tmp_path / FILE).read_bytes())
        content[1024:1536] = bytes(512)
        (tmp_path / FILE).write_bytes(content)
        async with JournalStore(tmp_path) as store:
            document = await store.read("a")
            assert document is not None
            assert document.revision == 1

    async def test_no_flipped_bit_is_lost_in_silence(self, tmp_path: Path) -> None:
        """Each single changed bit is refused with its place, or does not matter."""
        path = tmp_path / FILE
        async with JournalStore(tmp_path) as store:
            await store.write("a", {"n": 1}, 0)
            await store.write("b", {"n": 2}, 0)
        sound = path.read_bytes()
        refused = 0
        for bit in range(0, 8 * len(sound), 3):
            broken = bytearray(sound)
            broken[bit // 8] ^= 1 << bit % 8
            path.write_bytes(broken)
            if said := await refusal(tmp_path):
                assert "damaged at byte" in said
                assert path.read_bytes() == broken
                refused += 1
        assert refused >= 8 * len(sound) / 3 - 8

    async def test_damage_in_the_middle_names_its_place(self, tmp_path: Path) -> None:
        """The error says where, and what to do."""
        async with JournalStore(tmp_path) as store:
            await store.write("a", {"n": 1}, 0)
            size = (tmp_path / FILE).stat().st_size
            await store.write("a", {"n": 2}, 1)
            await store.write("a", {"n": 3}, 2)
        content = (tmp_path / FILE).read_bytes().replace(b'"n":2', b'"n":7')
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(
            StateDamaged, match=f"damaged at byte {size}: the line's checksum.*Put back a copy"
        ):
            await JournalStore(tmp_path).open()

    async def test_something_else_is_left_alone(self, tmp_path: Path) -> None:
        """A file that is none of ours is refused."""
        (tmp_path / FILE).write_text("dear diary\n")
        with pytest.raises(StateDamaged, match="does not begin as"):
            await JournalStore(tmp_path).open()
        assert (tmp_path / FILE).read_text() == "dear diary\n"

    async def test_the_file_stays_small(self, tmp_path: Path) -> None:
        """A document that is written over and over takes no more room for it."""
        async with JournalStore(tmp_path, JournalOptions(compact_bytes=4000)) as store:
            for revision in range(200):
                await store.write("a", {"fill": "x" * 200}, revision)
                assert (tmp_path / FILE).stat().st_size < 4400
        async with JournalStore(tmp_path) as store:
            document = await store.read("a")
            assert document is not None
            assert document.revision == 200

    async def test_documents_are_bounded(self, tmp_path: Path) -> None:
        """What would be too large is refused and changes nothing; replacing a document still works."""
        async with JournalStore(tmp_path, JournalOptions(max_bytes=3000)) as store:
            await store.write("a", {"fill": "x" * 2000}, 0)
            with pytest.raises(StateUnavailable, match="more than 3000; nothing was changed"):
                await store.write("b", {"fill": "x" * 2000}, 0)
            with pytest.raises(StateUnavailable, match="more than 1048576; nothing was changed"):
                await store.write("b", {"fill": "x" * (1 << 20)}, 0)
            await store.write("a", {"fill": "y" * 2000}, 1)
            assert await store.keys() == ["a"]

    async def test_a_closed_store_refuses(self, tmp_path: Path) -> None:
        """After closing, a write says so."""
        async with JournalStore(tmp_path) as store:
            pass
        with pytest.raises(StateUnavailable, match="closed"):
            await store.write("a", {}, 0)

    async def test_a_cancelled_write_is_seen_whole_or_not_at_all(self, tmp_path: Path) -> None:
        """Readers agree with the disk about a write whose writer went away."""
        async with JournalStore(tmp_path) as store:
            writing = asyncio.create_task(store.write("a", {}, 0))
            await asyncio.sleep(0)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            await store.write("b", {}, 0)
            seen = await store.keys()
        async with JournalStore(tmp_path) as store:
            assert await store.keys() == seen
