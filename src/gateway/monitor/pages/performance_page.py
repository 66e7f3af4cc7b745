"""The page about how good a model is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway.monitor.pages import words
from gateway.monitor.pages.blocks import Badge, Block, Chart, Facts, Heading, Page, Table, Text
from gateway.monitor.pages.charts import distributions, performance
from gateway.monitor.pages.places import FLEET, badges, controls, model_path, selected, tabs
from gateway.monitor.values import ALL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.pages.asked import Asked
    from gateway.monitor.pages.shown import FairnessGap, MetricShown, PerformanceShown, SegmentEffect
    from gateway.monitor.pages.view import MonitorView
    from gateway.monitor.values import Marker


async def performance_page(view: MonitorView, asked: Asked, model: str) -> Page:
    """Return the page about a model's performance."""
    selection, period = asked.selection(model), asked.period("7d")
    shown = await view.model(model)
    found = await view.performance(selection, period)
    coverage = await view.coverage(selection, period)
    blocks: list[Block] = [
        controls(shown, asked, default="7d"),
        *performance_blocks(found, tuple(coverage.markers)),
    ]
    return Page(
        title=model,
        blocks=tuple(blocks),
        badges=badges(shown),
        trail=(FLEET,),
        tabs=tabs(model, asked),
        here=model_path(model, "/performance", **selected(asked)),
    )


def performance_blocks(found: PerformanceShown, markers: tuple[Marker, ...] = ()) -> list[Block]:
    """Return the pictures of performance; also used by reports."""
    whole = [metric for metric in found.metrics if metric.segment == ALL]
    names = list(dict.fromkeys(metric.metric for metric in whole))
    blocks: list[Block] = [
        Facts(
            (
                ("labels", words.number(found.labels)),
                ("median delay of a label", words.duration(found.labels_late_s)),
                *((name, _state(name, whole)) for name in names),
            )
        )
    ]
    if not names:
        blocks.append(
            Text("Nothing is known of this model's task, or no label and no calibrated score came.")
        )
    pairs = {name: _metric(name, whole, found, markers) for name in names}
    for name, pair in pairs.items():
        blocks.append(Chart(f"metric-{name}", name, _about(pair), performance.metric, pair))
    labelled = next((pair for pair in pairs.values() if pair.realised and pair.realised.points), None)
    if labelled:
        about = "Share of rows whose label has come by now, by block."
        blocks.append(Chart("labels", "Label completeness", about, performance.completeness, labelled))
    blocks += _scores(found)
    for name in dict.fromkeys(effect.metric for effect in found.segments):
        blocks += _segments(name, [e for e in found.segments if e.metric == name], whole)
    return blocks + _fairness(found.fairness)


def _metric(
    name: str, whole: Sequence[MetricShown], found: PerformanceShown, markers: tuple[Marker, ...]
) -> performance.Metric:
    kinds = {metric.kind: metric for metric in whole if metric.metric == name}
    return performance.Metric(found.period, kinds.get("estimated"), kinds.get("realised"), markers)


def _state(name: str, whole: Sequence[MetricShown]) -> Badge:
    """Return the latest value, realised where there is one."""
    of = [metric for metric in whole if metric.metric == name and metric.points]
    if not of:
        return Badge("unknown", "wait")
    best = max(of, key=lambda metric: metric.kind == "realised")
    value = best.points[-1].value
    out = value < best.least or value > best.most
    return Badge(f"{words.number(value)} {best.kind}", "bad" if out else "good")


def _about(pair: performance.Metric) -> str:
    parts = []
    for kind, shown in (("Estimated", pair.estimated), ("Realised", pair.realised)):
        if shown and shown.points:
            last = shown.points[-1]
            interval = f"95 % {words.number(last.low)} to {words.number(last.high)}"
            parts.append(f"{kind} {words.number(last.value)} at the end, {interval}.")
    return " ".join(parts) or "Nothing in this period."


def _scores(found: PerformanceShown) -> list[Block]:
    blocks: list[Block] = []
    if found.scores:
        about = "Predictions of the period beside those of the reference."
        blocks.append(
            Chart("predictions", "Predictions", about, distributions.histogram, found.scores),
        )
    if found.reliability:
        error = f"Expected calibration error {words.number(found.reliability.error)}."
        blocks.append(
            Chart("reliability", "Reliability", error, performance.reliability, found.reliability),
        )
    return blocks


def _segments(name: str, effects: Sequence[SegmentEffect], whole: Sequence[MetricShown]) -> list[Block]:
    worst = sorted(effects, key=lambda effect: effect.value)[:40]
    rows = tuple(performance.Effect(e.segment or "all rows", e.value, e.low, e.high, e.rows) for e in worst)
    reference = next((m.reference for m in whole if m.metric == name), math.nan)
    data = performance.Forest(name, rows, (reference,))
    about = f"Lowest in {rows[0].name}: {words.number(rows[0].value)}; dashed is the reference."
    return [Chart(f"segments-{name}", f"{name} by segment", about, performance.forest, data)]


def _fairness(gaps: Sequence[FairnessGap]) -> list[Block]:
    if not gaps:
        return []
    rows = tuple(
        (
            f"{gap.metric}: {gap.group} - {gap.against}",
            words.number(gap.gap),
            f"{words.number(gap.low)} to {words.number(gap.high)}",
            words.number(gap.most),
            Badge("too large", "bad")
            if gap.low > gap.most or gap.high < -gap.most
            else Badge("bearable", "good"),
        )
        for gap in gaps
    )
    return [
        Heading("Fairness"),
        Table("Gaps between groups", ("Groups", "Gap", "95 %", "Bearable", ""), rows),
    ]
