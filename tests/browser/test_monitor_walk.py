"""A reader of the pages sees a healthy model, then its drift named: all of it real but the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from tests.monitor import car_loans
from tests.monitor.watching import watched

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_drift_appears_on_the_pages(browser: Browser, tmp_path: Path) -> None:
    """No alarm after eight healthy windows; two drifted ones later the ledger and the model say what."""
    async with watched(tmp_path) as run:
        page = await browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        url = run.monitor.pages_url
        for _ in range(8):
            await run.minute(0, car_loans.DRIFT_FROM)
        await page.goto(f"{url}/?range=1h")
        await expect(page.locator("#badges").get_by_text("no alarm")).to_be_visible()
        for _ in range(2):
            await run.minute(car_loans.DRIFT_FROM, 50_000)
        await page.goto(f"{url}/alarms")
        await expect(page.get_by_text("car_value drifted from its reference").first).to_be_visible()
        await page.goto(f"{url}/models/car_loan?range=1h")
        await expect(page.get_by_text("car_value").first).to_be_visible()
        await page.goto(f"{url}/models/car_loan/signal?signal=car_value&range=1h")
        await expect(page.locator(".chart").first).to_be_visible()
        await page.close()
        assert problems == []
