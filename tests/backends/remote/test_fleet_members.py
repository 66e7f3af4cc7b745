"""Endpoints that come and go: connections are made once, kept while they are needed, and closed."""

import asyncio
import logging

import pytest

from gateway.core.errors import BackendUnavailable, GatewayError
from gateway.core.remote import EndpointState
from gateway.testing import settle
from tests.backends.remote.endpoints import address, world


async def test_new_endpoints_are_used_and_gone_ones_are_not() -> None:
    """The set that the source gives is the set that serves."""
    async with world(2) as w:
        w.source.push([address(1), address(2)])
        await w.spend(0.1)
        assert list(w.fleet.addresses()) == [address(1), address(2)]
        before = w[0].attempts
        for _ in range(20):
            await w.run(w.call())
        assert w[0].attempts == before
        assert w[2].attempts > 0
        assert (w[0].connections, w[0].closed) == (1, 1)
        assert w[0].probes == 1


async def test_one_that_is_gone_finishes_what_it_has() -> None:
    """Its connection is closed when its last attempt has ended."""
    async with world(1) as w:
        w[0].delay_s = 5.0
        call = asyncio.ensure_future(w.call("done"))
        await settle()
        w.source.push([address(1)])
        await w.spend(1.0)
        assert w[0].closed == 0
        assert {v.address: v.state for v in w.fleet.views()}[address(0)] is EndpointState.DRAINING
        assert await w.run(call) == "done"
        assert w[0].closed == 1
        assert [v.address for v in w.fleet.views()] == [address(1)]


async def test_one_that_does_not_finish_is_cut_off() -> None:
    """After `drain_s` the connection goes, and what is left on it fails like any connection lost."""
    async with world(1, drain_s=3.0) as w:
        w[0].hangs = True
        call = asyncio.ensure_future(w.call(within_s=60.0))
        await settle()
        w.source.push([address(1)])
        await w.spend(2.9)
        assert w[0].closed == 0
        await w.spend(0.2)
        assert w[0].closed == 1
        call.cancel()
        await settle()
        assert call.cancelled()
        w.idle()


async def test_one_that_comes_back_goes_on_with_its_connection() -> None:
    """An address that flaps while it is busy is the same endpoint."""
    async with world(2) as w:
        w[0].delay_s = w[1].delay_s = 2.0
        calls = [asyncio.ensure_future(w.call(number)) for number in range(8)]
        await settle()
        for _ in range(5):
            w.source.push([address(1)])
            await w.spend(0.05)
            w.source.push([address(0), address(1)])
            await w.spend(0.05)
        assert [await w.run(call) for call in calls] == list(range(8))
        assert (w[0].connections, w[0].closed) == (1, 0)
        w.balanced()


async def test_a_name_that_flaps_costs_no_request() -> None:
    """Endpoints come and go every 50 ms under load, down to one; every request is answered once."""
    async with world(3) as w:
        for number in range(3):
            w[number].delay_s = 0.03

        async def flap() -> None:
            for turn in range(60):
                w.source.push([address(n) for n in range(3) if n != turn % 4])
                await w.spend(0.05)
            w.source.push([address(n) for n in range(3)])

        async def client(first: int) -> list[int]:
            return [await w.call(first * 1000 + number) for number in range(60)]

        clients = [asyncio.ensure_future(client(number)) for number in range(8)]
        await flap()
        answers = [await w.run(one) for one in clients]
        assert answers == [[number * 1000 + n for n in range(60)] for number in range(8)]
        w.balanced()


async def test_a_source_that_breaks_leaves_the_endpoints() -> None:
    """A fault in finding endpoints is logged; those known go on serving."""
    async with world(1) as w:

        def broken(_addresses: object) -> None:
            raise RuntimeError("a fault")

        w.fleet._set = broken  # type: ignore[method-assign, assignment]
        w.source.push([])
        await w.spend(0.1)
        assert await w.run(w.call("on")) == "on"


async def test_a_connection_that_cannot_be_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It keeps nothing else from closing."""
    async with world(2) as w:
        wire = w.fleet.connection(address(0))
        close = wire.aclose

        async def broken() -> None:
            await close()
            raise RuntimeError("a fault")

        wire.aclose = broken  # type: ignore[method-assign]
        with caplog.at_level(logging.ERROR):
            await w.fleet.__aexit__(None, None, None)
    assert "closing the connection" in caplog.text


async def test_probed_waits_for_every_endpoint() -> None:
    """An endpoint that does not answer is known to be so after the time it has."""
    async with world(2, push=False, connect_timeout_s=2.0) as w:
        w[1].hangs = True
        w.source.push([address(0), address(1)])
        began_s = w.clock.now_s()
        await w.run(w.fleet.wait_probed())
        assert w.clock.now_s() - began_s == pytest.approx(2.0)
        assert await w.run(w.call(among=[address(0)])) == 1


async def test_capacity_is_that_of_the_available_endpoints() -> None:
    """Nothing is there before an endpoint is ready."""
    async with world(2, push=False) as w:
        assert w.fleet.capacity == 0
        w.source.push([address(0), address(1)])
        await w.run(w.fleet.wait_probed())
        assert w.fleet.capacity == 32


async def test_the_last_endpoint_gone_answers_those_in_line() -> None:
    """Whoever waits for room learns that there will be none."""
    async with world(1) as w:
        w[0].delay_s = 5.0
        calls = [asyncio.ensure_future(w.call(number)) for number in range(20)]
        await settle()
        w.source.push([])
        await settle()
        waiting = [call for call in calls if call.done()]
        assert len(waiting) == 4
        assert all(isinstance(call.exception(), BackendUnavailable) for call in waiting)
        answered = await w.run(asyncio.gather(*calls, return_exceptions=True))
        assert sum(not isinstance(answer, GatewayError) for answer in answered) == 16
        w.balanced()
