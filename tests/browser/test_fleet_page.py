"""The page about fleets in a real browser, over the real administration port."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio
from playwright.async_api import expect

from gateway.admin.fleets import FleetRow
from gateway.admin.operators import Sessions
from gateway.admin.rollouts import RolloutParts
from gateway.admin.routes import AdminParts, admin_routes
from gateway.api.errors import ErrorTranslator
from gateway.core.remote import Address, EndpointState, EndpointView
from gateway.protocol.status import StatusProfile
from gateway.testing import VirtualClock
from gateway.transport.http import HttpServer
from gateway.transport.options import HttpServerOptions
from tests.browser import scenes
from tests.browser.conftest import Records, ShownRollouts
from tests.browser.console import Console
from tests.models.stage import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser, Locator, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW_S: Final = 5000.0
"""Monotonic, as scenes.NOW_S is wall-clock."""
ONE, TWO, TEN = (Address(f"10.0.0.{number}", 8001) for number in (1, 2, 10))
HEALTHY: Final = EndpointView(
    address=ONE, state=EndpointState.HEALTHY, inflight=3, limit=12, since_s=NOW_S - 7200
)
EJECTED: Final = EndpointView(
    address=TWO,
    state=EndpointState.EJECTED,
    reason="5 failures in a row",
    limit=4,
    ejections=2,
    since_s=NOW_S - 180,
    until_s=NOW_S + 40,
)
FULL: Final = EndpointView(
    address=TEN,
    state=EndpointState.OPEN,
    reason="5 refusals in a row",
    inflight=8,
    limit=8,
    since_s=NOW_S - 0.2,
)
FLEET: Final = FleetRow(
    name="fleet-a",
    now_s=NOW_S,
    capacity=12,
    endpoints=(FULL, HEALTHY, EJECTED),
    ready={ONE: [("mnist", 2), ("mnist", 1), ("other", 1)], TEN: [("mnist", 2)]},
    serves={"digits": "mnist", "other": "other"},
)


@dataclass
class Site:
    """What the page shows, where it is, and what its browser complains of."""

    page: Page
    url: str
    fleets: list[FleetRow]
    console: Console

    async def open(self, *fleets: FleetRow) -> None:
        """Show these fleets; time on the page stands still."""
        self.fleets[:] = fleets
        await self.page.clock.install(time=scenes.NOW_S)
        await self.page.goto(self.url)
        await expect(self.page.locator("#stream")).to_have_text("live")

    async def change(self, *fleets: FleetRow) -> None:
        """Have the page ask again, and find these fleets."""
        self.fleets[:] = fleets
        await self.page.clock.run_for(2000)

    def endpoint(self, address: Address) -> Locator:
        """Return the card of an endpoint."""
        return self.page.locator(f"li.card[data-key='{address}']")


@pytest_asyncio.fixture(loop_scope="module", params=["rollouts", ""])
async def site(request: pytest.FixtureRequest, browser: Browser, tmp_path: Path) -> AsyncIterator[Site]:
    """A page in a context of its own, beside that of rollouts or without one; its console stays silent."""
    sessions = Sessions(VirtualClock().now_s)
    rollouts = RolloutParts(ShownRollouts(), sessions, Records(), tmp_path / "operators.sock")
    fleets: list[FleetRow] = [FLEET]
    async with AsyncExitStack() as stack:
        parts = AdminParts(
            catalog=await stack.enter_async_context(Stage().manager()),
            version="0",
            guard=ErrorTranslator(StatusProfile.DEFAULT).http,
            fleets=lambda: fleets,
            rollouts=rollouts if request.param else None,
            wall_s=lambda: scenes.NOW_S,
        )
        server = HttpServer(admin_routes(parts), HttpServerOptions(port=0))
        url = f"http://127.0.0.1:{await server.start()}/fleets/ui"
        stack.push_async_callback(server.stop, 0.0)
        page = await browser.new_page(locale="en-GB", timezone_id="UTC")
        console = Console()
        console.listen_to(page)
        yield Site(page, url, fleets, console)
        await console.assert_as_expected()
        await page.close()


with_rollouts = pytest.mark.parametrize("site", ["rollouts"], indirect=True)
alone = pytest.mark.parametrize("site", [""], indirect=True)


@alone
async def test_every_endpoint_says_how_it_is(site: Site) -> None:
    """Its state since when and why, what it has under way, and which versions it has."""
    await site.open(FLEET)
    main = site.page.locator("main")
    await expect(main.get_by_role("heading", name="fleet-a")).to_be_visible()
    await expect(main).to_contain_text("1 of 3 in use")
    await expect(main).to_contain_text("11 in flight, room for 12")
    await expect(main).to_contain_text("Serves digits (mnist there), other.")
    await expect(main.locator("li.card h3")).to_have_text(list(map(str, (ONE, TWO, TEN))))
    healthy, ejected, full = (site.endpoint(address) for address in (ONE, TWO, TEN))
    for text in ("healthy", "changed 2 h ago", "3 of 12 in flight", "mnist versions 1, 2", "other version 1"):
        await expect(healthy).to_contain_text(text)
    await expect(healthy).not_to_contain_text("so far")
    for text in ("ejected", "5 failures in a row", "ejected 3 min ago, for 40 s more · 2 times so far"):
        await expect(ejected).to_contain_text(text)
    await expect(ejected).to_contain_text("no model ready")
    for text in ("circuit open", "5 refusals in a row", "changed just now", "8 of 8 in flight"):
        await expect(full).to_contain_text(text)


@alone
async def test_it_is_live(site: Site) -> None:
    """What changes is shown, and said aloud; an endpoint that is gone goes."""
    await site.open(FLEET)
    back = replace(EJECTED, state=EndpointState.HEALTHY, reason="", until_s=None, since_s=NOW_S)
    out = replace(HEALTHY, state=EndpointState.EJECTED, reason="no connection", ejections=1)
    await site.change(replace(FLEET, endpoints=(out, back)))
    await expect(site.endpoint(TEN)).to_have_count(0)
    await expect(site.endpoint(ONE)).to_contain_text("once so far")
    await expect(site.endpoint(TWO).locator(".badge")).to_have_text("healthy")
    await expect(site.endpoint(TWO)).to_contain_text("ejected 2 times so far")
    said = site.page.locator("#said")
    await expect(said).to_contain_text("10.0.0.1:8001 of fleet-a: ejected. no connection")
    await expect(said).to_contain_text("10.0.0.2:8001 of fleet-a: healthy.")


@alone
async def test_without_fleets_and_without_endpoints(site: Site) -> None:
    """It says so."""
    await site.open()
    main = site.page.locator("main")
    await expect(main).to_contain_text("There are no fleets")
    await site.change(replace(FLEET, endpoints=(), serves={}, ready={}))
    await expect(main).to_contain_text("It has no endpoints, as far as is known.")
    await expect(main).to_contain_text("0 of 0 in use")
    await expect(main).to_contain_text("Serves no model.")


@alone
async def test_many_models_are_folded_away(site: Site) -> None:
    """And stay unfolded while the page asks again."""
    ready = {ONE: [(f"model-{number}", 1) for number in range(40)]}
    await site.open(replace(FLEET, ready=ready))
    card = site.endpoint(ONE)
    await expect(card.locator("summary")).to_have_text("40 models ready")
    await expect(card.get_by_text("model-39")).to_be_hidden()
    await card.locator("summary").click()
    await expect(card.get_by_text("model-39")).to_be_visible()
    await site.change(replace(FLEET, ready=ready, capacity=99))
    await expect(site.page.locator("main")).to_contain_text("room for 99")
    await expect(card.get_by_text("model-39")).to_be_visible()


@with_rollouts
async def test_the_pages_lead_to_each_other(site: Site) -> None:
    """Where both are."""
    await site.open(FLEET)
    await site.page.get_by_role("link", name="Rollouts").click()
    await expect(site.page.get_by_role("heading", name="Rollouts")).to_be_visible()
    await site.page.get_by_role("link", name="Fleets").click()
    await expect(site.page.get_by_role("heading", name="fleet-a")).to_be_visible()


@alone
async def test_no_link_leads_nowhere(site: Site) -> None:
    """Without rollouts there is no page about them."""
    await site.open(FLEET)
    await expect(site.page.locator("header a")).to_have_text(["Fleets"])


@alone
async def test_what_others_write_is_text(site: Site) -> None:
    """Reasons are an endpoint's words, and names its own."""
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    await site.open(
        replace(
            FLEET,
            endpoints=(replace(EJECTED, reason=hostile),),
            ready={TWO: [(hostile, 1)]},
            serves={hostile: hostile},
        )
    )
    await expect(site.endpoint(TWO).locator("p.reason")).to_have_text(hostile)
    await expect(site.endpoint(TWO).locator("ul.models")).to_contain_text(hostile)
    assert await site.page.locator("main img, main script").count() == 0
    assert await site.page.title() == "Fleets"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@with_rollouts
async def test_a_phone(site: Site, scheme: str) -> None:
    """Nothing is wider than a narrow screen."""
    await site.page.set_viewport_size({"width": 360, "height": 740})
    await site.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    long = "a-very-long-name-of-a-model-" * 4
    far = replace(HEALTHY, address=Address(f"triton-{'0' * 60}.models.svc.cluster.local", 8001))
    ready = {ONE: [(long, number) for number in range(60)], far.address: [("mnist", 1)]}
    await site.open(
        replace(FLEET, name="f" * 60, endpoints=(*FLEET.endpoints, far), ready=ready, serves={long: long})
    )
    await expect(site.page.locator("li.card")).to_have_count(4)
    assert await site.page.evaluate("document.documentElement.scrollWidth") == 360


@alone
async def test_a_gateway_that_does_not_answer(site: Site) -> None:
    """The page says that what it shows is old, and asks again by itself."""
    await site.open(FLEET)
    await site.page.route("**/fleets", lambda route: route.abort())
    await site.page.clock.run_for(2000)
    stale = site.page.locator("#stale")
    await expect(stale).to_contain_text("The gateway does not answer. Trying again. This is what was seen on")
    await expect(site.page.locator("#stream")).to_have_text("stale")
    await expect(site.page.locator("li.card")).to_have_count(3)
    await site.page.unroute("**/fleets")
    await site.page.clock.run_for(2000)
    await expect(site.page.locator("#stream")).to_have_text("live")
    await expect(stale).to_be_hidden()
    site.console.expects("net::ERR_FAILED")
