"""Pauses, turns, and questions that are given up, in virtual time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.registry.polling import PollOptions, Turn, pause_s, within
from gateway.testing import VirtualClock, settle

OPTIONS = PollOptions(interval_s=10.0, jitter=0.2, max_backoff_s=60.0)


@pytest.mark.parametrize(
    ("failures", "uniform", "expected_s"),
    [(0, 0.5, 10), (0, 0.0, 8), (0, 1.0, 12), (1, 0.5, 10), (2, 0.5, 20), (3, 0.5, 40), (9, 0.0, 48)],
)
def test_pauses(failures: int, uniform: float, expected_s: float) -> None:
    """They double with failures up to the cap, and vary by the jitter."""
    assert pause_s(OPTIONS, failures, uniform) == pytest.approx(expected_s)


@given(st.integers(0, 10**9), st.floats(0, 1), st.floats(0.01, 1e6), st.floats(0.01, 1e6), st.floats(0, 1))
def test_pauses_are_bounded(
    failures: int, uniform: float, interval_s: float, cap_s: float, jitter: float
) -> None:
    """However long a registry is down, and whatever is configured."""
    options = PollOptions(interval_s=interval_s, max_backoff_s=cap_s, jitter=jitter)
    assert 0 <= pause_s(options, failures, uniform) <= 2.001 * max(interval_s, cap_s)


async def woken(turn: Turn, clock: VirtualClock, seconds: float) -> float | None:
    """Return after how many seconds a waiter is woken, None when not within `seconds`."""
    waiter = asyncio.ensure_future(turn.wait())
    await settle()
    began_s = clock.now_s()
    while not waiter.done() and clock.now_s() - began_s < seconds:
        clock.advance(0.5)
        await settle()
    done = waiter.done()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    return clock.now_s() - began_s if done else None


async def test_a_turn_comes_when_it_is_due() -> None:
    """At once at first, then as planned; whoever waits is told of a new plan."""
    clock = VirtualClock()
    turn = Turn(clock, 1.0)
    assert await woken(turn, clock, 5) == 0
    turn.begin()
    turn.plan(3.0)
    assert turn.remaining_s() == 3.0
    assert await woken(turn, clock, 5) == 3.0
    turn.plan(60.0)
    waiter = asyncio.ensure_future(turn.wait())
    await settle()
    turn.plan(2.0)
    await settle()
    clock.advance(2.0)
    await settle()
    assert waiter.done()
    turn.plan(2.0)
    turn.sooner(30.0)
    assert turn.remaining_s() == 2.0
    assert clock.next_timer_s() is None


async def test_a_hint_waits_for_the_spacing() -> None:
    """Counted from the beginning of the last look."""
    clock = VirtualClock()
    turn = Turn(clock, 2.0)
    turn.begin()
    clock.advance(0.5)
    turn.plan(60.0)
    turn.hint()
    assert await woken(turn, clock, 5) == 1.5


async def test_work_within_its_time() -> None:
    """The answer, the error, the time-out, or the cancelling of whoever asked; no timer is left."""
    clock = VirtualClock()

    async def answer() -> int:
        await asyncio.sleep(0)
        return 7

    async def fail() -> int:
        raise KeyError

    async def never() -> int:
        await asyncio.Event().wait()
        return 0

    assert await within(clock, 5, answer()) == 7
    with pytest.raises(KeyError):
        await within(clock, 5, fail())
    asking = asyncio.ensure_future(within(clock, 5, never()))
    await settle()
    clock.advance(5)
    with pytest.raises(TimeoutError, match="no answer within 5 s"):
        await asking
    asking = asyncio.ensure_future(within(clock, 5, never()))
    await settle()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert clock.next_timer_s() is None
    assert asyncio.all_tasks() == {asyncio.current_task()}
