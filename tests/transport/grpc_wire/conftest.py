"""Servers of both transports for every test that asks for `start`."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from gateway.transport.grpc_native import GrpcNativeServer
from gateway.transport.options import GrpcServerOptions, Http2Limits
from tests.transport.grpc_wire.methods import Methods
from tests.transport.grpc_wire.servers import NO_LIMITS, TRANSPORTS, GrpcServer
from tests.transport.grpc_wire.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.transport.http2.limits import Limit


@dataclass(frozen=True)
class Guarded:
    """A native server and which of its limits have fired how often."""

    server: GrpcServer
    fired: Counter[Limit]

    @property
    def port(self) -> int:
        return self.server.port


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """The name of each transport in turn."""
    return str(request.param)


@pytest.fixture
def methods() -> Methods:
    return Methods()


@pytest.fixture
async def serve(methods: Methods, transport: str) -> AsyncIterator[Callable[..., Awaitable[GrpcServer]]]:
    """Start a server of the transport; it is stopped without grace at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start_server(**options: Any) -> GrpcServer:
            server = TRANSPORTS[transport]([methods.service()], GrpcServerOptions(port=0, **options))
            await server.start()
            stack.push_async_callback(server.stop, 0.0)
            return server

        yield start_server


@pytest.fixture
async def guarded(methods: Methods) -> AsyncIterator[Callable[..., Awaitable[Guarded]]]:
    """Start a native server with the limits given, each `Http2Limits` or other option by its name."""
    async with contextlib.AsyncExitStack() as stack:

        async def start_server(**options: Any) -> Guarded:
            fired: Counter[Limit] = Counter()
            of_http2 = {f.name: options.pop(f.name) for f in fields(Http2Limits) if f.name in options}
            settings = GrpcServerOptions(port=0, http2=Http2Limits(**of_http2), **options)
            server = GrpcNativeServer([methods.service()], settings, lambda limit: fired.update([limit]))
            await server.start()
            stack.push_async_callback(server.stop, 0.0)
            return Guarded(server, fired)

        yield start_server


@pytest.fixture
async def start(serve: Callable[..., Awaitable[GrpcServer]]) -> AsyncIterator[Any]:
    """Start a server and connect a grpcio client to it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start_both(**options: Any) -> tuple[GrpcServer, grpc.aio.Channel]:
            server = await serve(**options)
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=NO_LIMITS)
            return server, await stack.enter_async_context(channel)

        yield start_both


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Awaitable[Wire]]]:
    """Open a connection that speaks in frames; it is closed at the end."""
    wires: list[Wire] = []

    async def open_wire(server: GrpcServer, **options: Any) -> Wire:
        wires.append(await Wire.open(server.port, **options))
        return wires[-1]

    yield open_wire
    for wire in wires:
        wire.close()
