"""Lazy models from the outside: first use, waiting, giving way, failing, and what is told of it."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from gateway.core.errors import (
    Cancelled,
    DeadlineExceeded,
    NotFound,
    NotReady,
    Overloaded,
)
from gateway.core.types import VersionState
from gateway.models.lazy import LazyOptions
from gateway.models.memory import MemoryOptions
from gateway.routing.cold_starts import ColdStartOptions
from gateway.testing import infer_request, settle
from tests.models.lazy_stage import MB, LazyStage, sleeper
from tests.models.stage import wanted


def states(manager: object) -> dict[tuple[str, int], tuple[VersionState, str]]:
    return {row.id[:2]: (row.state, row.reason) for row in manager.index()}  # type: ignore[attr-defined]


def loads(stage: LazyStage) -> int:
    return len(stage.backend.loaded)


async def test_nothing_is_loaded_until_somebody_asks_and_readiness_does_not_wait() -> None:
    """The versions are known and say so, the model counts as ready to be asked, nothing holds memory."""
    stage = LazyStage()
    async with stage.running(sleeper("m", 3), wanted("n", 1)) as manager:
        await manager.wait_settled()
        assert states(manager)["m", 3] == (VersionState.UNLOADED, "loaded on first use")
        assert ("m", 0) not in states(manager)
        assert manager.is_ready()
        assert manager.is_model_ready("m")
        assert manager.is_model_ready("m", "3")
        assert not manager.is_model_ready("m", "4")
        assert [model.batches for model in stage.backend.loaded] == [[]]
        with pytest.raises(NotReady):
            manager.lease("m")
        with pytest.raises(NotFound):
            manager.lease("m", "4")


async def test_a_bare_row_gives_way_to_the_lazy_version() -> None:
    """An announced model whose versions are lazy is not shown a second time under number 0."""
    stage = LazyStage()
    async with stage.running(sleeper("m")) as manager:
        manager.announce("source", ["m", "bare"])
        assert states(manager).keys() == {("m", 1), ("bare", 0)}


async def test_concurrent_first_requests_load_once_and_are_answered_in_order() -> None:
    """Ten requests wait for one load, go in the order they came, and hold their leases to the end."""
    stage = LazyStage()
    async with stage.running(sleeper("m")) as manager:
        pendings = [stage.ask("m", request_id=str(i)) for i in range(10)]
        assert stage.cold.waiting() == 10
        await manager.wait_settled()
        assert loads(stage) == 1
        assert [p.request.request_id for p in stage.queues[0].pendings] == [str(i) for i in range(10)]
        assert manager.loaded_versions("m")[0].leases == 10
        assert not any(p.done for p in pendings)
        stage.answer()
        assert all(p.result().model_version == "1" for p in pendings)
        assert manager.loaded_versions("m")[0].leases == 0
        assert {p.request.served_version for p in pendings} == {1}
        assert stage.told.cold_starts == [("m", 0.0, True)]
        assert stage.cold.waited == {"m": 10}


async def test_a_loaded_model_meets_no_waiting_room() -> None:
    """The second request goes straight to the batcher."""
    stage = LazyStage()
    async with stage.running(sleeper("m")) as manager:
        stage.ask("m")
        await manager.wait_settled()
        stage.ask("m")
        assert stage.cold.waited == {"m": 1}
        assert len(stage.queues[0].pendings) == 2


async def test_readiness_does_not_wait_for_a_load_that_somebody_asked_for() -> None:
    """The server stays ready while a lazy model loads, fails, or is gone again."""
    stage = LazyStage()
    stage.backend.gate = asyncio.Event()
    stage.backend.failures["bad"] = "broken"
    async with stage.running(sleeper("m"), sleeper("n", digest="bad")) as manager:
        stage.ask("m"), stage.ask("n")
        await settle()
        assert manager.is_ready()
        assert manager.is_model_ready("m")
        stage.backend.gate.set()
        await manager.wait_settled()
        assert manager.is_ready()
        stage.answer()


async def test_a_cancelled_wait_is_never_submitted() -> None:
    """Its client has gone; the load goes on, and the next request finds it."""
    stage = LazyStage()
    async with stage.running(sleeper("m")) as manager:
        gone, kept = stage.ask("m"), stage.ask("m")
        assert gone.cancel()
        assert isinstance(gone.error, Cancelled)
        await manager.wait_settled()
        assert [p.request for p in stage.queues[0].pendings] == [kept.request]
        kept.cancel()
        assert stage.queues[0].pendings[0].done, "what was handed over is cancelled there"


async def test_a_deadline_ends_the_wait_and_a_later_one_does_not() -> None:
    """One timer serves all; what had no deadline waits for the longest time that is allowed."""
    stage = LazyStage(cold_options=ColdStartOptions(max_wait_s=60))
    stage.backend.gate = asyncio.Event()
    async with stage.running(sleeper("m")):
        now_s = stage.clock.now_s()
        late = stage.ask("m", deadline_s=now_s + 9)
        soon = stage.ask("m", deadline_s=now_s + 1)
        never = stage.ask("m")
        stage.clock.advance(2)
        assert isinstance(soon.error, DeadlineExceeded)
        assert (late.done, never.done) == (False, False)
        stage.clock.advance(8)
        assert isinstance(late.error, DeadlineExceeded)
        stage.clock.advance(60)
        assert isinstance(never.error, NotReady)
        assert stage.cold.waiting() == 0
        with pytest.raises(DeadlineExceeded):
            stage.ask("m", deadline_s=now_s)
        stage.backend.gate.set()


async def test_what_waits_is_bounded_in_number_and_bytes() -> None:
    """One more than allowed is refused at once; a single request may be of any size."""
    stage = LazyStage(cold_options=ColdStartOptions(max_requests=2, max_bytes=100))
    async with stage.running(sleeper("m"), sleeper("n"), sleeper("o")) as manager:
        stage.ask("m"), stage.ask("m")
        with pytest.raises(Overloaded, match="'m'"):
            stage.ask("m")
        stage.ask("n")
        with pytest.raises(Overloaded):
            stage.router.submit(infer_request(np.zeros((24, 1), np.float32), model="n"))
        stage.router.submit(infer_request(np.zeros((800, 1), np.float32), model="o"))
        await manager.wait_settled()
        assert loads(stage) == 3


async def test_what_waits_for_all_models_together_is_bounded() -> None:
    """However many models there are; room is made by each end of a wait, whichever way it ends."""
    stage = LazyStage(cold_options=ColdStartOptions(max_total_bytes=40))
    async with stage.running(*(sleeper(name) for name in "abc")) as manager:
        cancelled, kept = stage.ask("a"), stage.ask("b")
        with pytest.raises(Overloaded, match="'c' among them"):
            stage.ask("c")
        assert stage.lazy.awake() == {"a", "b"}
        cancelled.cancel()
        late = stage.ask("c", deadline_s=stage.clock.now_s() + 1)
        stage.clock.advance(2)
        assert isinstance(late.error, DeadlineExceeded)
        stage.ask("c")
        await manager.wait_settled()
        stage.answer()
        assert kept.done
        manager.apply("source", [sleeper(name) for name in "xyz"])
        stage.ask("x"), stage.ask("y")
        with pytest.raises(Overloaded):
            stage.ask("z")
        await manager.wait_settled()
        stage.answer()


async def test_a_failed_load_answers_with_its_reason_and_is_not_repeated_at_once() -> None:
    """Requests soon after fail without a load; after the pause one load is tried again, and pauses grow."""
    stage = LazyStage()
    stage.backend.failures["d"] = "the file is no model"
    async with stage.running(sleeper("m")) as manager:
        first, second = stage.ask("m"), stage.ask("m")
        await manager.wait_settled()
        for pending in (first, second):
            assert isinstance(pending.error, NotReady)
            assert "the file is no model" in str(pending.error)
        assert states(manager)["m", 1][0] is VersionState.FAILED
        assert not manager.is_model_ready("m")
        with pytest.raises(NotReady, match="no model") as refused:
            stage.ask("m")
        assert refused.value.retry_after_s == 1.0
        stage.clock.advance(1.1)
        third = stage.ask("m")
        await manager.wait_settled()
        assert third.done
        assert [loaded for _, _, loaded in stage.told.cold_starts] == [False, False]
        stage.clock.advance(1.1)
        with pytest.raises(NotReady) as refused:
            stage.ask("m")
        assert refused.value.retry_after_s == pytest.approx(0.9)
        stage.clock.advance(1)
        stage.backend.failures.clear()
        fourth = stage.ask("m")
        await manager.wait_settled()
        stage.answer()
        assert fourth.result().model_version == "1"


async def test_a_model_that_is_not_lazy_is_refused_as_ever() -> None:
    """Loading, or unknown: nobody waits."""
    stage = LazyStage()
    stage.backend.gate = asyncio.Event()
    async with stage.running(wanted("n", 1)) as manager:
        with pytest.raises(NotReady):
            stage.ask("n")
        with pytest.raises(NotFound):
            stage.ask("x")
        stage.backend.gate.set()
        await manager.wait_settled()


async def test_the_least_recently_used_gives_way() -> None:
    """A budget for two: after a, b, a the next one takes the place of b, which then takes that of a."""
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 20 * MB}))
    async with stage.running(*(sleeper(name, digest=name) for name in "abc")) as manager:
        for name in "aba":
            stage.clock.advance(1)
            stage.ask(name)
            await manager.wait_settled()
            stage.answer()
        stage.clock.advance(1)
        stage.ask("c")
        await manager.wait_settled()
        stage.answer()
        assert [v.id.model for v in manager.served()] == ["a", "c"]
        assert stage.told.evictions == [("b", "memory")]
        assert states(manager)["b", 1] == (VersionState.UNLOADED, "loaded on first use")
        assert stage.budget.devices()[0].held_bytes == 20 * MB
        stage.clock.advance(1)
        stage.ask("b")
        await manager.wait_settled()
        assert [v.id.model for v in manager.served()] == ["b", "c"]
        assert stage.lazy.requests() == {"a": 2, "b": 1, "c": 1}


async def test_a_busy_model_is_waited_for() -> None:
    """The load begins when its last lease is given back, and not before."""
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 10 * MB}, wait_s=5))
    async with stage.running(sleeper("a", digest="a"), sleeper("b", digest="b")) as manager:
        for name in "ba":
            stage.answer()
            stage.clock.advance(1)
            stage.ask(name)
            await manager.wait_settled()
        waiting = stage.ask("b")
        await stage.until(lambda: stage.clock.next_timer_s() == stage.clock.now_s() + 5)
        await settle()
        assert loads(stage) == 2
        stage.answer()
        await manager.wait_settled()
        stage.answer()
        assert waiting.result().model_version == "1"
        assert [v.id.model for v in manager.served()] == ["b"]


async def test_a_busy_model_is_waited_for_no_longer_than_allowed() -> None:
    """Then the load is refused with numbers, the busy model serves on, and the request hears why."""
    stage = LazyStage(memory=MemoryOptions(limits={"cpu": 10 * MB}, wait_s=5))
    stage.sizes["b"] = 8 * MB
    async with stage.running(sleeper("a", digest="a"), sleeper("b", digest="b")) as manager:
        stage.ask("b")
        await manager.wait_settled()
        stage.answer()
        stage.clock.advance(1)
        busy = stage.ask("a")
        await manager.wait_settled()
        refused = stage.ask("b")
        await stage.until(lambda: stage.clock.next_timer_s() == stage.clock.now_s() + 5)
        stage.clock.advance(6)
        await manager.wait_settled()
        assert "needs about 8 MB on cpu, budget 10 MB of which 10 MB are held by: a v1 10 MB;" in str(
            refused.error
        )
        stage.answer()
        assert busy.result().model_version == "1"


async def test_idle_models_are_unloaded_after_a_while() -> None:
    """Only those that nobody has used meanwhile; one that is busy stays."""
    stage = LazyStage(lazy_options=LazyOptions(max_idle_s=100))
    async with stage.running(sleeper("a"), sleeper("b"), sleeper("c")) as manager:
        for name in "abc":
            stage.ask(name)
        await manager.wait_settled()
        queues = {queue.version.model: queue for queue in stage.queues}
        for name in "ab":
            queues[name].answer(stage.clock.now_s())
        stage.clock.advance(60)
        stage.ask("b")
        queues["b"].answer(stage.clock.now_s())
        stage.clock.advance(50)
        await manager.wait_settled()
        assert stage.told.evictions == [("a", "idle")]
        stage.clock.advance(60)
        await manager.wait_settled()
        assert stage.told.evictions == [("a", "idle"), ("b", "idle")]
        assert [v.id.model for v in manager.served()] == ["c"]
        stage.answer()


async def test_a_new_version_of_a_loaded_model_is_swapped_in_without_a_cold_start() -> None:
    """The old one serves until the new one is READY; of a model that sleeps, only what is known changes."""
    stage = LazyStage()
    async with stage.running(sleeper("m", 1), sleeper("n", 1)) as manager:
        stage.ask("m")
        await manager.wait_settled()
        stage.answer()
        stage.backend.gate = asyncio.Event()
        manager.apply("source", [sleeper("m", 2, "e"), sleeper("n", 2, "e")])
        await settle()
        assert manager.get("m").id.number == 1
        stage.backend.gate.set()
        await manager.wait_settled()
        assert [v.id[:2] for v in manager.served()] == [("m", 2)]
        assert loads(stage) == 2
        assert states(manager)["n", 2] == (VersionState.UNLOADED, "loaded on first use")
        assert stage.told.cold_starts == [("m", 0.0, True)]


async def test_a_model_that_is_withdrawn_while_somebody_waits_is_not_found() -> None:
    """The request fails at once, and the model is asleep when it comes back."""
    stage = LazyStage()
    stage.backend.gate = asyncio.Event()
    async with stage.running(sleeper("m")) as manager:
        pending = stage.ask("m")
        await settle()
        manager.apply("source", [])
        stage.backend.gate.set()
        await manager.wait_settled()
        assert isinstance(pending.error, NotFound)
        manager.apply("source", [sleeper("m")])
        await manager.wait_settled()
        assert manager.served() == ()


async def test_the_same_version_claimed_unconditionally_is_loaded() -> None:
    """An operator's claim without `lazy` loads what the source only offers, and unloading ends in sleep."""
    stage = LazyStage()
    async with stage.running(sleeper("m")) as manager:
        lazy = sleeper("m")
        manager.apply("operator", [dataclasses.replace(lazy, spec=wanted("m", 1).spec)])
        await manager.wait_settled()
        assert manager.is_model_ready("m")
        assert [v.id.model for v in manager.served()] == ["m"]
        manager.apply("operator", [])
        await manager.wait_settled()
        assert manager.served() == ()
        stage.ask("m")
        await manager.wait_settled()
        assert [v.id.model for v in manager.served()] == ["m"]


async def test_a_stream_waits_as_well() -> None:
    """Its first step loads the model; closing it during the wait leaves nobody waiting."""
    stage = LazyStage()
    async with stage.running(sleeper("m"), sleeper("n")) as manager:
        request = infer_request(np.zeros((4, 1), np.float32), model="m")
        responses = [response async for response in stage.router.stream(request)]
        assert [r.model_version for r in responses] == ["1"]
        assert manager.loaded_versions("m")[0].leases == 0
        stage.backend.gate = asyncio.Event()
        other = stage.router.stream(infer_request(np.zeros((4, 1), np.float32), model="n"))
        step = asyncio.ensure_future(anext(other))
        await settle()
        assert stage.cold.waiting() == 1
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        assert stage.cold.waiting() == 0
        stage.backend.gate.set()


async def test_leaving_the_manager_answers_what_waits() -> None:
    """A shutdown during a cold start leaves no request without an answer."""
    stage = LazyStage()
    stage.backend.gate = asyncio.Event()
    async with stage.running(sleeper("m")):
        pending = stage.ask("m")
        await settle()
    assert pending.done
    assert pending.error is not None
