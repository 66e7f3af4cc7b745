"""A real listener over made-up traffic, and a client of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio

from gateway.monitor.pages.options import PageOptions
from gateway.monitor.pages.server import PageServer
from tests.monitor.pages.view_fake import FakeView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def view() -> FakeView:
    return FakeView()


@pytest.fixture
def options() -> PageOptions:
    return PageOptions(port=0)


@pytest_asyncio.fixture
async def client(view: FakeView, options: PageOptions) -> AsyncIterator[httpx.AsyncClient]:
    async def metrics() -> tuple[str, bytes]:
        return "text/plain", b""

    server = PageServer(view, options, metrics)
    port = await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    await server.stop()
