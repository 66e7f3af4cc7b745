from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from gateway.transport.http import HttpServer
from gateway.transport.options import HttpLimits, HttpServerOptions, TlsOptions
from tests.transport.wire import Echo, Wire

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def serve(echo: Echo) -> AsyncIterator[Callable[..., Awaitable[HttpServer]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(limits: HttpLimits | None = None, **options: object) -> HttpServer:
            settings = HttpServerOptions(port=0, limits=limits or HttpLimits(), **options)  # type: ignore[arg-type]
            server = HttpServer(echo.routes(), settings)
            await server.start()
            stack.push_async_callback(server.stop, 0.0)
            return server

        yield start


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Awaitable[Wire]]]:
    wires: list[Wire] = []

    async def open_wire(server: HttpServer) -> Wire:
        wires.append(await Wire.open(server.port))
        return wires[-1]

    yield open_wire
    for wire in wires:
        wire.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> TlsOptions:
    """A self-signed certificate for localhost that is its own client authority too."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    extensions = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *extensions, *files], check=True, capture_output=True)
    return TlsOptions(certificate=Path(certificate), key=Path(key))
