"""One HTTP/1.1 listener: its socket, its start, and its stop without losing a request."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from uvicorn.config import Config

from gateway.core.errors import ConfigError
from gateway.transport.http_app import http_app
from gateway.transport.http_body import BodyBudget, BodySource
from gateway.transport.http_direct import DirectRoutes
from gateway.transport.http_guard import Connections
from gateway.transport.http_protocol import GuardedHttpProtocol
from gateway.transport.http_response import ResponseWriter
from gateway.transport.tls import server_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp

    from gateway.core.calls import HttpRoute
    from gateway.transport.options import HttpServerOptions

_CODING_THREADS: Final = 2
_READ_TURNS: Final = 3  # of the event loop: accept, read, start


class HttpServer:
    """Serves routes on one port, on the running event loop.

    uvicorn's protocol and configuration are used, its `Server` is not: that one takes the process's signals
    and polls ten times a second.

    Args:
        routes: what is served.
        options: address, limits, timeouts.
    """

    def __init__(self, routes: Sequence[HttpRoute], options: HttpServerOptions) -> None:
        self._routes = routes
        self._options = options
        self._connections = Connections()
        self._executor = ThreadPoolExecutor(_CODING_THREADS, thread_name_prefix="http-coding")
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port bound, also when 0 was asked for; valid while the server is started."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections.connections)

    async def start(self) -> int:
        """Bind and serve; return the port.

        Raises:
            ConfigError: the address cannot be bound, or the TLS files cannot be used.
        """
        options = self._options
        budget = BodyBudget(options.limits.max_buffered_bytes)
        writer = ResponseWriter(options, self._executor)
        bodies = BodySource(options.limits, self._executor, budget)
        config = _uvicorn_config(http_app(self._routes, options.cors, bodies, writer), options)
        direct = DirectRoutes(
            self._routes,
            writer,
            budget,
            cross_origin=options.cors is not None,
            max_header_bytes=options.limits.max_header_bytes,
        )
        context = None if options.tls is None else server_context(options.tls)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: GuardedHttpProtocol(config, self._connections, options.limits, direct),
                options.host,
                options.port,
                ssl=context,
                ssl_handshake_timeout=None if context is None else options.limits.header_timeout_s,
                backlog=options.backlog,
            )
        except OSError as exc:
            self._executor.shutdown(wait=False)
            raise ConfigError(f"cannot listen on {options.host}:{options.port}: {exc}") from exc
        return self.port

    def drain(self) -> None:
        """Close every connection after its next response, and go on accepting: for the lame-duck wait."""
        self._connections.draining = True

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, close idle connections, let requests finish for `grace_s` seconds, then abort.

        May be called again with less grace while an earlier call waits, and then ends that one too.
        Cancelling leaves the connections to finish on their own.
        """
        self.drain()
        if self._server is not None:
            self._server.close()
        # Read what clients have sent already, so that no request on its way finds its connection closed.
        for _ in range(_READ_TURNS):
            await asyncio.sleep(0)
        for connection in list(self._connections.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(grace_s):
                await self._connections.empty.wait()
        except TimeoutError:
            self._abort()
        await self._finish()

    def _abort(self) -> None:
        for connection in list(self._connections.connections):
            connection.transport.abort()

    async def _finish(self) -> None:
        await self._connections.empty.wait()
        if self._connections.tasks:
            await asyncio.wait(self._connections.tasks)
        if self._server is not None:
            await self._server.wait_closed()
        self._executor.shutdown(wait=False)


def _uvicorn_config(app: ASGIApp, options: HttpServerOptions) -> Config:
    config = Config(
        app,
        loop="none",
        http=GuardedHttpProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=options.keep_alive_s,
    )
    config.load()
    return config
