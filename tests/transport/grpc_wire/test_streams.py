"""What grpcio clients see of both transports: streams in both directions, and how they hold back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from tests.transport.grpc_wire.methods import NAMED, SERVICE
from tests.transport.grpc_wire.servers import OWN_CONNECTION, call, failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.transport.grpc_wire.methods import Methods
    from tests.transport.grpc_wire.servers import GrpcServer

MIB = 1 << 20


def stream_of(channel: grpc.aio.Channel, method: str, **options: Any) -> Any:
    multicallable: Any = channel.stream_stream(f"/{SERVICE}/{method}")
    return multicallable(**options)


async def test_a_stream_goes_both_ways(start: Any, methods: Methods) -> None:
    """Requests are iterated until the client half-closes, and responses come as they are sent."""
    _, channel = await start()
    stream = stream_of(channel, "Stream", metadata=(("a", "1"),))
    for text in (b"a", b"", b"c" * 100_000, bytes(10 * MIB)):
        await stream.write(text)
        assert await stream.read() == b"re:" + text
    await stream.done_writing()
    assert await stream.read() == b"end"
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    assert methods.facts["metadata"]["a"] == "1"
    assert methods.facts["deadline_s"] is None
    assert "127.0.0.1" in methods.facts["peer"]


async def test_an_empty_stream_is_one(start: Any) -> None:
    """No request at all."""
    _, channel = await start()
    stream = stream_of(channel, "Stream")
    await stream.done_writing()
    assert [message async for message in stream] == [b"end"]


async def test_a_stream_may_be_long(start: Any) -> None:
    """Thousands of messages of differing sizes, in order, written as fast as they go."""
    _, channel = await start()
    stream = stream_of(channel, "Stream")
    messages = [b"%d" % number * (number % 300) for number in range(2000)]

    async def write() -> None:
        for message in messages:
            await stream.write(message)
        await stream.done_writing()

    writing = asyncio.create_task(write())
    assert [m async for m in stream] == [*(b"re:" + message for message in messages), b"end"]
    await writing


async def test_a_server_stream_has_one_request(start: Any) -> None:
    """The request is iterated once, an empty one too."""
    _, channel = await start()
    for message in (b"x", b""):
        stream = channel.unary_stream(f"/{SERVICE}/ServerStream")(message)
        assert [response async for response in stream] == [b"re:" + message, b"end"]


@pytest.mark.parametrize(
    ("method", "code", "details"),
    [
        ("StreamFail", grpc.StatusCode.NOT_FOUND, NAMED.message),
        ("StreamRaise", grpc.StatusCode.INTERNAL, "internal error"),
    ],
)
async def test_a_stream_fails_after_its_responses(
    start: Any, method: str, code: grpc.StatusCode, details: str
) -> None:
    """What was sent before the failure arrives, then the status; requests may still be on their way."""
    _, channel = await start()
    stream = stream_of(channel, method)
    assert await stream.read() == b"one"
    error = await failure(stream.read())
    assert (error.code(), error.details()) == (code, details)
    assert await call(channel, "Echo", b"next") == b"next"


@pytest.mark.parametrize("method", ["StreamWait", "Flood"])
async def test_a_cancelled_stream_tells_its_method(start: Any, methods: Methods, method: str) -> None:
    """The coroutine is cancelled when the client gives the stream up, wherever it waits."""
    _, channel = await start()
    stream = stream_of(channel, method)
    await stream.write(b"x")
    await methods.arrived.wait()
    stream.cancel()
    await methods.cancelled.wait()
    assert await call(channel, "Echo", b"next") == b"next"


async def test_a_stream_that_reads_is_cancelled(start: Any, methods: Methods) -> None:
    """A method that waits for the next request hears of it too."""
    _, channel = await start()
    stream = stream_of(channel, "Sip")
    await stream.write(b"x")
    await methods.arrived.wait()
    for _ in range(2):
        methods.sips.release()
    await methods.progress.wait()
    stream.cancel()
    assert await call(channel, "Echo", b"next") == b"next"
    assert methods.read == 1


@pytest.mark.parametrize("method", ["StreamWait", "Flood"])
async def test_an_expired_stream_is_cancelled(start: Any, methods: Methods, method: str) -> None:
    """Streams have deadlines too, and the client's timer and the server's say the same."""
    _, channel = await start()
    await call(channel, "Echo")  # connects, which would be part of the time
    stream = stream_of(channel, method, timeout=0.2)
    await methods.arrived.wait()
    await methods.cancelled.wait()
    assert await stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("method", ["Flood", "ServerFlood"])
async def test_a_slow_reader_stops_the_method(start: Any, methods: Methods, method: str) -> None:
    """`send` waits while the client does not read, and goes on when it does."""
    server, channel = await start()
    if method == "Flood":
        stream = stream_of(channel, method)
    else:
        stream = channel.unary_stream(f"/{SERVICE}/{method}")(b"")
    await methods.arrived.wait()
    before = await at_rest(lambda: methods.sent, server)
    assert before < 1000  # of 64 KiB each
    for _ in range(before + 10):
        assert len(await stream.read()) == 1 << 16
    await reaches(methods, lambda: methods.sent >= before + 10)
    stream.cancel()
    await methods.cancelled.wait()


async def test_a_slow_method_stops_the_writer(start: Any, methods: Methods) -> None:
    """`write` waits while the method does not read; nothing is lost when it does."""
    server, channel = await start()
    stream = stream_of(channel, "Sip")
    written = 0

    async def write() -> None:
        nonlocal written
        for _ in range(2000):
            await stream.write(bytes(1 << 16))
            written += 1
        await stream.done_writing()

    writing = asyncio.create_task(write())
    await methods.arrived.wait()
    assert await at_rest(lambda: written, server) < 2000
    for _ in range(2001):
        methods.sips.release()
    await writing
    assert await stream.read() == b"2000"


async def test_many_streams_share_a_connection(start: Any) -> None:
    """Each has its own messages, interleaved with those of others."""
    _, channel = await start()

    async def converse(number: int) -> None:
        stream = stream_of(channel, "Stream")
        for turn in range(10):
            text = b"%d/%d" % (number, turn) * 50
            await stream.write(text)
            assert await stream.read() == b"re:" + text
        await stream.done_writing()
        assert await stream.read() == b"end"

    await asyncio.gather(*(converse(number) for number in range(50)))


async def at_rest(value: Callable[[], int], server: GrpcServer) -> int:
    """Return what a counter says when calls on another connection see it stand still."""
    before, quiet = -1, 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=OWN_CONNECTION) as other:
        while quiet < 20:
            await call(other, "Unary")
            quiet = quiet + 1 if value() == before else 0
            before = value()
    return before


async def reaches(methods: Methods, holds: Callable[[], bool]) -> None:
    while not holds():
        methods.progress.clear()
        await methods.progress.wait()
