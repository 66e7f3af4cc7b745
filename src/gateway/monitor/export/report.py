"""What a report on a model holds, and its formats. Aggregates alone: no row, no key, no rare category."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gateway.core.errors import NotFound
from gateway.monitor.export.parquet import parquet_report
from gateway.monitor.export.values import Report
from gateway.monitor.pages.jsontext import json_bytes
from gateway.monitor.pages.ranking import ranked
from gateway.monitor.pages.report_html import html_report
from gateway.monitor.pages.shown import ScoreQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.monitor.pages.shown import CategoryShown, Distribution, Period, Selection
    from gateway.monitor.pages.view import MonitorView

K_FLOOR: Final = 20
"""A category with fewer rows than this is not named: it could be somebody."""

PICTURED: Final = 8
"""Signals that are shown in full, the worst ones."""

_SCORED: Final = 20_000


@dataclass(frozen=True, slots=True)
class Format:
    """How a report is written."""

    media_type: str
    write: Callable[[Report], bytes]


FORMATS: Final[Mapping[str, Format]] = {
    "html": Format("text/html; charset=utf-8", html_report),
    "json": Format("application/json", json_bytes),
    "parquet": Format("application/vnd.apache.parquet", parquet_report),
}
"""Formats by name."""


async def collect(view: MonitorView, selection: Selection, period: Period, window: str) -> Report:
    """Ask the view for what a report holds.

    Raises:
        NotFound: nobody knows the model, version, arm or segment.
    """
    model = await view.model(selection.model)
    query = ScoreQuery(window=window, period=period, selection=selection, most=_SCORED)
    scores = tuple(await view.scores(query))
    distributions = []
    for signal in ranked(scores)[:PICTURED]:
        try:
            distributions.append(floored(await view.distribution(selection, signal.name, period)))
        except NotFound:
            continue
    return Report(
        made_s=view.now_s(),
        selection=selection,
        period=period,
        window=window,
        model=model,
        scores=scores,
        coverage=await view.coverage(selection, period),
        distributions=tuple(distributions),
        performance=await view.performance(selection, period),
        alarms=await view.alarms(period, selection.model),
    )


def floored(found: Distribution) -> Distribution:
    """Return a distribution in which no category of fewer than K_FLOOR rows has a name."""
    if found.category is None:
        return found
    return replace(found, category=_floored(found.category, found.rows))


def _floored(category: CategoryShown, rows: float) -> CategoryShown:
    kept = [i for i, share in enumerate(category.current) if share * rows >= K_FLOOR]
    hidden = [i for i in range(len(category.values)) if i not in set(kept)]
    return replace(
        category,
        values=[category.values[i] for i in kept],
        reference=[category.reference[i] for i in kept],
        current=[category.current[i] for i in kept],
        reference_other=category.reference_other + sum(category.reference[i] for i in hidden),
        current_other=category.current_other + sum(category.current[i] for i in hidden),
        novel_values=[(name, count) for name, count in category.novel_values if count >= K_FLOOR],
        shares=[[step[i] for i in kept] for step in category.shares],
    )
