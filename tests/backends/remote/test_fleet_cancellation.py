"""Requests that are given up at every step: nothing is left under way, every slot is given back once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway.backends.remote.timing import pause
from gateway.core.errors import GatewayError
from gateway.core.remote import AttemptError, ConcurrencyOptions, Outcome
from gateway.testing import settle
from tests.backends.remote.endpoints import HEDGING, Wire, World, world

FAILED = AttemptError("it broke", Outcome.FAILED)
MAX_STEPS = 300


async def plain(w: World) -> None:
    """One attempt that takes a while."""
    w[0].delay_s = w[1].delay_s = 0.1
    await w.call(within_s=5.0)


async def retried(w: World) -> None:
    """Two failures, then an answer."""
    w[0].errors = w[1].errors = (FAILED, None)
    await w.call(within_s=5.0)


async def hedged(w: World) -> None:
    """A second attempt beside a slow first one."""
    w[0].delay_s = w[1].delay_s = 0.3
    await w.call(within_s=5.0)
    assert w.seen.decisions["hedge"] == 1


async def waiting(w: World) -> None:
    """Three requests for one slot."""
    w[0].delay_s = w[1].delay_s = 0.1
    only = frozenset({w[0].where})
    await asyncio.gather(*(w.call(number, among=only, within_s=5.0) for number in range(3)))


async def timed_out(w: World) -> None:
    """One that hangs until its deadline."""
    w[0].hangs = w[1].hangs = True
    await w.call(within_s=0.5)


async def streamed(w: World) -> None:
    """A stream whose first attempt fails before its first item; the second gives three, with pauses."""
    attempts = 0

    async def items(_wire: Wire, _timeout_s: float | None) -> AsyncIterator[int]:
        nonlocal attempts
        attempts += 1
        await pause(w.clock, 0.1)
        if attempts == 1:
            raise FAILED
        for number in range(3):
            yield number
            await pause(w.clock, 0.1)

    stream = w.fleet.stream(items, key="m", deadline_s=w.clock.now_s() + 5.0)
    try:
        async for _ in stream:
            await asyncio.sleep(0)
    finally:
        await stream.aclose()


SCENARIOS = [plain, retried, hedged, waiting, timed_out, streamed]


def settled(w: World, scenario: Callable[[World], Awaitable[Any]]) -> None:
    """Check that nothing is under way; streams of this module do not ask the endpoint itself."""
    if scenario is streamed:
        w.idle()
    else:
        w.balanced()


async def drive(w: World, task: asyncio.Task[None], turns: int) -> int:
    """Run `task` for `turns` turns of the loop or until it is done; time moves every tenth turn."""
    for turn in range(turns):
        if task.done():
            return turn
        await asyncio.sleep(0)
        due_s = w.clock.next_timer_s()
        if turn % 10 == 9 and due_s is not None:
            w.clock.advance(max(0.0, due_s - w.clock.now_s()))
    return turns


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
async def test_cancelled_at_every_turn(scenario: Callable[[World], Awaitable[Any]]) -> None:
    """Whenever a request is given up, a moment later nothing of it is left and the fleet serves on."""
    for turns in range(MAX_STEPS):
        options: dict[str, Any] = {"hedging": HEDGING} if scenario is hedged else {}
        async with world(2, concurrency=ConcurrencyOptions(adaptive=False, initial=1), **options) as w:
            if scenario is hedged:
                await w.learn()
            task = asyncio.ensure_future(scenario(w))
            needed = await drive(w, task, turns)
            task.cancel()
            await settle()
            assert task.done(), f"cancelled after {turns} turns it goes on"
            if not task.cancelled() and (error := task.exception()) is not None:
                assert isinstance(error, GatewayError)
            settled(w, scenario)
            for number in range(2):
                w[number].hangs, w[number].errors = False, (None,)
            assert await w.run(w.call("on")) == "on"
            settled(w, scenario)
        if needed < turns:
            return
    pytest.fail("the scenario never ended by itself")


async def test_a_slot_given_together_with_the_cancellation_is_given_back() -> None:
    """Room comes and the request is given up in one turn of the loop: the next in line gets the slot."""
    async with world(1, concurrency=ConcurrencyOptions(adaptive=False, initial=1)) as w:
        gate = asyncio.Event()

        async def held(_wire: Wire, _timeout_s: float | None) -> int:
            await gate.wait()
            return 1

        first = asyncio.ensure_future(w.call(operation=held))
        await settle()
        second = asyncio.ensure_future(w.call(2))
        third = asyncio.ensure_future(w.call(3))
        await settle()
        first.add_done_callback(lambda _: second.cancel())
        gate.set()
        assert await w.run(third) == 3
        assert second.cancelled()
        assert w.seen.attempts == {Outcome.OK: 2, Outcome.CANCELLED: 1}
        w.idle()


async def test_a_cancelled_caller_waits_until_its_attempts_have_ended() -> None:
    """What an operation does in its own cleanup is over before the caller goes on."""
    async with world(2, hedging=HEDGING) as w:
        await w.learn()
        cleaned: list[str] = []

        async def slow(wire: Wire, _timeout_s: float | None) -> int:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaned.append(str(wire.endpoint.where))
            return 0

        async def caller() -> None:
            try:
                await w.call(operation=slow)
            finally:
                cleaned.append("caller")

        task = asyncio.ensure_future(caller())
        await w.spend(1.0)
        task.cancel()
        await settle()
        assert task.cancelled()
        assert len(cleaned) == 3
        assert cleaned[-1] == "caller"
        assert w.seen.attempts == {Outcome.CANCELLED: 2}
