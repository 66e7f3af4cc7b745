"""Pages as the browser gets them: shells, files, and what fills them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gateway.monitor.pages.ranking import ranked
from gateway.monitor.pages.shown import Period, ScoreQuery, Selection
from gateway.monitor.values import Finding
from tests.monitor.pages.view_fake import CREDIT, DRIFTS_S, NOW_S, FakeView

if TYPE_CHECKING:
    import httpx

PLACES = (
    "/",
    f"/models/{CREDIT}",
    f"/models/{CREDIT}/signal?signal=income",
    f"/models/{CREDIT}/signal?signal=purpose",
    f"/models/{CREDIT}/signal?signal=inputs",
    f"/models/{CREDIT}/performance",
    f"/models/{CREDIT}/arms",
    f"/models/{CREDIT}/alarms",
    "/alarms",
    "/pipeline",
)


def charts(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [block for block in page["blocks"] if block["kind"] == "chart"]


@pytest.mark.parametrize("place", PLACES)
async def test_every_page_has_a_shell_and_what_fills_it(client: httpx.AsyncClient, place: str) -> None:
    """The shell shows nothing by itself; its blocks say in words what the pictures show."""
    shell = await client.get(place)
    assert shell.headers["content-type"].startswith("text/html")
    assert CREDIT not in shell.text
    page = (await client.get(f"/ui/data{place}")).json()
    assert page["title"]
    keys = [block["key"] for block in charts(page)]
    assert len(keys) == len(set(keys))
    assert all(block["about"].endswith((".", "drift")) for block in charts(page))


async def test_news_are_told_from_none(client: httpx.AsyncClient, view: FakeView) -> None:
    """An unchanged page costs no drawing and no transfer; a changed one and another theme do."""
    first = await client.get("/ui/data/alarms")
    seen = {"if-none-match": first.headers["etag"]}
    assert (await client.get("/ui/data/alarms", headers=seen)).status_code == 304
    assert (await client.get("/ui/data/alarms?theme=dark", headers=seen)).status_code == 200
    view.standing = False
    assert (await client.get("/ui/data/alarms", headers=seen)).status_code == 200


async def test_files_last_as_long_as_they_are_named_by_content(client: httpx.AsyncClient) -> None:
    """BokehJS comes from here, is fetched once, and a new release has another name."""
    shell = (await client.get("/")).text
    name = next(part for part in shell.split('"') if part.startswith("/ui/files/bokeh.js?"))
    answer = await client.get(name)
    assert len(answer.content) > 1_000_000
    assert "immutable" in answer.headers["cache-control"]
    assert (await client.get("/ui/files/..%2fserver.py")).status_code == 404
    assert "://" not in shell


async def test_a_thousand_signals_are_bounded(client: httpx.AsyncClient, view: FakeView) -> None:
    """The worst are shown, the rest is found by searching."""
    view.wide = 1000
    page = (await client.get(f"/ui/data/models/{CREDIT}")).json()
    heat = next(block for block in charts(page) if block["key"] == "heat")
    assert "4 signals of 1010 drifted: income, purpose" in heat["about"]
    table = next(block for block in page["blocks"] if block["kind"] == "table")
    assert len(table["rows"]) == 48
    assert table["rows"][0][0]["text"] == "income"
    page = (await client.get(f"/ui/data/models/{CREDIT}?search=FEATURE_0999")).json()
    table = next(block for block in page["blocks"] if block["kind"] == "table")
    assert [row[0]["text"] for row in table["rows"]] == ["feature_0999"]


async def test_names_from_logs_stay_text(client: httpx.AsyncClient, view: FakeView) -> None:
    """Whoever sends requests chooses categories: they reach the browser as JSON, and links quote them."""
    view.purposes = ("<img src=x onerror=alert(1)>", *view.purposes[1:])
    view.names = ("a b?c#d", "other")
    answer = await client.get("/ui/data/models/a%20b%3Fc%23d/signal?signal=purpose")
    assert answer.headers["content-type"] == "application/json"
    page = answer.json()
    assert page["trail"][1]["href"] == "/models/a%20b%3Fc%23d"


@pytest.mark.parametrize("place", ["/models/nobody", f"/models/{CREDIT}/signal"])
async def test_pages_of_nothing_say_so(client: httpx.AsyncClient, place: str) -> None:
    """The shell is there; what should fill it is an error in words."""
    assert (await client.get(place)).status_code == 200
    answer = await client.get(f"/ui/data{place}")
    assert answer.status_code in {400, 404}
    assert answer.json()["error"]


async def test_ranking_puts_drift_first() -> None:
    """By windows with drift, then by the highest multiple of a threshold; NaN and zero do no harm."""
    query = ScoreQuery(window="1h", period=Period(NOW_S - 86_400, NOW_S), selection=Selection(model=CREDIT))
    scores = list(await FakeView().scores(query))
    odd = replace(scores[0], signal="odd", value=float("nan"), finding=Finding.NO_REFERENCE)
    endless = replace(scores[0], signal="endless", threshold=0.0, finding=Finding.OK)
    found = ranked([odd, endless, *scores])
    assert [signal.name for signal in found[:4]] == ["income", "purpose", "inputs", "score[1]"]
    assert found[0].drifted == sum(1 for s in found[0].worst if s.start_s >= DRIFTS_S)
    assert found[4].name == "endless"
    assert found[-1].name == "odd"
    assert found[-1].peak is None


async def test_an_empty_fleet_has_a_page(client: httpx.AsyncClient, view: FakeView) -> None:
    """Before the first row there is nothing, and that is said."""
    view.names = ()
    page = (await client.get("/ui/data/")).json()
    assert any(block.get("empty") == "No gateway has logged a prediction yet." for block in page["blocks"])
