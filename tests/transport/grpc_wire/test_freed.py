"""What a connection of the native transport held is free when it is gone, without a garbage collection."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from gateway.transport.grpc_native import GrpcNativeServer
from gateway.transport.grpc_native_connection import GrpcConnection
from gateway.transport.http2.connection import Connection
from gateway.transport.http2.sender import Sender
from gateway.transport.options import GrpcServerOptions
from tests.transport.grpc_wire.frames import open_call, whole_call
from tests.transport.grpc_wire.methods import Methods
from tests.transport.grpc_wire.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = (GrpcConnection, Connection, Sender)
CONNECTIONS = 5


def parts() -> int:
    return sum(isinstance(thing, PARTS) for thing in gc.get_objects())


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("unfinished", [b"", open_call(3), whole_call(3, method="UnaryWait")])
async def test_connections_leave_nothing_behind(unfinished: bytes) -> None:
    """Closed after an answer, in mid request, and with a call that waits."""
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
