"""Starting and stopping the HTTP listener."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.core.calls import HttpResponse, HttpRoute
from gateway.core.errors import ConfigError
from gateway.testing import settle
from gateway.transport.http import HttpServer
from gateway.transport.options import HttpServerOptions
from tests.transport.wire import Echo, Wire, get, post

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from gateway.transport.options import TlsOptions

    Serve = Callable[..., Awaitable[HttpServer]]
    Connect = Callable[[HttpServer], Awaitable[Wire]]


async def test_a_request_in_flight_finishes(serve: Serve, connect: Connect, echo: Echo) -> None:
    """Stopping waits for the answer due, sends it with `Connection: close`, and then ends."""
    server = await serve()
    port = server.port
    wire = await connect(server)
    wire.send(post("/held", b"x"))
    await echo.arrived.wait()
    stopping = asyncio.create_task(server.stop(60.0))
    await settle()
    with pytest.raises(ConnectionRefusedError):
        await Wire.open(port)
    echo.replies[0](HttpResponse(200, (b"done",)))
    response = await wire.response()
    assert (response.body, response.headers["connection"]) == (b"done", "close")
    assert await wire.closed()
    await stopping
    assert server.connections == 0


async def test_a_request_half_received_is_served(serve: Serve, connect: Connect) -> None:
    """A connection with part of a request is not idle."""
    server = await serve()
    wire = await connect(server)
    request = post("/handle", b"late")
    wire.send(get("/handle") + request[:20])
    await wire.response()
    stopping = asyncio.create_task(server.stop(60.0))
    await settle()
    wire.send(request[20:])
    response = await wire.response()
    assert (response.body, response.headers["connection"]) == (b"late", "close")
    await stopping


async def test_idle_connections_are_closed_at_once(serve: Serve, connect: Connect) -> None:
    """A kept-alive connection does not hold up the stop."""
    server = await serve()
    used, fresh = await connect(server), await connect(server)
    used.send(get("/handle"))
    await used.response()
    await server.stop(60.0)
    assert await used.closed()
    assert await fresh.closed()


@pytest.mark.parametrize("path", ["/held", "/wait"])
async def test_grace_ends(serve: Serve, connect: Connect, echo: Echo, path: str) -> None:
    """A request that does not finish is cancelled, and its connection is closed without an answer."""
    server = await serve()
    wire = await connect(server)
    wire.send(post(path, b"x"))
    await echo.arrived.wait()
    await server.stop(0.0)
    assert echo.cancelled.is_set()
    assert await wire.closed()


async def test_a_second_stop_may_cut_the_grace(serve: Serve, connect: Connect, echo: Echo) -> None:
    """Stopping again without grace ends the first stop too."""
    server = await serve()
    wire = await connect(server)
    wire.send(post("/wait", b"x"))
    await echo.arrived.wait()
    first = asyncio.create_task(server.stop(3600.0))
    await settle()
    await server.stop(0.0)
    await first
    assert await wire.closed()


async def test_draining_moves_connections_off(serve: Serve, connect: Connect) -> None:
    """While draining, requests are served and every connection is closed after its answer."""
    server = await serve()
    wire = await connect(server)
    server.drain()
    wire.send(get("/handle"))
    response = await wire.response()
    assert (response.status, response.headers["connection"]) == (200, "close")
    assert await wire.closed()
    other = await connect(server)
    other.send(get("/handle"))
    assert (await other.response()).status == 200


async def test_stopping_twice_and_before_starting_is_harmless(serve: Serve, echo: Echo) -> None:
    """Stop has nothing to do when there is nothing to stop."""
    server = await serve()
    await server.stop(1.0)
    await server.stop(1.0)
    await HttpServer(echo.routes(), HttpServerOptions(port=0)).stop(1.0)


async def test_a_port_in_use_is_a_config_error(serve: Serve) -> None:
    """The message names the address."""
    server = await serve()
    second = HttpServer([], HttpServerOptions(port=server.port))
    with pytest.raises(ConfigError, match=f"127.0.0.1:{server.port}"):
        await second.start()


async def test_an_unknown_converter_is_a_config_error() -> None:
    """A route pattern that cannot be compiled is found at the start."""
    server = HttpServer([HttpRoute("GET", "/{a:uuid}")], HttpServerOptions(port=0))
    with pytest.raises(ConfigError, match="uuid"):
        await server.start()


async def test_tls_serves(serve: Serve, certificates: TlsOptions) -> None:
    """A client that trusts the certificate is served over TLS."""
    server = await serve(tls=certificates)
    context = ssl.create_default_context(cafile=certificates.certificate)
    wire = await Wire.open(server.port, context)
    wire.send(post("/handle", b"secret"))
    assert (await wire.response()).body == b"secret"
    wire.close()


@pytest.mark.parametrize("shown", [True, False])
async def test_mutual_tls_asks_for_a_certificate(serve: Serve, certificates: TlsOptions, shown: bool) -> None:
    """Only a client with a certificate of the authority is served."""
    server = await serve(tls=replace(certificates, client_ca=certificates.certificate))
    context = ssl.create_default_context(cafile=certificates.certificate)
    if shown:
        context.load_cert_chain(certificates.certificate, certificates.key)
    wire = await Wire.open(server.port, context)
    wire.send(post("/handle", b"secret"))
    if shown:
        assert (await wire.response()).body == b"secret"
    else:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await wire.response()
    wire.close()


async def test_unusable_tls_files_are_a_config_error(certificates: TlsOptions, tmp_path: Path) -> None:
    """The message names the files."""
    missing = tmp_path / "missing.pem"
    server = HttpServer([], HttpServerOptions(port=0, tls=replace(certificates, key=missing)))
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        await server.start()
