"""The gRPC listener on our own HTTP/2: its socket, its start, and its stop without losing a call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.core.errors import ConfigError
from gateway.transport.grpc_native_connection import GrpcConnection
from gateway.transport.grpc_native_server_state import ServerState
from gateway.transport.grpc_native_tls import ReloadedTls

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.calls import RpcService
    from gateway.transport.http2.limits import Limit
    from gateway.transport.options import GrpcServerOptions


def _uncounted(_: Limit) -> None:
    """Count nothing."""


class GrpcNativeServer:
    """Serves RPC services on one port, on the running event loop.

    A method that is not in `services` is answered UNIMPLEMENTED. A method that raises anything but
    RpcFailure is answered INTERNAL without its text, which is logged.

    Args:
        services: what is served.
        options: address, limits, timeouts.
        limit_fired: counts limits that clients met.
    """

    def __init__(
        self,
        services: Sequence[RpcService],
        options: GrpcServerOptions,
        limit_fired: Callable[[Limit], None] = _uncounted,
    ) -> None:
        self._services = services
        self._options = options
        self._limit_fired = limit_fired
        self._state: ServerState | None = None
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port bound, also when 0 was asked for; 0 before the start."""
        return self._port

    async def start(self) -> int:
        """Bind and serve; return the port.

        Raises:
            ConfigError: the address cannot be bound, or the TLS files cannot be used.
        """
        options = self._options
        state = self._state = ServerState(self._services, options, self._limit_fired)
        tls = None if options.tls is None else ReloadedTls(options.tls)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: GrpcConnection(state),
                options.host,
                options.port,
                ssl=None if tls is None else tls.context,
                ssl_handshake_timeout=None if tls is None else options.http2.preface_timeout_s,
                backlog=2048,
            )
        except OSError as exc:
            raise ConfigError(f"cannot listen on {options.host}:{options.port}: {exc}") from exc
        self._port = self._server.sockets[0].getsockname()[1]
        return self._port

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, tell clients to go away, let calls finish for `grace_s` seconds, then cancel.

        May be called again with less grace while an earlier call waits, and then ends that one too.
        """
        state = self._state
        if state is None or self._server is None:
            return
        self._server.close()
        for connection in list(state.connections):
            connection.drain()
        try:
            async with asyncio.timeout(grace_s):
                await state.empty.wait()
        except TimeoutError:
            for connection in list(state.connections):
                connection.abort()
            await state.empty.wait()
        if state.tasks:
            await asyncio.wait(state.tasks)
        state.deadlines.close()
        await self._server.wait_closed()
