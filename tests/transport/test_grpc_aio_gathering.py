"""Calls over grpcio that come together are begun together, and nobody waits for company in vain for long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from gateway.core.calls import RpcService
from gateway.testing import VirtualClock, settle
from gateway.transport import grpc_aio_gathering
from gateway.transport.grpc_aio import GrpcAioServer
from gateway.transport.grpc_aio_gathering import LONGEST_S, MOST_SKIPPED, QUIET_TURNS, Gathering
from gateway.transport.options import GrpcServerOptions

if TYPE_CHECKING:
    from gateway.core.calls import RpcCall

ENOUGH = 2 * QUIET_TURNS


class Calls:
    """A gathering, and the names of the calls it has begun."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.gathering = Gathering(self.clock)
        self.begun: list[str] = []
        self.ended: set[str] = set()

    def add(self, name: str) -> None:
        self.gathering.add(lambda: self.begun.append(name), lambda: name in self.ended)

    async def group(self, *names: str) -> None:
        """Let calls come in one turn, and let them be begun."""
        for name in names:
            self.add(name)
        await settle(ENOUGH)


@pytest.fixture
async def calls() -> Calls:
    return Calls()


async def test_calls_some_turns_apart_are_begun_together(calls: Calls) -> None:
    """In the order they came, once no more come."""
    for name in "abc":
        calls.add(name)
        await settle(QUIET_TURNS // 2)
        assert calls.begun == []
    await settle(ENOUGH)
    assert calls.begun == ["a", "b", "c"]


async def test_calls_that_keep_coming_do_not_keep_each_other_waiting(calls: Calls) -> None:
    """The first is held for the longest time at most."""
    for name in "abc":
        calls.add(name)
        await settle(2)
    calls.clock.advance(LONGEST_S * 0.99)
    calls.add("d")
    await settle(2)
    assert calls.begun == []
    calls.clock.advance(LONGEST_S * 0.02)
    calls.add("e")
    await settle(2)
    assert calls.begun == ["a", "b", "c", "d", "e"]


async def test_the_time_counts_from_the_first_of_each_group(calls: Calls) -> None:
    """An earlier group's time is over, and is not the next one's."""
    await calls.group("a", "b")
    calls.clock.advance(10 * LONGEST_S)
    calls.add("c")
    await settle(2)
    assert calls.begun == ["a", "b"]


async def test_a_call_that_has_ended_is_not_begun(calls: Calls) -> None:
    """The others of its group are."""
    calls.add("a")
    calls.add("b")
    calls.ended.add("a")
    await settle(ENOUGH)
    assert calls.begun == ["b"]


async def test_lone_calls_are_held_ever_more_rarely(calls: Calls) -> None:
    """After 1, 3, 7, ... calls that were not held, and never more rarely than each 64th."""
    held: list[int] = []
    for number in range(500):
        calls.add(str(number))
        if len(calls.begun) == number:
            held.append(number)
        await settle(ENOUGH)
        assert len(calls.begun) == number + 1
    assert held == [0, 2, 6, 14, 30, 62, *range(126, 500, MOST_SKIPPED + 1)]


async def test_company_makes_waiting_worth_while_again(calls: Calls) -> None:
    """However long calls had come alone before."""
    for number in range(62):
        await calls.group(str(number))
    for group in ("ab", "cd", "ef"):
        calls.begun.clear()
        for name in group:
            calls.add(name)
        assert calls.begun == []
        await settle(ENOUGH)
        assert calls.begun == list(group)


async def test_a_server_begins_calls_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that a client sends at once reach their method from one place, one after the other."""
    # However slow the machine is: what a call waits for is the next one, not the time.
    monkeypatch.setattr(grpc_aio_gathering, "LONGEST_S", 60.0)
    monkeypatch.setattr(grpc_aio_gathering, "QUIET_TURNS", 5000)
    together: set[int] = set()
    of_this_turn: list[RpcCall] = []

    def note(call: RpcCall) -> None:
        if asyncio.current_task() is None:  # not from the handler of the call itself
            if not of_this_turn:
                asyncio.get_running_loop().call_soon(of_this_turn.clear)
            of_this_turn.append(call)
            together.add(len(of_this_turn))
        call.reply(bytes(call.message))

    server = GrpcAioServer([RpcService("test.Echo", begin={"Echo": note})], GrpcServerOptions(port=0))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo: Any = channel.unary_unary("/test.Echo/Echo")
        for _ in range(5):
            sent = [b"%d" % number for number in range(32)]
            assert await asyncio.gather(*[echo(message) for message in sent]) == sent
    await server.stop(0)
    assert max(together, default=0) > 1
