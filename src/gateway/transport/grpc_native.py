"""The gRPC listener on our own HTTP/2: its socket, its start, and its stop without losing a call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.core.errors import ConfigError
from gateway.transport.grpc_native_connection import GrpcConnection
from gateway.transport.grpc_native_server_state import ServerState
from gateway.transport.grpc_native_tls import ReloadedTls

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.calls import RpcService
    from gateway.transport.http2.limits import Limit
    from gateway.transport.options import GrpcServerOptions

_LAST_S: Final = 1.0  # for methods that are cancelled to end, however short the grace


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

        Methods that go on although they are cancelled are waited for until the grace is over, and for a
        second at least; then they are abandoned, and logged. May be called again with less grace while an
        earlier call waits, and then ends that one too.
        """
        state = self._state
        if state is None or self._server is None:
            return
        loop = asyncio.get_running_loop()
        end_s = loop.time() + grace_s
        self._server.close()
        for connection in list(state.connections):
            connection.drain()
        if not await _comes(state.empty, end_s):
            for connection in list(state.connections):
                connection.abort()
            await state.empty.wait()
        if not await _comes(state.idle, max(end_s, loop.time() + _LAST_S)):
            state.abandon()
        state.deadlines.close()
        await self._server.wait_closed()


async def _comes(event: asyncio.Event, end_s: float) -> bool:
    """Wait for an event until a time of the loop; return whether it came."""
    try:
        async with asyncio.timeout_at(end_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
