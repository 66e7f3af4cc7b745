"""A report as one HTML file that needs nothing else: no network, no server."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from gateway.monitor.pages import words
from gateway.monitor.pages.blocks import Badge, Chart, Facts, Heading, Link, Notice, Table, Text
from gateway.monitor.pages.charts.base import item
from gateway.monitor.pages.charts.scores import coverage_strip
from gateway.monitor.pages.drift_pages import distribution_blocks
from gateway.monitor.pages.fleet import heat_blocks
from gateway.monitor.pages.jsontext import json_bytes
from gateway.monitor.pages.ledger_pages import alarm_blocks
from gateway.monitor.pages.palette import LIGHT
from gateway.monitor.pages.performance_page import performance_blocks
from gateway.monitor.pages.ranking import ranked
from gateway.monitor.pages.site import bokeh_script

if TYPE_CHECKING:
    from gateway.monitor.export.values import Report
    from gateway.monitor.pages.blocks import Block, Cell

MOST_BYTES: Final = 2_000_000
"""No report is larger: pictures of the least bad signals are left out first."""

_ROWS: Final = 40
_LISTED: Final = 200
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'"
)
_EMBED: Final = """
for (const chart of JSON.parse(document.getElementById("charts").textContent)) Bokeh.embed.embed_item(chart);
"""


def html_report(report: Report, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the report as a page of at most `most_bytes`, if it can be with no signal pictured."""
    while True:
        page = _page(report)
        if len(page) <= most_bytes or not report.distributions:
            return page
        report = replace(report, distributions=report.distributions[: len(report.distributions) // 2])


def _page(report: Report) -> bytes:
    charts: list[object] = []
    body = "\n".join(_html(block, charts) for block in _blocks(report))
    style = files("gateway.monitor.pages").joinpath("static", "page.css").read_text()
    # Neither may end the element that it stands in.
    data = json_bytes(charts).decode().replace("<", "\\u003c")
    title = escape(f"Drift of {report.selection.model}")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body class="report">
<main>
<h1>{title}</h1>
{body}
</main>
<script type="application/json" id="charts">{data}</script>
<script>{bokeh_script().decode()}</script>
<script>{_EMBED}</script>
</body>
</html>
""".encode()


def _blocks(report: Report) -> list[Block]:
    selection, period = report.selection, report.period
    signals = ranked(report.scores)
    stream = [f"version {selection.version}"] if selection.version is not None else []
    stream += [text for text in (selection.arm and f"arm {selection.arm}", selection.segment) if text]
    spans = f"{words.moment(period.start_s)} to {words.moment(period.end_s)}"
    about = f"{', '.join(stream) or 'live version'}; {spans}; windows of {report.window}"
    coverage = report.coverage
    return [
        Text(f"{about}. Made {words.moment(report.made_s)} from aggregates."),
        Facts(
            (
                ("rows in the last day", words.number(report.model.rows)),
                ("coverage of the last day", words.percent(report.model.coverage.ratio)),
                ("signals", words.number(len(signals))),
                ("alarms in the period", words.number(report.alarms.raised)),
            )
        ),
        Heading("Drift"),
        *heat_blocks("heat", signals, period, _ROWS),
        Chart("coverage", "Coverage", "Share of served rows that were seen.", coverage_strip, coverage),
        *(
            block
            for found in report.distributions
            for block in _signal(found.signal, distribution_blocks(found))
        ),
        Heading("Performance"),
        *performance_blocks(report.performance, tuple(coverage.markers)),
        Heading("Alarms"),
        *alarm_blocks(report.alarms, report.made_s),
    ]


def _signal(name: str, blocks: list[Block]) -> list[Block]:
    return [Heading(name), *blocks]


def _html(block: Block, charts: list[object]) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
        case Text():
            return f'<p class="{escape(block.tone)}">{escape(block.text)}</p>'
        case Notice():
            return f'<p class="notice {escape(block.tone)}">{escape(block.text)}</p>'
        case Facts():
            facts = "".join(f"<div><dt>{escape(n)}</dt><dd>{_cell(v)}</dd></div>" for n, v in block.items)
            return f'<dl class="facts">{facts}</dl>'
        case Table():
            return _table(block)
        case Chart():
            return _chart(block, charts)
    return ""


def _chart(block: Chart, charts: list[object]) -> str:
    target = f"chart-{len(charts)}"
    charts.append(item(block.draw(block.data, LIGHT), target))
    title, about = escape(block.title), escape(block.about)
    return (
        f'<figure class="card"><figcaption><h3>{title}</h3><p class="dim">{about}</p></figcaption>'
        f'<div class="chart" id="{target}" role="img" aria-label="{title}: {about}"></div></figure>'
    )


def _table(block: Table) -> str:
    if not block.rows:
        return f"<h3>{escape(block.caption)}</h3><p class='dim'>{escape(block.empty)}</p>"
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in block.columns)
    rows = "".join(_row(row) for row in block.rows[:_LISTED])
    caption = escape(block.caption)
    return (
        f'<div class="scroll"><table><caption>{caption}</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(row: tuple[Cell, ...]) -> str:
    cells = "".join(f"<td>{_cell(value)}</td>" for value in row[1:])
    return f'<tr><th scope="row">{_cell(row[0])}</th>{cells}</tr>'


def _cell(value: Cell) -> str:
    if isinstance(value, Badge):
        return f'<span class="badge {escape(value.tone)}">{escape(value.text)}</span>'
    return escape(value.text if isinstance(value, Link) else value)
