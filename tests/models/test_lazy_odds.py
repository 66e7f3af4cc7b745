"""Lazy models in odd cases: a broken newer version, too little room for two, a source that leaves."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import NotReady
from gateway.core.types import CPU, VersionId, VersionOrigin, VersionState
from gateway.models.lazy import LazyOptions
from gateway.models.memory import MemoryOptions
from gateway.testing import settle
from tests.models.lazy_stage import MB, LazyStage, sleeper
from tests.models.providers import FakeProvider, registered

if TYPE_CHECKING:
    from gateway.core.pending import Pending

WAIT_S = 5.0


async def woken(stage: LazyStage, *models: str) -> None:
    """Ask each model once, one after the other, and answer."""
    for model in models:
        stage.clock.advance(1)
        pending = stage.ask(model)
        await stage.until(lambda: stage.cold.waiting() == 0)
        stage.answer()
        assert pending.done


async def loading(stage: LazyStage, model: str) -> Pending:
    """Ask a model whose load then waits for the gate, its memory reserved."""
    before = stage.budget.devices()[0].held_bytes
    pending = stage.ask(model)
    await stage.until(lambda: stage.budget.devices()[0].held_bytes > before)
    return pending


async def waits_for_room(stage: LazyStage, pending: Pending) -> None:
    """Let the loop run until the load that a request asked for waits for memory."""
    waits_s = stage.clock.now_s() + WAIT_S
    await stage.until(lambda: pending.done or stage.clock.next_timer_s() == waits_s)


@pytest.mark.parametrize("number", [1, 2])
async def test_what_serves_in_place_of_a_broken_version_is_not_unloaded(number: int) -> None:
    """Neither when idle nor for another's memory: the next request could not bring it back."""
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 20 * MB}), lazy_options=LazyOptions(max_idle_s=60))
    stage.backend.failures["bad"] = "golden test fails"
    first, other, third = sleeper("m", 1, "good"), sleeper("n"), sleeper("o")
    async with stage.running(first, other, third) as manager:
        await woken(stage, "m")
        manager.apply("source", [sleeper("m", number, "bad"), other, third])
        await manager.wait_settled()
        stage.clock.advance(200)
        await manager.wait_settled()
        await woken(stage, "n", "o")
        assert [v.id for v in manager.loaded_versions("m")] == [first.id]
        assert stage.told.evictions == [("n", "memory")]
        stage.ask("m")
        stage.answer()


async def test_a_stand_in_keeps_the_whole_model_awake() -> None:
    """A good version beside it does not take it along when it could sleep."""
    stage = LazyStage(lazy_options=LazyOptions(max_idle_s=60))
    stage.backend.failures["bad"] = "golden test fails"
    first, second = sleeper("m", 1, "good"), sleeper("m", 2)
    async with stage.running(first, second) as manager:
        await woken(stage, "m")
        await manager.wait_settled()
        manager.apply("source", [sleeper("m", 1, "bad"), second])
        await manager.wait_settled()
        stage.clock.advance(200)
        await manager.wait_settled()
        assert [v.id for v in manager.loaded_versions("m")] == [first.id, second.id]
        assert stage.told.evictions == []


async def test_a_mended_version_may_sleep_again() -> None:
    """What stood in is gone then, and idleness is looked for although nothing of it could sleep meanwhile."""
    stage = LazyStage(lazy_options=LazyOptions(max_idle_s=60))
    stage.backend.failures["bad"] = "golden test fails"
    first = sleeper("m", 1, "good")
    async with stage.running(first) as manager:
        await woken(stage, "m")
        manager.apply("source", [sleeper("m", 2, "bad")])
        await manager.wait_settled()
        stage.clock.advance(61)
        manager.apply("source", [first])
        await manager.wait_settled()
        stage.clock.advance(61)
        await manager.wait_settled()
        assert stage.told.evictions == [("m", "idle")]
        assert manager.served() == ()


async def test_what_is_claimed_for_good_stays_when_its_lazy_sibling_goes() -> None:
    """Only the lazy versions of a model count as memory that can be had from it."""
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 30 * MB}, wait_s=WAIT_S))
    stage.sizes["large"] = 20 * MB
    eager, lazy = sleeper("m", 1, "eager"), sleeper("m", 2, "lazy")
    async with stage.running(lazy, sleeper("n", digest="n"), sleeper("o", digest="large")) as manager:
        eager.spec = dataclasses.replace(eager.spec, lazy=False)
        manager.apply("operator", [eager])
        await manager.wait_settled()
        await woken(stage, "m", "n", "o")
        assert [v.id[:2] for v in manager.served()] == [("m", 1), ("o", 1)]


async def test_two_cold_starts_that_fit_only_one_after_the_other() -> None:
    """The second waits until the first has loaded, answered, and can give way."""
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 15 * MB}, wait_s=WAIT_S))
    async with stage.running(sleeper("a", digest="A"), sleeper("b", digest="B")) as manager:
        await woken(stage, "a", "b", "a")
        stage.lazy.make_room({CPU: 1}, "", {})
        await manager.wait_settled()
        stage.backend.gate = asyncio.Event()
        first = await loading(stage, "a")
        second = stage.ask("b")
        await waits_for_room(stage, second)
        assert (first.done, second.done) == (False, False)
        stage.backend.gate.set()
        await stage.until(lambda: manager.is_model_ready("a") and bool(manager.loaded_versions("a")))
        stage.answer()
        assert first.result().model_version == "1"
        await stage.until(lambda: bool(manager.loaded_versions("b")))
        stage.answer()
        assert second.result().model_version == "1"
        assert [v.id.model for v in manager.served()] == ["b"]


async def test_a_cold_start_waits_for_another_no_longer_than_allowed() -> None:
    """Then it is refused with numbers, and the other is none the worse for it."""
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 15 * MB}, wait_s=WAIT_S))
    async with stage.running(sleeper("a", digest="A"), sleeper("b", digest="B")) as manager:
        await woken(stage, "a", "b", "a")
        stage.lazy.make_room({CPU: 1}, "", {})
        await manager.wait_settled()
        stage.backend.gate = asyncio.Event()
        first = await loading(stage, "a")
        second = stage.ask("b")
        await waits_for_room(stage, second)
        stage.clock.advance(WAIT_S + 1)
        await stage.until(lambda: second.done)
        assert "budget 15 MB of which 10 MB are held by: a v1 10 MB" in str(second.error)
        stage.backend.gate.set()
        await manager.wait_settled()
        stage.answer()
        assert first.result().model_version == "1"


async def test_nobody_waits_for_memory_that_a_model_loads_into_for_good() -> None:
    """One that is not lazy gives way never: who has no room beside it hears so at once."""
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 25 * MB}, wait_s=WAIT_S))
    stage.sizes.update({"A": 20 * MB})
    fixed = sleeper("fixed", digest="A")
    fixed.spec = dataclasses.replace(fixed.spec, lazy=False)
    async with stage.running(sleeper("a", digest="A"), sleeper("b", digest="B")) as manager:
        await woken(stage, "a", "b")
        stage.lazy.make_room({CPU: 1}, "", {})
        await manager.wait_settled()
        stage.backend.gate = asyncio.Event()
        manager.apply("operator", [fixed])
        await stage.until(lambda: stage.budget.devices()[0].held_bytes == 20 * MB)
        refused = stage.ask("b")
        await stage.until(lambda: refused.done)
        assert "of which 20 MB are held by: fixed v1 20 MB" in str(refused.error)
        stage.backend.gate.set()


async def test_a_failed_model_that_left_and_came_back_is_asleep() -> None:
    """Whoever else is asked for meanwhile; its next request loads it."""
    stage = LazyStage()
    stage.backend.failures["bad"] = "broken"
    other = sleeper("n")
    async with stage.running(sleeper("m", 1, "bad"), other) as manager:
        pending = stage.ask("m")
        await manager.wait_settled()
        assert isinstance(pending.error, NotReady)
        manager.apply("source", [other])
        assert stage.lazy.awake() == frozenset()
        manager.apply("source", [sleeper("m", 1, "mended"), other])
        await manager.wait_settled()
        assert manager.index()[0].state is VersionState.UNLOADED
        await woken(stage, "n")
        assert [v.id.model for v in manager.served()] == ["n"]
        await woken(stage, "m")
        assert [v.id.model for v in manager.served()] == ["m", "n"]


async def test_a_model_that_left_and_came_back_while_it_loads_is_loaded_for_who_waits() -> None:
    """Its new content is what the requests get that still wait."""
    stage = LazyStage()
    stage.backend.gate = asyncio.Event()
    async with stage.running(sleeper("m", 1, "old")) as manager:
        pending = stage.ask("m")
        await settle()
        manager.apply("source", [])
        manager.apply("source", [sleeper("m", 1, "new")])
        stage.backend.gate.set()
        await stage.until(lambda: bool(stage.queues))
        stage.answer()
        assert pending.result().model_version == "1"
        assert [v.id.digest for v in manager.served()] == ["new"]


async def test_a_model_that_left_and_came_back_while_it_answers_is_loaded_for_the_next() -> None:
    """The copy that answers still is no reason to wait for another; it goes when it has answered."""
    stage = LazyStage()
    async with stage.running(sleeper("m")) as manager:
        first = stage.ask("m")
        await manager.wait_settled()
        manager.apply("source", [])
        manager.apply("source", [sleeper("m")])
        await settle()
        assert manager.served() == ()
        assert stage.lazy.awake() == frozenset()
        second = stage.ask("m")
        await stage.until(lambda: len(stage.queues) == 2)
        stage.answer()
        assert (first.result().model_version, second.result().model_version) == ("1", "1")
        await manager.wait_settled()
        assert len(manager.served()) == 1
        assert stage.lazy.awake() == {"m"}


async def test_what_sleeps_says_where_it_comes_from() -> None:
    """Label, registry and lineage are known before it is ever loaded, and are those of what is wanted."""
    stage = LazyStage()
    first = registered("m", 1, FakeProvider(digest="first"), lazy=True)
    async with stage.running(first) as manager:
        assert [row.origin for row in manager.index()] == [first.origin]
        await woken(stage, "m")
        stage.lazy.make_room({CPU: 1}, "", {})
        await manager.wait_settled()
        assert [(row.origin, row.content_digest) for row in manager.index()] == [(first.origin, "first")]
        origin = VersionOrigin(registry="r", source="s", label="v1.0")
        moved = dataclasses.replace(first, id=VersionId("m", 1, "other"), origin=origin)
        manager.apply("source", [moved])
        (row,) = manager.index()
        assert (row.id, row.origin, row.content_digest) == (moved.id, origin, "")
