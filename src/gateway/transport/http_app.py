"""The ASGI application made from routes: begin routes straight to their method, others through Starlette."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware

from gateway.core.calls import HttpRequest, HttpResponse
from gateway.transport.http_body import ClientGone
from gateway.transport.http_direct import internal_error
from gateway.transport.http_routes import PathRoute, canonical_path
from gateway.transport.refusal import HttpRefusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from gateway.core.calls import BeginHttp, HttpHandler, HttpRoute
    from gateway.transport.http_body import BodySource
    from gateway.transport.http_guard import RequestGuard
    from gateway.transport.http_response import ResponseWriter
    from gateway.transport.options import CorsOptions

_log: Final = logging.getLogger(__name__)


def http_app(
    routes: Sequence[HttpRoute], cors: CorsOptions | None, bodies: BodySource, writer: ResponseWriter
) -> ASGIApp:
    """Return the application of one listener; it must be served by GuardedHttpProtocol.

    Args:
        routes: what it serves; two with the same method and pattern are an error of the caller's.
        cors: which web pages may call; None sends no CORS headers.
        bodies: reads request bodies.
        writer: writes responses.
    """
    app = _Dispatcher(routes, _Exchange(bodies, writer))
    return app if cors is None else _with_cors(app, cors)


def _with_cors(app: ASGIApp, cors: CorsOptions) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=cors.origins,
        allow_methods=cors.methods,
        allow_headers=cors.headers,
        allow_credentials=cors.credentials,
        expose_headers=cors.expose_headers,
        max_age=cors.max_age_s,
    )


class _Dispatcher:
    """Finds the route. Begin routes are looked up here, so that they pay for no framework."""

    def __init__(self, routes: Sequence[HttpRoute], exchange: _Exchange) -> None:
        self._exchange = exchange
        by_pattern: dict[str, list[HttpRoute]] = {}
        for route in routes:
            by_pattern.setdefault(route.pattern, []).append(route)
        paths = [PathRoute(pattern, group, exchange.serve) for pattern, group in by_pattern.items()]
        self._begin = [path for path in paths if any(r.begin for r in path.methods.values())]
        self._starlette = Starlette(routes=paths)
        self._starlette.router.redirect_slashes = False
        self._starlette.router.default = exchange.not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guard: RequestGuard = scope["state"]["guard"]
        try:
            if guard.refusal is not None:
                raise guard.refusal
            path = canonical_path(scope["raw_path"])
        except HttpRefusal as refusal:
            await self._exchange.refuse(refusal, guard, send)
            return
        for route in self._begin:
            values = route.match(path)
            if values is not None:
                scope["path"], scope["path_params"] = path, values
                await self._exchange.serve(route, scope, receive, send)
                return
        scope["path"] = path
        await self._starlette(scope, receive, send)


class _Exchange:
    """Takes one request from its route to its response."""

    def __init__(self, bodies: BodySource, writer: ResponseWriter) -> None:
        self._bodies = bodies
        self._writer = writer

    async def serve(self, path_route: PathRoute, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, run, respond; returns quietly when the client goes.

        Raises:
            CancelledError: cancelled by anything but the client's going.
        """
        guard: RequestGuard = scope["state"]["guard"]
        reader = self._bodies.reader(guard, receive)
        try:
            route = path_route.route_for(scope["method"])
            request = _request(scope, guard, await reader.read())
            await self._run(route, request, guard, send)
        except ClientGone:
            return
        except HttpRefusal as refusal:
            await self.refuse(refusal, guard, send)
        except asyncio.CancelledError:
            if not guard.gone:
                raise
            # Cancelled by the guard: the task ends here, and uvicorn need not log it.
        finally:
            guard.on_gone = None
            reader.release()

    async def refuse(self, refusal: HttpRefusal, guard: RequestGuard, send: Send) -> None:
        """Send the response of a refusal."""
        await self._writer.write(refusal.response(), guard, send)

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Answer a path that no route has."""
        await self.refuse(HttpRefusal(404, "Not Found", close=False), scope["state"]["guard"], send)

    async def _run(self, route: HttpRoute, request: HttpRequest, guard: RequestGuard, send: Send) -> None:
        if guard.gone:
            return
        if route.begin is not None:
            response = await _answer_of(route.begin, request, guard)
        else:
            assert route.handler is not None
            response = await _handle(route.handler, request, guard)
        if response is not None:
            await self._writer.write(response, guard, send)


def _request(scope: Scope, guard: RequestGuard, body: bytes | bytearray | memoryview) -> HttpRequest:
    path = scope["path"]
    client = scope["client"]
    return HttpRequest(
        method=scope["method"],
        path=unquote(path) if "%" in path else path,
        path_params=scope["path_params"],
        query=scope["query_string"].decode("latin-1"),
        headers=guard.headers,
        body=body,
        arrived_s=time.monotonic(),
        peer=f"{client[0]}:{client[1]}" if client else "",
    )


async def _answer_of(begin: BeginHttp, request: HttpRequest, guard: RequestGuard) -> HttpResponse | None:
    """Begin and wait for the reply; None when the client went first."""
    answer: asyncio.Future[HttpResponse | None] = asyncio.get_running_loop().create_future()

    def reply(response: HttpResponse | None) -> None:
        if not answer.done():
            answer.set_result(response)

    try:
        hook = begin(request, reply)
    except Exception:  # noqa: BLE001 - whatever a method raises is its request's failure alone
        _log.exception("http_method_failed", extra={"path": request.path})
        return internal_error()

    def gone() -> None:
        reply(None)
        try:
            hook()
        except Exception:  # noqa: BLE001 - the connection goes on closing
            _log.exception("http_cancel_hook_failed", extra={"path": request.path})

    if not answer.done():
        guard.on_gone = gone
    return await answer


async def _handle(handler: HttpHandler, request: HttpRequest, guard: RequestGuard) -> HttpResponse:
    """Run a coroutine method; this task is cancelled when the client goes, while it streams as well."""
    task = asyncio.current_task()
    assert task is not None
    guard.on_gone = task.cancel
    try:
        return await handler(request)
    except Exception:  # noqa: BLE001 - whatever a method raises is its request's failure alone
        _log.exception("http_method_failed", extra={"path": request.path})
        return internal_error()
