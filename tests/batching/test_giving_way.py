"""That a run has the processor to itself while more is asked than can be answered."""

from __future__ import annotations

import asyncio

import pytest

from gateway.batching.giving_way import MOST_S, GivingWay
from gateway.core.errors import InvalidRequest, Overloaded
from gateway.core.options import BatchingOptions
from gateway.testing import FakeLoadedModel, settle
from tests.batching.harness import Harness, request


def full(model: FakeLoadedModel) -> Harness:
    """Return a batcher with room for one row."""
    return Harness(model, BatchingOptions(max_queue_rows=1))


async def refuse(harness: Harness, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Overloaded):
            harness.batcher.submit(request(9.0))
    await settle()


async def occupied(model: FakeLoadedModel) -> Harness:
    """Return a batcher with a run under way and a full queue."""
    harness = full(model)
    for tag in (1.0, 2.0):
        harness.batcher.submit(request(tag))
        await settle()
    return harness


async def test_refusals_of_one_turn_give_way_once() -> None:
    """However many they are, the run is waited for once, and again after the next ones."""
    model = FakeLoadedModel(held=True, overlaps=False)
    harness = await occupied(model)
    assert model.let_run_s == []
    await refuse(harness, times=3)
    assert model.let_run_s == [MOST_S]
    await refuse(harness)
    assert model.let_run_s == [MOST_S] * 2
    model.release()


async def test_who_has_processors_of_its_own_is_not_waited_for() -> None:
    """A model on a GPU, or with fewer threads than there are processors."""
    model = FakeLoadedModel(held=True, overlaps=True)
    await refuse(await occupied(model))
    assert model.let_run_s == []
    model.release()


async def test_other_mistakes_wait_for_nothing() -> None:
    """A request that is refused for what it says does not hold others up."""
    model = FakeLoadedModel(held=True, overlaps=False)
    harness = await occupied(model)
    with pytest.raises(InvalidRequest):
        harness.batcher.submit(request(*[3.0] * 1000))
    await settle()
    assert model.let_run_s == []
    model.release()


async def test_without_a_run_there_is_nothing_to_wait_for() -> None:
    """The queue is full before its first run has begun."""
    model = FakeLoadedModel(held=True, overlaps=False)
    harness = full(model)
    harness.batcher.submit(request(1.0))
    with pytest.raises(Overloaded):
        harness.batcher.submit(request(2.0))
    await settle()
    assert model.let_run_s == []
    model.release()


async def test_what_the_refusals_asked_for_comes_first() -> None:
    """Whatever was to be done in the next turn, such as writing the refusals, is done before it waits."""
    order: list[str] = []

    class Noting(FakeLoadedModel):
        def let_run(self, most_s: float) -> None:
            order.append("let run")

    way = GivingWay(Noting())
    way.refused()
    asyncio.get_running_loop().call_soon(order.append, "written")
    await settle()
    assert order == ["written", "let run"]
