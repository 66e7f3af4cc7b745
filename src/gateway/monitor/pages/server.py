"""The monitor's HTTP listener: pages and API on the running event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from gateway.core.errors import ConfigError, GatewayError
from gateway.monitor.pages.api import Api
from gateway.monitor.pages.drawing import Drawing
from gateway.monitor.pages.guard import Guard, error_answer, refusal
from gateway.monitor.pages.site import Site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from gateway.monitor.pages.options import PageOptions
    from gateway.monitor.pages.view import MonitorView

    MetricsPage = Callable[[], Awaitable[tuple[str, bytes]]]


def monitor_app(
    view: MonitorView, options: PageOptions, drawing: Drawing, metrics: MetricsPage | None = None
) -> ASGIApp:
    """Return pages and API over a view, guarded, and the metrics page if there is one."""
    routes = [*Api(view, options, drawing).routes(), *Site(view, options, drawing).routes()]
    if metrics is not None:
        routes.append(Route("/metrics", _metrics_of(metrics)))
    handlers: dict[Any, Any] = {HTTPException: _unrouted, GatewayError: _refused, Exception: _failed}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), options)


class PageServer:
    """Serves the monitor's pages and API on one port.

    uvicorn's protocol and configuration are used, its `Server` is not: that one takes the process's signals
    and polls ten times a second.

    Args:
        view: who knows.
        options: address, access, bounds.
        metrics: gives content type and body of the metrics page; None: there is none.
    """

    def __init__(self, view: MonitorView, options: PageOptions, metrics: MetricsPage | None = None) -> None:
        self._options = options
        self._drawing = Drawing()
        self._app = monitor_app(view, options, self._drawing, metrics)
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port bound, also when 0 was asked for; valid while the server is started."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> int:
        """Bind and serve; return the port.

        Raises:
            ConfigError: the address cannot be bound.
        """
        config, options = _uvicorn_config(self._app, self._options), self._options
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: H11Protocol(config, self._state, {}), options.host, options.port
            )
        except OSError as error:
            where = f"{options.host}:{options.port}"
            raise ConfigError(f"the monitor cannot listen on {where}: {error}") from error
        return self.port

    async def stop(self, grace_s: float = 2.0) -> None:
        """Stop accepting, let requests finish for `grace_s` seconds, then cancel them."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=grace_s)
        for task in list(self._state.tasks):
            task.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        await self._server.wait_closed()
        self._drawing.close()


def _metrics_of(page: MetricsPage) -> Callable[[Request], Awaitable[Response]]:
    async def metrics(_request: Request) -> Response:
        content_type, body = await page()
        return Response(body, headers={"content-type": content_type})

    return metrics


async def _unrouted(_request: Request, error: HTTPException) -> Response:
    if error.status_code == 405:
        return error_answer(405, "this method is not served here")
    return error_answer(404, "there is no such page")


async def _refused(_request: Request, error: GatewayError) -> Response:
    return refusal(error)


async def _failed(_request: Request, _error: Exception) -> Response:
    return error_answer(500, "the monitor failed to answer; its log says why")


def _uvicorn_config(app: ASGIApp, options: PageOptions) -> Config:
    config = Config(
        app,
        loop="none",
        http=H11Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=options.max_connections,
        h11_max_incomplete_event_size=32 << 10,
    )
    config.load()
    return config
