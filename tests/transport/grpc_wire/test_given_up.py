"""Calls of the native transport that end early or are given up: nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import gzip
import random
from typing import TYPE_CHECKING, Any

import pytest

from gateway.testing import settle
from gateway.transport.http2.limits import Limit
from tests.transport.grpc_wire.frames import (
    PREFACE,
    Code,
    Setting,
    Type,
    data,
    frame,
    message,
    open_call,
    rst_stream,
    settings,
    whole_call,
    window_update,
)

if TYPE_CHECKING:
    from tests.transport.grpc_wire.methods import Methods

EXPIRED, NOT_FOUND, EXHAUSTED = 4, 5, 8
MIB = 1 << 20
BROKEN = bytes(2000)
SOUND = gzip.compress(random.Random(1).randbytes(100_000))


def granting(size: int) -> bytes:
    """Return a greeting that grants `size` bytes for each stream, and many for the connection."""
    return PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, size)) + window_update(0, MIB)


async def test_half_messages_of_streams_that_end_are_free(guarded: Any, connect: Any) -> None:
    """A method may end while its client is still sending."""
    server = await guarded(max_buffered_bytes=200_000)
    wire = await connect(server, greeting=granting(MIB))
    half = message(bytes(50_000))[:16_000]
    for stream_id in range(1, 101, 2):
        wire.send(open_call(stream_id, "StreamFail") + data(stream_id, half))
        assert (await wire.answer(stream_id)).grpc_status == NOT_FOUND
    wire.send(open_call(101, "Unary"))
    await wire.upload(101, message(bytes(190_000)))
    assert (await wire.answer(101)).messages() == [bytes(190_000)]


async def test_empty_messages_are_charged(guarded: Any, connect: Any) -> None:
    """They cost memory while nobody reads them, although they have no bytes of their own."""
    server = await guarded(max_buffered_bytes=MIB)
    wire = await connect(server)
    wire.send(open_call(1, "Sip") + data(1, message() * 3000))
    await wire.pong()
    assert not wire.answer_of(1).over
    for _ in range(5):
        wire.send(data(1, message() * 3000))
    assert (await wire.answer(1)).grpc_status == EXHAUSTED
    assert server.fired[Limit.BUFFERED] == 1
    await wire.echo(101)


async def test_empty_messages_use_the_window_up(guarded: Any, connect: Any, methods: Methods) -> None:
    """Until they are read; then all of them arrive."""
    server = await guarded(stream_window_bytes=65_535)
    wire = await connect(server)
    wire.send(open_call(1, "Sip"))
    count = 30_000
    uploading = asyncio.create_task(wire.upload(1, message() * count))
    await methods.arrived.wait()
    before = -1
    while wire.sent_bytes != before:
        before = wire.sent_bytes
        await settle(200)
    assert before < 100_000
    for _ in range(count + 1):
        methods.sips.release()
    await uploading
    assert (await wire.answer(1)).messages() == [str(count).encode()]


async def test_a_method_that_only_sends_is_stopped(guarded: Any, connect: Any, methods: Methods) -> None:
    """One whose stream was reset for want of room, and that waits for nothing else."""
    server = await guarded(max_unsent_bytes=100_000)
    wire = await connect(server, greeting=granting(0))
    wire.send(open_call(1, "Flood") + open_call(3, "Flood"))
    assert (await wire.answer(3)).reset == Code.ENHANCE_YOUR_CALM
    await methods.cancelled.wait()
    assert methods.cancellations == 1
    assert server.fired[Limit.UNSENT] == 1
    wire.send(whole_call(5, b"no", "Fail"))
    assert (await wire.answer(5)).grpc_status == NOT_FOUND


async def test_a_call_given_up_twice_counts_once(guarded: Any, connect: Any, methods: Methods) -> None:
    """By its deadline, and by a client that does not wait for the end of the answer."""
    server = await guarded(max_concurrent_rpcs=1)
    wire = await connect(server, greeting=granting(0))
    wire.send(open_call(1, "Linger", ("grpc-timeout", "200m")))
    await methods.cancelled.wait()
    wire.send(rst_stream(1) + whole_call(3))
    assert (await wire.answer(3)).grpc_status == EXHAUSTED  # the method is still at work
    methods.let_end.set()
    await settle(20)
    wire.send(whole_call(5, b"x", "Hold") + whole_call(7))
    assert (await wire.answer(7)).grpc_status == EXHAUSTED
    assert len(methods.calls) == 1


async def test_a_call_whose_connection_ends_inside_a_frame_counts_no_longer(
    guarded: Any, connect: Any, methods: Methods
) -> None:
    """Behind its message, which its method has let go of without an answer."""
    server = await guarded(max_concurrent_rpcs=1)
    wire = await connect(server)
    wire.send(open_call(1, "Forget") + frame(Type.DATA, 0, 1, message(b"x"), length=1000))
    while "Forget" not in methods.seen:
        await settle(1)
    wire.close()
    after = await connect(server)
    for stream_id in range(1, 2001, 2):
        after.send(whole_call(stream_id))
        if (await after.answer(stream_id)).grpc_status == 0:
            break
    assert methods.seen.get("Echo") == 1


@pytest.mark.parametrize("method", ["StreamWait", "UnaryWait"])
async def test_a_call_reset_before_it_ran_counts_no_longer(
    guarded: Any, connect: Any, methods: Methods, method: str
) -> None:
    """Its task is cancelled before its first step, so nothing of the method runs, not even its end."""
    server = await guarded(max_concurrent_rpcs=5)
    wire = await connect(server)
    for first in range(1, 101, 10):
        calls = [whole_call(i, method=method) + rst_stream(i) for i in range(first, first + 10, 2)]
        wire.send(b"".join(calls))
        await wire.pong()
    await wire.echo(101)
    assert not methods.arrived.is_set()


@pytest.mark.parametrize("body", [BROKEN, SOUND])
@pytest.mark.parametrize("method", ["Echo", "Unary", "Stream"])
async def test_a_message_nobody_waits_for_leaves_nothing(
    guarded: Any, connect: Any, caplog: pytest.LogCaptureFixture, method: str, body: bytes
) -> None:
    """A thread inflates it while its client goes away: the call counts until then, and no longer."""
    server = await guarded(max_concurrent_rpcs=1, max_buffered_bytes=200_000)
    wire = await connect(server, greeting=granting(MIB))
    compressed = message(body, compressed=1)
    for stream_id in range(1, 41, 4):
        wire.send(open_call(stream_id, method, ("grpc-encoding", "gzip")))
        await wire.upload(stream_id, compressed, end=False)
        wire.send(rst_stream(stream_id))
        await wire.pong()
    for stream_id in range(1001, 100_001, 2):
        wire.send(whole_call(stream_id))
        if (await wire.answer(stream_id)).grpc_status == 0:
            break
    gc.collect()
    wire.send(open_call(100_001, "Unary"))
    await wire.upload(100_001, message(bytes(190_000)))
    assert (await wire.answer(100_001)).messages() == [bytes(190_000)]
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_a_method_may_stop_waiting_for_a_message(
    guarded: Any, connect: Any, methods: Methods, caplog: pytest.LogCaptureFixture
) -> None:
    """One that a thread inflates; what the thread brings is nobody's then."""
    wire = await connect(await guarded(), greeting=granting(MIB))
    wire.send(open_call(1, "GiveUpReading", ("grpc-encoding", "gzip")))
    await wire.upload(1, message(SOUND, compressed=1))
    await wire.pong()
    methods.sips.release()
    await wire.until(lambda: len(wire.answer_of(1).body) > 0)
    wire.send(open_call(3, "Unary", ("grpc-encoding", "gzip")))
    await wire.upload(3, message(SOUND, compressed=1))
    assert (await wire.answer(3)).grpc_status == 0
    methods.sips.release()
    assert (await wire.answer(1)).messages() == [b"gave up"]
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_an_expired_stream_ends_in_order(guarded: Any, connect: Any, methods: Methods) -> None:
    """Whole messages, then the status; a reset comes behind it and says that nothing was wrong."""
    wire = await connect(await guarded(), greeting=granting(100_000))
    wire.send(open_call(1, "Flood", ("grpc-timeout", "200m")))
    await methods.cancelled.wait()
    await wire.pong()
    assert not wire.answer_of(1).over  # there is no window for what was begun
    wire.send(window_update(1, MIB))
    await wire.until(lambda: wire.answer_of(1).reset is not None)
    answer = wire.answer_of(1)
    assert (answer.ended, answer.grpc_status, answer.reset) == (True, EXPIRED, Code.NO_ERROR)
    assert answer.messages() == [bytes(1 << 16)] * 2
