"""The two gRPC transports behind one face, and grpcio clients for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio
import pytest

from gateway.transport.grpc_aio import GrpcAioServer
from gateway.transport.grpc_native import GrpcNativeServer
from tests.transport.grpc_wire.methods import SERVICE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

NO_LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
OWN_CONNECTION = [*NO_LIMITS, ("grpc.use_local_subchannel_pool", 1)]


class GrpcServer(Protocol):
    """What both transports are."""

    @property
    def port(self) -> int: ...

    async def start(self) -> int: ...

    async def stop(self, grace_s: float) -> None: ...


TRANSPORTS: Mapping[str, Callable[..., GrpcServer]] = {"grpcio": GrpcAioServer, "native": GrpcNativeServer}


def call(channel: grpc.aio.Channel, method: str, message: bytes = b"", **options: Any) -> Any:
    multicallable: Any = channel.unary_unary(f"/{SERVICE}/{method}")
    return multicallable(message, **options)


async def failure(awaitable: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value
