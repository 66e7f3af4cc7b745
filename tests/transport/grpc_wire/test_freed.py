"""What a connection of the native transport held is free when it is gone, without a garbage collection."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from gateway.transport.grpc_native import GrpcNativeServer
from gateway.transport.grpc_native_call import NativeCall
from gateway.transport.grpc_native_connection import GrpcConnection
from gateway.transport.http2.connection import Connection
from gateway.transport.http2.sender import Sender
from gateway.transport.options import GrpcServerOptions
from tests.transport.grpc_wire.frames import (
    PREFACE,
    Setting,
    Type,
    continuation,
    frame,
    message,
    open_call,
    rst_stream,
    settings,
    whole_call,
    window_update,
)
from tests.transport.grpc_wire.methods import Methods
from tests.transport.grpc_wire.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = (GrpcConnection, Connection, Sender, NativeCall)
CONNECTIONS = 5
INSIDE_A_FRAME = open_call(3, "Forget") + frame(Type.DATA, 0, 3, message(b"x"), length=1000)


def parts(*kinds: type) -> int:
    return sum(isinstance(thing, kinds or PARTS) for thing in gc.get_objects())


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(
    "unfinished",
    [
        b"",
        open_call(3),
        whole_call(3, method="UnaryWait"),
        whole_call(3, b"1000000", "Size"),
        open_call(3, "Flood"),
        INSIDE_A_FRAME,
        continuation(3),
    ],
    ids=["answered", "open", "waits", "unsent", "unsent_stream", "frame", "fault"],
)
async def test_connections_leave_nothing_behind(unfinished: bytes) -> None:
    """Closed after an answer, in mid request, with a call that waits or is not sent, and for a fault."""
    before = parts()
    server = GrpcNativeServer([Methods().service()], GrpcServerOptions(port=0))
    await server.start()
    for _ in range(CONNECTIONS):
        wire = await Wire.open(server.port)
        wire.send(whole_call(1) + unfinished)
        await wire.answer(1)
        wire.close()
    await server.stop(0.0)
    assert parts() == before


@pytest.mark.usefixtures("uncollected")
async def test_calls_that_are_reset_leave_nothing_behind(guarded: Any, connect: Any) -> None:
    """Not even if their answers wait for a window that is never opened."""
    wire = await connect(await guarded())
    before = parts(NativeCall)
    for stream_id in range(1, 41, 2):
        wire.send(whole_call(stream_id, b"100000", "Size"))
        await wire.pong()
        wire.send(rst_stream(stream_id))
        await wire.pong()
    assert parts(NativeCall) == before


async def test_an_answered_message_is_free(guarded: Any, connect: Any, methods: Methods) -> None:
    """Though its answer waits for a window, and the call with it."""
    wire = await connect(await guarded(), greeting=PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, 0)))
    wire.send(whole_call(1, bytes(10_000), "Hold"))
    await methods.arrived.wait()
    call = methods.calls[0]
    assert len(call.message) == 10_000
    call.reply(b"later")
    assert len(call.message) == 0
    wire.send(window_update(1, 1000))
    assert (await wire.answer(1)).messages() == [b"later"]
