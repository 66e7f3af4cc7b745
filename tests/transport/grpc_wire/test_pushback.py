"""A refusal that says when to try again keeps its code, and says so on either transport."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from gateway.core.calls import RpcService, RpcStatus
from gateway.core.errors import Overloaded
from gateway.protocol.status import status_of
from gateway.transport.options import GrpcServerOptions
from tests.transport.grpc_wire.frames import whole_call
from tests.transport.grpc_wire.methods import SERVICE
from tests.transport.grpc_wire.servers import TRANSPORTS
from tests.transport.grpc_wire.wire import Wire

if TYPE_CHECKING:
    from gateway.core.calls import RpcCall

REFUSAL = status_of(Overloaded("full", retry_after_s=0.25))


def refuse(call: RpcCall) -> None:
    call.fail(RpcStatus(int(REFUSAL.grpc_code), REFUSAL.message, REFUSAL.grpc_metadata))


async def test_an_overload_is_told_with_its_pushback(transport: str) -> None:
    """GRFC A6: `grpc-retry-pushback-ms` is in the trailers, beside a status that is no INTERNAL."""
    server = TRANSPORTS[transport]([RpcService(SERVICE, begin={"Echo": refuse})], GrpcServerOptions(port=0))
    async with contextlib.AsyncExitStack() as stack:
        await server.start()
        stack.push_async_callback(server.stop, 0.0)
        wire = await Wire.open(server.port)
        stack.callback(wire.close)
        wire.send(whole_call(1))
        answer = await wire.answer(1)
    assert answer.grpc_status == int(REFUSAL.grpc_code)
    assert answer.trailers["grpc-retry-pushback-ms"] == "250"
