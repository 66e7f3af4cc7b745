"""Clients that mean harm to the native transport: each limit fires, is counted, and hurts nobody else."""

from __future__ import annotations

import asyncio
import gc
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.testing import settle
from gateway.transport.http2.limits import Limit
from tests.transport.grpc_wire.frames import (
    GREETING,
    PREFACE,
    Code,
    Setting,
    Type,
    block,
    continuation,
    data,
    frame,
    headers,
    message,
    open_call,
    ping,
    priority,
    request_fields,
    rst_stream,
    settings,
    whole_call,
    window_update,
)
from tests.transport.grpc_wire.wire import PATIENCE_S, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.transport.grpc_wire.methods import Methods

EXHAUSTED, EXPIRED = 8, 4
FOREVER_S = 3600.0
CALM = Code.ENHANCE_YOUR_CALM
BLOCK = block(request_fields())
KIB, MIB = 1 << 10, 1 << 20


async def others_are_served(guarded: Any) -> None:
    wire = await Wire.open(guarded.port)
    try:
        await wire.echo(1)
    finally:
        wire.close()


def reset_by_itself(stream_id: int) -> bytes:
    return whole_call(stream_id, method="Hold") + rst_stream(stream_id)


def reset_by_increment(stream_id: int) -> bytes:
    return whole_call(stream_id, method="Hold") + window_update(stream_id, 0)


def reset_by_window(stream_id: int) -> bytes:
    return whole_call(stream_id, method="Hold") + window_update(stream_id, 2**31 - 1)


def reset_by_length(stream_id: int) -> bytes:
    fields = request_fields("Unary", ("content-length", "3"))
    return headers(stream_id, block(fields)) + data(stream_id, message(b"x"), end=True)


RESETS = [reset_by_itself, reset_by_increment, reset_by_window, reset_by_length]


@pytest.mark.parametrize("attack", RESETS)
async def test_resets_are_counted(guarded: Any, connect: Any, attack: Callable[[int], bytes]) -> None:
    """Streams that the client resets, or makes the server reset, end the connection when there are many."""
    server = await guarded(max_resets=20, abuse_interval_s=FOREVER_S)
    wire = await connect(server)
    for number in range(20):
        wire.send(attack(1 + 2 * number))
    await wire.echo(101)
    for number in range(60, 70):
        wire.send(attack(1 + 2 * number))
    assert await wire.end() == CALM
    assert server.fired[Limit.RESETS]
    await others_are_served(server)


@pytest.mark.parametrize("attack", RESETS[:3])
async def test_a_reset_frees_no_work(
    guarded: Any, connect: Any, methods: Methods, attack: Callable[[int], bytes]
) -> None:
    """What a method has begun counts against the limit on calls until it is done with it."""
    server = await guarded(max_concurrent_rpcs=5, max_resets=10_000)
    wire = await connect(server)
    for number in range(100):
        wire.send(attack(1 + 2 * number))
    wire.send(whole_call(1001))
    assert (await wire.answer(1001)).grpc_status == EXHAUSTED
    assert len(methods.calls) == 5
    assert methods.cancellations == 5
    for call in methods.calls:
        call.reply(b"late")
    await wire.echo(1003)


async def test_a_call_that_its_method_forgets_is_freed(guarded: Any, connect: Any, methods: Methods) -> None:
    """Work that nobody can answer any more counts no longer."""
    server = await guarded(max_concurrent_rpcs=5)
    wire = await connect(server)
    for number in range(5):
        wire.send(whole_call(1 + 2 * number, method="Forget") + rst_stream(1 + 2 * number))
    await wire.echo(101)
    assert methods.seen["Forget"] == 5


@pytest.mark.parametrize("size", [0, 1, 30])
async def test_a_continuation_flood_is_ended(guarded: Any, connect: Any, size: int) -> None:
    """However little each frame brings."""
    server = await guarded(max_continuations=50)
    wire = await connect(server)
    wire.send(headers(1, BLOCK, end_headers=False))
    wire.send(b"".join(continuation(1, b"\x00\x01a\x01b" * size) for _ in range(200)))
    assert await wire.end() == CALM
    assert server.fired[Limit.CONTINUATIONS]
    await others_are_served(server)


async def test_a_large_header_block_is_ended(guarded: Any, connect: Any) -> None:
    """In few frames too."""
    server = await guarded(max_header_block_bytes=10_000)
    wire = await connect(server)
    wire.send(headers(1, BLOCK + bytes(9000), end_headers=False) + continuation(1, bytes(9000)))
    assert await wire.end() == CALM
    assert server.fired[Limit.HEADER_BLOCK]
    await others_are_served(server)


@pytest.mark.parametrize("references", [100, 10_000])
async def test_a_header_bomb_is_refused(guarded: Any, connect: Any, references: int) -> None:
    """A few bytes that refer to a large field again and again are charged what they become."""
    server = await guarded(max_metadata_bytes=16 * KIB)
    wire = await connect(server)
    large = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000  # a field of 4 KB for the dynamic table
    wire.send(headers(1, BLOCK + large) + data(1, message(), end=True))
    assert (await wire.answer(1)).grpc_status == 0
    wire.send(headers(3, BLOCK + b"\xbe" * references) + data(3, message(), end=True))
    answer = await wire.answer(3)
    assert answer.grpc_status == EXHAUSTED or await wire.end() == CALM, wire.described()
    assert server.fired[Limit.METADATA] + server.fired[Limit.HEADER_BLOCK]
    await others_are_served(server)


FLOODS = {
    "SETTINGS": settings(),
    "PING": ping(),
    "acknowledged PING": ping(ack=True),
    "PRIORITY": priority(1),
    "WINDOW_UPDATE": window_update(0, 1),
    "WINDOW_UPDATE of a stream": window_update(1, 1),
    "empty DATA": data(1),
    "padded DATA": data(1, padding=3),
    "unknown": frame(0xBB),
    "RST_STREAM": rst_stream(3),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_small_frames_is_ended(guarded: Any, connect: Any, name: str) -> None:
    """Of every kind that costs work and brings nothing."""
    server = await guarded(max_control_frames=100, abuse_interval_s=FOREVER_S, min_ping_interval_s=0.0)
    wire = await connect(server, polite=False)
    wire.send(open_call(1, "Stream") + open_call(3, "Stream") + rst_stream(3))
    wire.send(FLOODS[name] * 80)
    await wire.echo(2**31 - 1)  # a large identifier is no sign of many calls
    wire.send(FLOODS[name] * 200)
    assert await wire.end() == CALM, wire.described()
    assert server.fired[Limit.CONTROL_FRAMES], server.fired
    await others_are_served(server)


async def test_pings_without_calls_are_too_many(guarded: Any, connect: Any) -> None:
    """As grpcio's servers say it, for clients that know (gRPC proposal A8)."""
    server = await guarded(min_ping_interval_s=FOREVER_S)
    wire = await connect(server)
    for number in range(10):
        wire.send(ping(b"%08d" % number))
    assert await wire.end() == CALM
    assert wire.debug == b"too_many_pings"
    assert server.fired[Limit.PINGS]
    await others_are_served(server)


async def test_answers_nobody_reads_are_bounded(guarded: Any, connect: Any, methods: Methods) -> None:
    """Those beyond the limit are reset; the connection goes on, and so do others."""
    server = await guarded(max_unsent_bytes=300_000)
    wire = await connect(server, greeting=PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 0)))
    streams = range(1, 81, 2)
    for stream_id in streams:
        wire.send(whole_call(stream_id, b"50000", "Size"))
    await wire.pong()
    refused = [stream_id for stream_id in streams if wire.answer_of(stream_id).over]
    assert 30 <= len(refused) <= 36
    assert all(wire.answer_of(stream_id).reset is not None for stream_id in refused)
    assert server.fired[Limit.UNSENT] == len(refused)
    wire.send(settings((Setting.INITIAL_WINDOW_SIZE, MIB)) + window_update(0, MIB))
    for stream_id in set(streams) - set(refused):
        assert (await wire.answer(stream_id)).messages() == [bytes(50_000)]
    await others_are_served(server)


@pytest.mark.parametrize("method", ["Size", "Flood"])
async def test_a_reader_without_window_is_given_up(
    guarded: Any, connect: Any, methods: Methods, method: str
) -> None:
    """After a time without progress its stream is reset and its memory free; the connection goes on."""
    server = await guarded(send_timeout_s=0.3, max_unsent_bytes=100_000, max_concurrent_rpcs=1)
    wire = await connect(server, greeting=PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 10)))
    wire.send(whole_call(1, b"90000", method))
    assert (await wire.answer(1)).reset is not None
    assert server.fired[Limit.SEND_TIMEOUT] == 1
    if method == "Flood":
        await methods.cancelled.wait()
    wire.send(settings((Setting.INITIAL_WINDOW_SIZE, MIB)) + window_update(0, MIB))
    wire.send(whole_call(3, b"90000", "Size"))
    assert (await wire.answer(3)).messages() == [bytes(90_000)]


async def test_a_client_that_reads_nothing_is_cut_off(guarded: Any, connect: Any, methods: Methods) -> None:
    """One whose window is wide open but whose socket is full."""
    server = await guarded(send_timeout_s=0.3, preface_timeout_s=FOREVER_S)
    greeting = PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 2**31 - 1)) + window_update(0, 2**30)
    wire = await connect(server, greeting=greeting)
    wire.stop_reading()
    wire.send(whole_call(1, b"", "Flood"))
    async with asyncio.timeout(PATIENCE_S):
        await methods.cancelled.wait()
    assert server.fired[Limit.SEND_TIMEOUT]
    assert methods.sent < 10_000  # of 64 KiB
    await others_are_served(server)


SLOW_HEADS = {
    "a block without end": headers(1, BLOCK[:20], end_headers=False),
    "half a frame": headers(1, BLOCK)[:30],
    "half a frame's head": headers(1, BLOCK)[:5],
}


@pytest.mark.parametrize("name", SLOW_HEADS)
async def test_slow_headers_end_the_connection(guarded: Any, connect: Any, name: str) -> None:
    """A block must come within its time once it has begun."""
    server = await guarded(header_timeout_s=0.05)
    wire = await connect(server, polite=False)
    wire.send(SLOW_HEADS[name])
    await wire.end()
    assert server.fired[Limit.HEADER_TIMEOUT] == 1
    await others_are_served(server)


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE, PREFACE + settings()[:4]])
async def test_a_connection_that_says_nothing_is_closed(guarded: Any, connect: Any, sent: bytes) -> None:
    """Before it has said that it speaks HTTP/2."""
    server = await guarded(preface_timeout_s=0.05)
    wire = await connect(server, greeting=sent, polite=False)
    await wire.end()
    assert server.fired[Limit.PREFACE_TIMEOUT] == 1


@pytest.mark.parametrize("method", ["Echo", "Stream"])
@pytest.mark.parametrize("sent", [message(b"x" * 100)[:50], message(b"x")[:3]])
async def test_a_slow_body_ends_its_call(guarded: Any, connect: Any, method: str, sent: bytes) -> None:
    """A message must come within its time once it has begun; the connection goes on."""
    server = await guarded(body_timeout_s=0.05, min_body_rate=1e9)
    wire = await connect(server)
    wire.send(open_call(1, method) + data(1, sent))
    assert (await wire.answer(1)).grpc_status == EXPIRED
    assert server.fired[Limit.BODY_TIMEOUT] == 1
    await wire.echo(3)


async def test_a_stream_may_wait_between_messages(guarded: Any, connect: Any) -> None:
    """Only a message that has begun is hurried."""
    server = await guarded(body_timeout_s=0.05, min_body_rate=1e9)
    wire = await connect(server)
    wire.send(open_call(1, "Stream") + data(1, message(b"a")))
    late = await connect(server)
    late.send(open_call(1) + data(1, message(b"x")[:2]))
    assert (await late.answer(1)).grpc_status == EXPIRED  # by then the stream above has waited as long
    wire.send(data(1, message(b"b"), end=True))
    assert (await wire.answer(1)).messages() == [b"re:a", b"re:b", b"end"]


async def test_half_messages_are_bounded_together(guarded: Any, connect: Any) -> None:
    """Over all connections; what is given up is free again."""
    server = await guarded(max_buffered_bytes=MIB)
    wires = [await connect(server) for _ in range(3)]
    half = message(bytes(800_000))[:400_000]
    for wire in wires:
        wire.send(open_call(1))
        await wire.upload(1, half[:-1], end=False)
    statuses = []
    for wire in wires:
        await wire.pong()
        statuses.append(wire.answer_of(1).grpc_status)
    assert sorted(statuses, key=str) == [EXHAUSTED, None, None]
    assert server.fired[Limit.BUFFERED]
    for wire in wires:
        wire.send(rst_stream(1))
        await wire.pong()
    for wire in wires:
        wire.send(open_call(3, "Unary") + window_update(0, MIB) + window_update(3, MIB))
        await wire.upload(3, message(bytes(900_000)))
        assert (await wire.answer(3)).messages() == [bytes(900_000)]


async def test_idle_connections_are_cheap(guarded: Any, connect: Any) -> None:
    """At most 50 KiB of memory each, one call on each made before."""
    count = 500
    server = await guarded()
    await others_are_served(server)
    sockets = []
    try:
        before = resident_bytes()
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", server.port))
            sockets.append(one)
            one.sendall(GREETING + whole_call(1))
            await settle(3)
        await others_are_served(server)
        gc.collect()
        assert (resident_bytes() - before) / count <= 50 * KIB
    finally:
        for one in sockets:
            one.close()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 * KIB


async def test_nothing_is_left_of_a_broken_connection(guarded: Any, connect: Any, methods: Methods) -> None:
    """Its calls are cancelled, and its bytes free."""
    server = await guarded(max_concurrent_rpcs=3, max_buffered_bytes=100_000)
    wire = await connect(server)
    wire.send(whole_call(1, b"x", "Hold") + open_call(3, "StreamWait") + open_call(5))
    wire.send(data(5, message(bytes(90_000))[:16_000]))
    await wire.pong()
    await methods.arrived.wait()
    wire.send(frame(Type.PING, 0, 1, bytes(8)))
    assert await wire.end() == Code.PROTOCOL_ERROR
    assert methods.cancellations == 2
    methods.calls[0].reply(b"late")
    other = await connect(server)
    other.send(open_call(1, "Unary") + window_update(0, MIB) + window_update(1, MIB))
    await other.upload(1, message(bytes(90_000)))
    assert (await other.answer(1)).messages() == [bytes(90_000)]
