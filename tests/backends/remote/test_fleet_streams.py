"""Streams through a fleet: in order, sent again only before the first item, ended with whoever reads them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.backends.remote.timing import pause
from gateway.core.errors import BackendUnavailable, DeadlineExceeded, InvalidRequest
from gateway.core.remote import Address, AttemptError, Outcome
from gateway.testing import settle
from tests.backends.remote.endpoints import Wire, World, hang, world

FAILED = AttemptError("it broke", Outcome.FAILED)


class Server:
    """Streams `0, 1, 2 ...`; `script` says at which item each attempt raises what."""

    def __init__(self, w: World, *script: tuple[int, Exception | None], items: int = 5) -> None:
        self.w = w
        self.script = script
        self.items = items
        self.where: list[Address] = []
        self.closed = 0

    async def __call__(self, wire: Wire, _timeout_s: float | None) -> AsyncIterator[int]:
        number = len(self.where)
        self.where.append(wire.endpoint.where)
        at, error = self.script[number] if number < len(self.script) else (-1, None)
        try:
            for item in range(self.items):
                await pause(self.w.clock, 0.1)
                if item == at and error is not None:
                    raise error
                yield item
        finally:
            self.closed += 1


async def read(w: World, server: Server, *, within_s: float | None = None, most: int = 100) -> list[int]:
    deadline_s = None if within_s is None else w.clock.now_s() + within_s
    stream = w.fleet.stream(server, key="m", deadline_s=deadline_s)
    got: list[int] = []
    try:
        async for item in stream:
            got.append(item)
            if len(got) == most:
                break
    finally:
        await stream.aclose()
        assert server.closed == len(server.where), "what has begun has ended when the stream is closed"
    return got


async def test_items_come_in_order() -> None:
    """One attempt, every item, one outcome."""
    async with world(2) as w:
        server = Server(w)
        assert await w.run(read(w, server)) == [0, 1, 2, 3, 4]
        assert w.seen.attempts == {Outcome.OK: 1}
        assert server.closed == 1


async def test_an_empty_stream_is_an_answer() -> None:
    """A stream may end without an item."""
    async with world(1) as w:
        assert await w.run(read(w, Server(w, items=0))) == []
        assert w.seen.attempts == {Outcome.OK: 1}


async def test_a_failure_before_the_first_item_is_sent_elsewhere() -> None:
    """Nothing was given yet, so nothing is given twice."""
    async with world(2) as w:
        server = Server(w, (0, FAILED))
        assert await w.run(read(w, server)) == [0, 1, 2, 3, 4]
        assert len(set(server.where)) == 2
        assert w.seen.attempts == {Outcome.FAILED: 1, Outcome.OK: 1}


async def test_a_failure_after_an_item_is_the_answer() -> None:
    """Items are never given twice: the reader learns that the stream broke."""
    async with world(2) as w:
        server = Server(w, (2, FAILED))
        got: list[int] = []

        async def reading() -> None:
            async for item in w.fleet.stream(server, key="m", deadline_s=None):
                got.append(item)  # noqa: PERF401 - it ends with an error

        error = await w.outcome(reading())
        assert type(error) is BackendUnavailable
        assert got == [0, 1]
        assert w.seen.attempts == {Outcome.FAILED: 1}


@pytest.mark.parametrize("at", [0, 2])
async def test_an_answer_that_is_an_error_goes_through(at: int) -> None:
    """At any item, and never sent again."""
    async with world(2) as w:
        server = Server(w, (at, InvalidRequest("wrong")))
        assert isinstance(await w.outcome(read(w, server)), InvalidRequest)
        assert w.seen.attempts == {Outcome.OK: 1}


async def test_closing_early_calls_the_attempt_off() -> None:
    """The operation's own cleanup has run when the reader goes on."""
    async with world(1) as w:
        server = Server(w)
        assert await w.run(read(w, server, most=2)) == [0, 1]
        assert server.closed == 1
        assert w.seen.attempts == {Outcome.CANCELLED: 1}


async def test_the_deadline_holds_for_the_whole_stream() -> None:
    """However many items came, the stream ends in time."""
    async with world(1) as w:
        server = Server(w, items=100)
        began_s = w.clock.now_s()
        assert isinstance(await w.outcome(read(w, server, within_s=0.55)), DeadlineExceeded)
        assert w.clock.now_s() - began_s == pytest.approx(0.55)
        assert w.seen.attempts == {Outcome.TIMED_OUT: 1}
        assert server.closed == 1


async def test_a_reader_that_takes_its_time_is_not_cancelled() -> None:
    """Between items no limit runs that could end the reader's own work."""
    async with world(1) as w:
        stream = w.fleet.stream(Server(w), key="m", deadline_s=w.clock.now_s() + 0.3)

        async def reading() -> str:
            await anext(stream)
            await pause(w.clock, 10.0)
            with pytest.raises(DeadlineExceeded):
                await anext(stream)
            return "went on"

        assert await w.run(reading()) == "went on"


async def test_a_stream_that_hangs_is_cancelled_with_its_reader() -> None:
    """Giving up ends the attempt."""
    async with world(1) as w:

        async def hanging(_wire: Wire, _timeout_s: float | None) -> AsyncIterator[int]:
            yield 0
            await hang()

        async def reading() -> None:
            async for _ in w.fleet.stream(hanging, key="m", deadline_s=None):
                pass

        task = asyncio.ensure_future(reading())
        await settle()
        task.cancel()
        await settle()
        assert task.cancelled()
        assert w.seen.attempts == {Outcome.CANCELLED: 1}
