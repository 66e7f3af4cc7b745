"""The pages about rollouts and fleets as HTTP serves them; what they do is tested in a browser."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import httpx
import pytest

from gateway.admin.operators import Sessions
from gateway.admin.page import FleetPage, RolloutPage
from gateway.admin.rollouts import RolloutParts
from gateway.admin.routes import AdminParts, admin_routes
from gateway.api.errors import ErrorTranslator
from gateway.core.rollout_control import Actor
from gateway.protocol.status import StatusProfile
from gateway.testing import VirtualClock
from gateway.transport.http import HttpServer
from gateway.transport.options import HttpServerOptions
from tests.admin.rollouts_fake import FakeRollouts
from tests.admin.test_rollouts import NoAudit
from tests.models.stage import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(VirtualClock().now_s)


@pytest.fixture
async def client(sessions: Sessions, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    rollouts = FakeRollouts(fraud={"name": "fraud"})
    async with Stage().manager() as manager:
        parts = AdminParts(
            catalog=manager,
            version="0",
            guard=ErrorTranslator(StatusProfile.DEFAULT).http,
            rollouts=RolloutParts(rollouts, sessions, NoAudit(), tmp_path / "socket"),
        )
        server = HttpServer(admin_routes(parts), HttpServerOptions(port=0))
        port = await server.start()
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/") as client:
                yield client
        finally:
            await server.stop(0.0)


@pytest.mark.parametrize(("at", "script"), [("rollouts", "page.js"), ("fleets", "fleets.js")])
async def test_every_file_that_the_page_names_is_served(
    client: httpx.AsyncClient, at: str, script: str
) -> None:
    """As what it is, never kept by the browser, and under a policy that runs no script but these."""
    page = await client.get(f"{at}/ui")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    wanted = set(re.findall(r'(?:src|href)="ui/([^"]+)"', page.text))
    seen: set[str] = set()
    assert {script, "page.css", "icon.svg"} == wanted
    while wanted - seen:
        name = (wanted - seen).pop()
        seen.add(name)
        reply = await client.get(f"{at}/ui/{name}")
        assert reply.status_code == 200, name
        types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        assert reply.headers["content-type"].partition(";")[0] == types[PurePosixPath(name).suffix]
        wanted |= set(re.findall(r'from "\./([^"]+)"', reply.text))
        for headers in (page.headers, reply.headers):
            assert headers["content-security-policy"].startswith("default-src 'self'; ")
            assert "unsafe" not in headers["content-security-policy"]
            assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    assert len(seen) > 5


@pytest.mark.parametrize("at", ["rollouts", "fleets"])
async def test_nothing_else_is_served(client: httpx.AsyncClient, at: str) -> None:
    """No other file of the package, by whatever path."""
    for name in ("nothing.js", "page.py", "..%2Fpage.py", "%2e%2e%2froutes.py", "index.html%00"):
        assert (await client.get(f"{at}/ui/{name}")).status_code in {400, 404}, name


@pytest.mark.parametrize("at", ["rollouts", "fleets"])
async def test_a_page_has_no_script_of_its_own(client: httpx.AsyncClient, at: str) -> None:
    """The policy would refuse it: handlers and styles belong in the files."""
    text = (await client.get(f"{at}/ui")).text
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", text)


async def test_whose_session_it_is(client: httpx.AsyncClient, sessions: Sessions) -> None:
    """The page says it; one that is over is refused."""
    secret = sessions.open(Actor("anna", is_known=True))
    mine = await client.get("rollouts/ui/session", headers={"authorization": f"Bearer {secret}"})
    nobodys = await client.get("rollouts/ui/session")
    wrong = await client.get("rollouts/ui/session", headers={"authorization": "Bearer guess"})
    assert (mine.json(), nobodys.json(), wrong.status_code) == ({"user": "anna"}, {"user": ""}, 403)


def test_the_files_are_in_the_package() -> None:
    """They are read when the routes are made: a gateway without them does not start."""
    RolloutPage(Sessions(VirtualClock().now_s))
    FleetPage()
