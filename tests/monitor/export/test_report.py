"""Reports: one file of aggregates."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import orjson
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from gateway.monitor.export.parquet import REPORT_KEY
from gateway.monitor.export.report import FORMATS, K_FLOOR, PICTURED, collect, floored
from gateway.monitor.pages.report_html import MOST_BYTES, html_report
from gateway.monitor.pages.shown import Period, Selection
from tests.monitor.pages.view_fake import CREDIT, NOW_S, FakeView

if TYPE_CHECKING:
    from gateway.monitor.export.values import Report

PERIOD = Period(NOW_S - 86_400, NOW_S)


@pytest_asyncio.fixture
async def report() -> Report:
    return await collect(FakeView(wide=300), Selection(model=CREDIT), PERIOD, "1h")


def test_html_stands_alone(report: Report) -> None:
    """One file under 2 MB that loads nothing, with the worst signals in pictures."""
    page = FORMATS["html"].write(report)
    assert len(page) <= MOST_BYTES < 2_000_001
    head, _, rest = page.decode().partition("</style>")
    assert "default-src 'none'" in head
    body = rest.partition('<script type="application/json"')[0]
    assert "http" not in body
    assert "src=" not in body
    assert "<h3>income</h3>" not in body
    assert "<h2>income</h2>" in body
    assert len(report.distributions) == PICTURED


def test_html_drops_pictures_before_it_grows_too_large(report: Report) -> None:
    """Signals at the end of the ranking lose theirs first."""
    two = replace(report, distributions=report.distributions[:2])
    full = html_report(two)
    less = html_report(two, len(full) - 1)
    assert len(less) < len(full)
    assert b"<h2>income</h2>" in less
    assert b"<h2>purpose</h2>" not in less


async def test_hostile_names_stay_text() -> None:
    """Categories end up neither as elements nor as the end of a script."""
    view = FakeView(purposes=("</script><script>alert(1)</script>", "b", "c", "d", "e", "f"))
    view.names = ("<b>model</b>",)
    found = await collect(view, Selection(model="<b>model</b>"), PERIOD, "1h")
    category = [shown for shown in found.distributions if shown.category][:1]
    page = FORMATS["html"].write(replace(found, distributions=tuple(category))).decode()
    assert "alert(1)</script>" not in page
    assert "<b>model" not in page


def test_json_has_everything(report: Report) -> None:
    """Its members are the report's."""
    document = orjson.loads(FORMATS["json"].write(report))
    assert document.keys() == {field.name for field in fields(report)}
    assert len(document["scores"]) == len(report.scores)


def test_parquet_has_one_row_per_score(report: Report) -> None:
    """Columns are typed; the rest of the report travels in the metadata."""
    table = pq.read_table(io.BytesIO(FORMATS["parquet"].write(report)))
    assert table.num_rows == len(report.scores)
    row = table.slice(table.num_rows - 1).to_pylist()[0]
    score = report.scores[-1]
    assert (row["signal"], row["finding"], row["value"]) == (score.signal, score.finding.value, score.value)
    assert row["end"].timestamp() == score.end_s
    rest = orjson.loads(table.schema.metadata[REPORT_KEY])
    assert rest["model"]["model"] == CREDIT


async def test_rare_categories_have_no_name() -> None:
    """Fewer than 20 rows could be somebody: they count as other, and all shares still add up."""
    found = await FakeView().distribution(Selection(model=CREDIT), "purpose", PERIOD)
    assert found.category
    rare = replace(
        found, rows=K_FLOOR / 0.1, category=replace(found.category, novel_values=[("x", 19.0), ("y", 20.0)])
    )
    kept = floored(rare).category
    assert kept
    assert list(kept.values) == ["car", "house", "education", "renovation"]
    assert sum(kept.current) + kept.current_other == pytest.approx(
        sum(found.category.current) + found.category.current_other
    )
    assert sum(kept.reference) + kept.reference_other == pytest.approx(sum(found.category.reference) + 0.02)
    assert [name for name, _ in kept.novel_values] == ["y"]
    assert {len(step) for step in kept.shares} == {4}


@pytest.mark.parametrize("signal", ["income", "inputs"])
async def test_other_signals_are_left_alone(signal: str) -> None:
    """Numbers and embeddings name nobody."""
    found = await FakeView().distribution(Selection(model=CREDIT), signal, PERIOD)
    assert floored(found) is found
