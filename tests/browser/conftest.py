"""A browser, and an administration port with a page for it; the rollouts are a fake."""

from __future__ import annotations

import os
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright, expect

from gateway.admin.operators import SESSION_S, Sessions
from gateway.admin.rollouts import RolloutParts
from gateway.admin.routes import AdminParts, admin_routes
from gateway.api.errors import ErrorTranslator
from gateway.core.rollout_control import Actor
from gateway.core.state import AuditEntry, AuditRecord
from gateway.protocol.status import StatusProfile
from gateway.testing import VirtualClock
from gateway.transport.http import HttpServer
from gateway.transport.options import HttpServerOptions
from tests.admin.rollouts_fake import FakeRollouts
from tests.browser import scenes
from tests.browser.console import Console
from tests.models.stage import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, Page

    from gateway.rollouts.state import RolloutState

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_S: Final = 30.0
ANNA: Final = Actor("anna", is_known=True, roles=frozenset({"model-risk"}))


class ShownRollouts(FakeRollouts):
    """With splits and files that the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.plain_splits: list[dict[str, Any]] = []
        self.seen_files: list[dict[str, Any]] = []

    def files(self) -> list[dict[str, Any]]:
        return self.seen_files

    def splits(self) -> list[dict[str, Any]]:
        return self.plain_splits


class Records:
    """An AuditLog of records that the test sets, whatever rollout is asked for."""

    def __init__(self) -> None:
        detail = {"reason": "looks fine", "outcome": "done", "evidence_hash": scenes.EVIDENCE}
        entry = AuditEntry(kind="approval", what="approve", who="user:carla", detail=detail)
        self.records = [AuditRecord(7, scenes.NOW_S - 120, "0" * 64, "c0ffee" + "0" * 58, entry)]

    async def append(self, *entries: AuditEntry) -> AuditRecord:
        raise NotImplementedError

    def tail(self, count: int, rollout: str = "") -> list[AuditRecord]:
        return self.records[-count:]


@dataclass
class Site:
    """What the page shows, where it is, and what its browser complains of."""

    rollouts: ShownRollouts
    sessions: Sessions
    clock: VirtualClock
    audit: Records
    page: Page
    url: str
    console: Console

    async def open(self, *states: RolloutState, at: str = "#/") -> None:
        """Show rollouts that are in these states."""
        self.rollouts.documents = {state.name: scenes.document(state) for state in states}
        await self.page.goto(f"{self.url}{at}")
        await self.rollouts.until_readers(1)

    def login(self) -> str:
        """Return the fragment that gives the page a session of Anna's."""
        return f"#session={self.sessions.open(ANNA)}"

    def end_sessions(self) -> None:
        """Let every session expire."""
        self.clock.advance(SESSION_S)

    def change(self, state: RolloutState, **members: Any) -> None:
        """Bring a rollout into this state before the page's eyes."""
        self.rollouts.change(state.name, **(scenes.document(state) | members))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where a browser is."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """Launched once for a file's tests."""
    expect.set_options(timeout=_PATIENCE_S * 1000)
    async with async_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=chromium, args=sandbox)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def site(browser: Browser, tmp_path: Path) -> AsyncIterator[Site]:
    """A page in a context of its own, and what it shows; its console must stay silent."""
    clock, rollouts, audit = VirtualClock(), ShownRollouts(), Records()
    sessions = Sessions(clock.now_s)
    async with AsyncExitStack() as stack:
        parts = AdminParts(
            catalog=await stack.enter_async_context(Stage().manager()),
            version="0",
            guard=ErrorTranslator(StatusProfile.DEFAULT).http,
            rollouts=RolloutParts(rollouts, sessions, audit, tmp_path / "operators.sock"),
            wall_s=lambda: scenes.NOW_S,
        )
        server = HttpServer(admin_routes(parts), HttpServerOptions(port=0))
        url = f"http://127.0.0.1:{await server.start()}/rollouts/ui"
        stack.push_async_callback(server.stop, 0.0)
        page = await browser.new_page(locale="en-GB", timezone_id="UTC")
        console = Console()
        console.listen_to(page)
        yield Site(rollouts, sessions, clock, audit, page, url, console)
        await console.assert_as_expected()
        await page.close()
