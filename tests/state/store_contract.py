"""What every StateStore does; each kind of store subclasses this with a fixture `store`."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from gateway.core.state import RevisionConflict

if TYPE_CHECKING:
    from gateway.state import JournalStore, MemoryStore


class StoreContract:
    async def test_a_document_is_read_as_it_was_written(self, store: JournalStore | MemoryStore) -> None:
        """Values come back as JSON has them, whatever mapping they were."""
        value = {
            "weight_ppm": 10_000,
            "e": 1.5,
            "big": 1 << 70,
            "inf": float("inf"),
            "name": "a\n\x00ü\ud800",
        }
        document = await store.write("rollouts/a", MappingProxyType({**value, "tuple": (1, None)}), 0)
        assert document.revision == 1
        assert document.value == {**value, "tuple": [1, None]}
        assert await store.read("rollouts/a") == document

    async def test_there_is_no_document_before_it_is_written(self, store: JournalStore | MemoryStore) -> None:
        """A key never written reads as None."""
        assert await store.read("rollouts/a") is None
        assert await store.keys() == []

    async def test_revisions_ascend_by_key(self, store: JournalStore | MemoryStore) -> None:
        """Each key counts its own writes."""
        await store.write("a", {}, 0)
        assert (await store.write("a", {"n": 2}, 1)).revision == 2
        assert (await store.write("b", {}, 0)).revision == 1

    @pytest.mark.parametrize("revision", [0, 1, 3])
    async def test_another_revision_is_refused(
        self, revision: int, store: JournalStore | MemoryStore
    ) -> None:
        """A writer who has not read the newest revision changes nothing."""
        await store.write("a", {"n": 1}, 0)
        await store.write("a", {"n": 2}, 1)
        with pytest.raises(RevisionConflict, match=f"'a' has revision 2, not {revision}"):
            await store.write("a", {"n": 3}, revision)
        document = await store.read("a")
        assert document is not None
        assert document.value == {"n": 2}

    async def test_one_of_many_writers_wins(self, store: JournalStore | MemoryStore) -> None:
        """Of writers who have read the same revision exactly one writes."""
        writes = (store.write("a", {"writer": n}, 0) for n in range(20))
        done = await asyncio.gather(*writes, return_exceptions=True)
        assert sum(isinstance(result, RevisionConflict) for result in done) == 19

    async def test_a_deleted_documents_revisions_are_not_used_again(
        self, store: JournalStore | MemoryStore
    ) -> None:
        """A key that is written anew goes on where it was."""
        await store.write("a", {}, 0)
        await store.delete("a", 1)
        assert await store.read("a") is None
        assert await store.keys() == []
        with pytest.raises(RevisionConflict):
            await store.write("a", {}, 1)
        assert (await store.write("a", {}, 0)).revision == 3

    async def test_keys_are_those_that_begin_so(self, store: JournalStore | MemoryStore) -> None:
        """Keys are sorted and chosen by their beginning."""
        for key in ("rollouts/b", "other", "rollouts/a"):
            await store.write(key, {}, 0)
        assert await store.keys("rollouts/") == ["rollouts/a", "rollouts/b"]
        assert await store.keys() == ["other", "rollouts/a", "rollouts/b"]

    async def test_changing_what_was_read_changes_nothing(self, store: JournalStore | MemoryStore) -> None:
        """A document's value belongs to who reads it."""
        document = await store.write("a", {"list": [1]}, 0)
        document.value["list"].append(2)
        again = await store.read("a")
        assert again is not None
        assert again.value == {"list": [1]}

    async def test_something_else_than_json_is_refused(self, store: JournalStore | MemoryStore) -> None:
        """A value that JSON has no word for is the caller's mistake."""
        with pytest.raises(TypeError, match="cannot hold a set"):
            await store.write("a", {"set": {1}}, 0)
        assert await store.read("a") is None

    async def test_a_watcher_gets_what_is_there_and_then_each_write(
        self, store: JournalStore | MemoryStore
    ) -> None:
        """Every revision comes, in order, of the keys watched."""
        await store.write("rollouts/a", {"n": 1}, 0)
        async with aclosing(store.watch("rollouts/")) as watch:  # type: ignore[type-var]
            assert (await anext(watch)).revision == 1
            await store.write("other", {}, 0)
            await store.write("rollouts/a", {"n": 2}, 1)
            await store.delete("rollouts/a", 2)
            await store.write("rollouts/a", {"n": 4}, 0)
            seen = [await anext(watch), await anext(watch)]
        assert [(document.key, document.revision) for document in seen] == [
            ("rollouts/a", 2),
            ("rollouts/a", 4),
        ]

    async def test_a_watcher_far_behind_gets_the_newest_of_each(
        self, store: JournalStore | MemoryStore
    ) -> None:
        """What is kept for a watcher is bounded; the newest revision always comes."""
        await store.write("a", {}, 0)
        async with aclosing(store.watch()) as watch:  # type: ignore[type-var]
            await anext(watch)
            for revision in range(1, 1100):
                await store.write("a", {}, revision)
            seen = [await anext(watch)]
            while seen[-1].revision < 1100:
                seen.append(await anext(watch))
        assert len(seen) < 1024
        assert sorted({document.revision for document in seen}) == [document.revision for document in seen]

    async def test_closing_ends_a_watch(self, store: JournalStore | MemoryStore) -> None:
        """Who watches is told that there is no more."""
        await store.write("a", {}, 0)

        async def watch() -> list[str]:
            return [document.key async for document in store.watch()]

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await store.aclose()
        assert await watching == ["a"]
