"""A second attempt beside a slow first one; exactly one answer, and nothing left under way."""

import asyncio
from typing import Any

import pytest

from gateway.core.errors import BackendUnavailable, InvalidRequest
from gateway.core.remote import AttemptError, HedgingOptions, Outcome, RetryOptions
from gateway.testing import settle
from tests.backends.remote.endpoints import HEDGING, World, world

FAILED = AttemptError("it broke", Outcome.FAILED)


async def slow_first(w: World, **fields: Any) -> tuple[asyncio.Future[str], int]:
    """Begin a request whose first attempt hangs; return it and where that went."""
    w[0].hangs = w[1].hangs = True
    before = w[0].attempts
    call: asyncio.Future[str] = asyncio.ensure_future(w.call("answer", **fields))
    await settle()
    first = 0 if w[0].attempts > before else 1
    w[1 - first].hangs = False
    return call, first


async def test_the_second_attempt_wins_over_one_that_hangs() -> None:
    """The answer comes from the other endpoint, and the first attempt is called off."""
    async with world(2, hedging=HEDGING, probe_interval_s=1e6) as w:
        await w.learn()
        call, first = await slow_first(w)
        assert await w.run(call) == "answer"
        assert w.seen.decisions == {"hedge": 1, "hedge_won": 1}
        assert w.seen.attempts == {Outcome.OK: 1, Outcome.CANCELLED: 1}
        assert w[first].ended["cancelled"] == 1
        w.balanced()


async def test_a_quick_answer_has_no_hedge() -> None:
    """Nothing is sent twice that is answered in time."""
    async with world(2, hedging=HEDGING) as w:
        await w.learn()
        await w.run(w.call())
        assert not w.seen.decisions
        assert w.seen.attempts == {Outcome.OK: 1}


async def test_what_is_not_repeatable_has_no_hedge() -> None:
    """It waits for its first attempt."""
    async with world(2, hedging=HEDGING, probe_interval_s=1e6) as w:
        await w.learn()
        call, _ = await slow_first(w, repeatable=False, within_s=3.0)
        assert not isinstance(await w.outcome(call), str)
        assert w.seen.attempts == {Outcome.TIMED_OUT: 1}


async def test_no_hedge_beyond_its_budget() -> None:
    """A refused hedge is counted, and the first attempt is waited for."""
    async with world(2, hedging=HedgingOptions(enabled=True, max_share=0.0), probe_interval_s=1e6) as w:
        await w.learn()
        call, first = await slow_first(w, within_s=3.0)
        assert not isinstance(await w.outcome(call), str)
        assert w.seen.decisions["hedge_refused_budget"] == 1
        assert (w[first].attempts, w[1 - first].attempts) == (1, 0)
        w.balanced()


async def test_no_hedge_without_room_elsewhere() -> None:
    """A hedge never goes where the first attempt is."""
    async with world(1, hedging=HEDGING, probe_interval_s=1e6) as w:
        await w.learn()
        w[0].delay_s = 2.0
        assert await w.run(w.call("late")) == "late"
        assert not w.seen.decisions


async def test_a_hedge_needs_no_retries() -> None:
    """One attempt and its hedge are what a request has whose retries are off."""
    retry = RetryOptions(attempts=1)
    async with world(2, hedging=HEDGING, retry=retry, probe_interval_s=1e6) as w:
        await w.learn()
        call, _ = await slow_first(w)
        assert await w.run(call) == "answer"
        assert w.seen.decisions == {"hedge": 1, "hedge_won": 1}


async def test_a_failed_hedge_leaves_the_first_attempt() -> None:
    """One failure of two is no answer."""
    async with world(2, hedging=HEDGING, probe_interval_s=1e6) as w:
        await w.learn()
        w[0].delay_s = w[1].delay_s = 1.0
        call = asyncio.ensure_future(w.call("answer"))
        await settle()
        first = 0 if w[0].running else 1
        w[1 - first].delay_s, w[1 - first].errors = 0.0, (FAILED,)
        assert await w.run(call) == "answer"
        assert w.seen.attempts == {Outcome.OK: 1, Outcome.FAILED: 1}
        assert w.seen.decisions == {"hedge": 1}
        w.balanced()


async def test_both_failing_is_a_failure() -> None:
    """Two attempts are two of those that a request has."""
    async with world(2, hedging=HEDGING, probe_interval_s=1e6) as w:
        await w.learn()
        w[0].delay_s = w[1].delay_s = 1.0
        w[0].errors = w[1].errors = (FAILED,)
        assert isinstance(await w.outcome(w.call()), BackendUnavailable)
        assert w.seen.attempts == {Outcome.FAILED: 3}
        assert w.seen.decisions == {"hedge": 1, "retry": 1}
        w.balanced()


async def test_an_answer_that_is_an_error_ends_the_race() -> None:
    """The request's own fault is known from either attempt."""
    async with world(2, hedging=HEDGING, probe_interval_s=1e6) as w:
        await w.learn()
        call, first = await slow_first(w)
        w[1 - first].errors = (InvalidRequest("wrong"),)
        assert isinstance(await w.outcome(call), InvalidRequest)
        assert w.seen.attempts == {Outcome.OK: 1, Outcome.CANCELLED: 1}
        w.balanced()


@pytest.mark.parametrize("count", [200])
async def test_each_request_is_answered_once(count: int) -> None:
    """However attempts overtake each other, there is one answer for each request."""
    async with world(3, hedging=HEDGING, seed=3) as w:
        await w.learn()
        w[0].delay_s, w[1].delay_s, w[2].delay_s = 0.0, 0.02, 0.5
        answers = [await w.run(w.call(number)) for number in range(count)]
        assert answers == list(range(count))
        done = w.seen.attempts
        assert done[Outcome.OK] == count
        assert sum(done.values()) == count + w.seen.decisions["hedge"]
        w.balanced()
