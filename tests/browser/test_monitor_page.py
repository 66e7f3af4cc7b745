"""The monitor's pages in a real browser, over a real listener; what is monitored is made up."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import expect

from gateway.monitor.pages.options import PageOptions
from gateway.monitor.pages.server import PageServer
from tests.browser.console import Console
from tests.monitor.pages.view_fake import CREDIT, FakeView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page, Route

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN: Final = "not-a-secret"
PLACES: Final = (
    "/",
    f"/models/{CREDIT}",
    f"/models/{CREDIT}/signal?signal=income",
    f"/models/{CREDIT}/signal?signal=purpose",
    f"/models/{CREDIT}/signal?signal=inputs",
    f"/models/{CREDIT}/performance",
    f"/models/{CREDIT}/arms",
    "/alarms",
    "/pipeline",
)
DRAWN: Final = """() => {
  const charts = [...document.querySelectorAll(".chart")];
  return charts.every((chart) => chart.querySelector("div")?.shadowRoot?.querySelector("div"));
}"""
END: Final = "() => [...Bokeh.documents[0].all_models].find((model) => model.name === 'times').end"
FILL: Final = "() => Bokeh.documents.at(-1)?.roots()[0]?.background_fill_color"
FILLS: Final = "() => Bokeh.documents.map((each) => each.roots()[0]?.background_fill_color)"
SLOW: Final = """() => {
    const drawn = Bokeh.embed.embed_item;
    Bokeh.embed.embed_item = async (item) => {
        const held = await drawn(item);
        await new Promise((resolve) => setTimeout(resolve, 300));
        return held;
    };
}"""


@dataclass
class Watched:
    """A listener, what it shows, and what browsers complained of."""

    view: FakeView
    url: str
    console: Console = field(default_factory=Console)

    @asynccontextmanager
    async def page(self, browser: Browser, **options: Any) -> AsyncIterator[Page]:
        """Open a page in a context of its own; its console must stay silent."""
        page = await browser.new_page(locale="en-GB", timezone_id="UTC", **options)
        self.console.listen_to(page)
        yield page
        await self.console.assert_as_expected()
        await page.close()


@pytest.fixture
def options() -> PageOptions:
    return PageOptions(port=0, refresh_s=0.2)


@pytest_asyncio.fixture(loop_scope="module")
async def watched(options: PageOptions) -> AsyncIterator[Watched]:
    view = FakeView()
    server = PageServer(view, options)
    yield Watched(view, f"http://127.0.0.1:{await server.start()}")
    await server.stop()


async def test_every_page_fits_and_is_drawn(watched: Watched, browser: Browser) -> None:
    """On a phone in the dark all charts are there, described in words, and nothing is cut off."""
    async with watched.page(browser, viewport={"width": 360, "height": 800}, color_scheme="dark") as page:
        for place in PLACES:
            await page.goto(watched.url + place)
            await expect(page.locator("#stream")).to_have_text("live")
            await page.wait_for_function(DRAWN)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360, place
            unnamed = page.locator(".chart:not([aria-label])")
            await expect(unnamed).to_have_count(0)


async def test_drift_is_named_and_can_be_followed(watched: Watched, browser: Browser) -> None:
    """From the fleet to the model to the signal, by keyboard alone."""
    async with watched.page(browser) as page:
        await page.goto(watched.url)
        row = page.locator("tbody tr").first
        await expect(row).to_contain_text("income, 4\u00d7 threshold")
        await row.get_by_role("link", name=CREDIT).focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text(CREDIT)
        await expect(page.locator("#blocks")).to_contain_text("4 signals of 10 drifted: income, purpose")
        await expect(page.locator("#blocks")).to_contain_text("version 7 appeared")
        search = page.get_by_label("Signal", exact=True)
        await search.fill("purp")
        await search.press("Enter")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await page.get_by_role("link", name="purpose").press("Enter")
        await expect(page.locator("#blocks")).to_contain_text(
            "4 % of rows have values that the reference never had"
        )
        await expect(page.get_by_role("row", name="crypto")).to_be_visible()


async def test_news_come_without_a_reload(watched: Watched, browser: Browser) -> None:
    """Charts that are there take the new data in; what has focus keeps it; the change is said aloud."""
    async with watched.page(browser) as page:
        await page.goto(f"{watched.url}/models/{CREDIT}")
        await expect(page.locator("#badges")).to_contain_text("1 alarm")
        await expect(page.locator("#stream")).to_have_text("live")
        await page.wait_for_function(DRAWN)
        await page.evaluate("window.kept = document.querySelector('.chart > div')")
        link = page.get_by_role("link", name="income")
        await link.focus()
        before = await page.evaluate(END)
        watched.view.now += 3600
        watched.view.standing = False
        await expect(page.locator("#badges")).to_contain_text("no alarm")
        await expect(page.locator("#said")).to_contain_text(f"{CREDIT}: no alarm")
        await page.wait_for_function(f"() => ({END})() === {before + 3_600_000}")
        documents = "() => Bokeh.documents.length - document.querySelectorAll('.chart').length"
        await page.wait_for_function(f"() => ({documents})() === 0")
        assert await page.evaluate("window.kept.isConnected")
        await expect(link).to_be_focused()


async def test_colours_follow_the_system(watched: Watched, browser: Browser) -> None:
    """Evening comes while the page is open: charts change with it."""
    async with watched.page(browser, color_scheme="light") as page:
        await page.goto(f"{watched.url}/pipeline")
        await page.wait_for_function(f"() => ({FILL})() === '#ffffff'")
        await page.emulate_media(color_scheme="dark")
        await page.wait_for_function(f"() => ({FILL})() === '#1b2127'")


async def late(route: Route) -> None:
    """A network slow enough that charts could be drawn meanwhile."""
    await asyncio.sleep(1.0)
    await route.continue_()


async def test_colours_follow_while_charts_are_drawn(watched: Watched, browser: Browser) -> None:
    """What was drawn, or about to be, in the colours of before is drawn again in those of now."""
    async with watched.page(browser, color_scheme="light") as page:
        await page.goto(f"{watched.url}/pipeline")
        await expect(page.locator("#stream")).to_have_text("live")
        await page.wait_for_function(DRAWN)
        charts = await page.evaluate("Bokeh.documents.length")
        assert charts > 1
        await page.evaluate(SLOW)
        await page.emulate_media(color_scheme="dark")
        await page.wait_for_function(f"() => ({FILL})() === '#1b2127'")
        await page.route("**/ui/data/**", late)
        await page.emulate_media(color_scheme="light")
        await page.wait_for_function(
            f"() => {{ const fills = ({FILLS})(); return fills.length === {charts} && "
            "fills.every((fill) => fill === '#ffffff') }"
        )


async def test_categories_are_text(watched: Watched, browser: Browser) -> None:
    """Whoever sends requests may write what they like: it is never markup."""
    evil = "<img src=x onerror=alert(1)>"
    watched.view.purposes = (evil, *watched.view.purposes[1:])
    async with watched.page(browser) as page:
        await page.goto(f"{watched.url}/models/{CREDIT}/signal?signal=purpose")
        await expect(page.locator("#stream")).to_have_text("live")
        await page.wait_for_function(DRAWN)
        chart = page.locator("figure[data-key='bars-purpose'] .chart")
        box = await chart.bounding_box()
        assert box
        for y in range(40, 120, 10):
            await page.mouse.move(box["x"] + 150, box["y"] + y)
        await expect(page.get_by_text("<img src=").first).to_be_visible()
        assert await page.locator("img").count() == 0


@pytest.mark.parametrize("options", [PageOptions(port=0, refresh_s=0.2, token=TOKEN)])
async def test_a_token_is_kept_out_of_the_address(watched: Watched, browser: Browser) -> None:
    """Without it the page says what it needs; given once in the fragment it opens every page of the tab."""
    watched.console.expects("403 (Forbidden)")
    async with watched.page(browser) as page:
        await page.goto(watched.url)
        await expect(page.locator("#stale")).to_contain_text("needs the monitor's token")
    watched.console = Console()
    async with watched.page(browser) as page:
        await page.goto(f"{watched.url}/pipeline#token={TOKEN}")
        await expect(page.locator("#stream")).to_have_text("live")
        assert TOKEN not in page.url
        await page.get_by_role("link", name="Alarms").click()
        await expect(page.locator("#blocks")).to_contain_text("income has drifted")


async def test_silence_of_the_monitor_is_said(watched: Watched, browser: Browser) -> None:
    """What is shown stays, marked as not live."""
    watched.console.expects("net::ERR_FAILED")
    async with watched.page(browser) as page:
        await page.goto(f"{watched.url}/alarms")
        await expect(page.locator("#stream")).to_have_text("live")
        await page.route("**/ui/data/**", lambda route: route.abort())
        await expect(page.locator("#stream")).to_have_text("not live")
        await expect(page.locator("#stale")).to_have_text("The monitor does not answer.")
        await expect(page.locator("#blocks")).to_contain_text("income has drifted")
        await page.unroute("**/ui/data/**")
        await expect(page.locator("#stream")).to_have_text("live")
