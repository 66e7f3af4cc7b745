"""How good the model is: metrics over time, reliability, segments, fairness."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bokeh.models import FactorRange

from gateway.monitor.pages.charts.base import distinct, drawn, legend, milliseconds, source, tooltip

if TYPE_CHECKING:
    from gateway.monitor.pages.palette import Palette
    from gateway.monitor.pages.shown import MetricShown, Period, Reliability
    from gateway.monitor.values import Marker


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, estimated and realised, over the same time."""

    period: Period
    estimated: MetricShown | None
    realised: MetricShown | None
    markers: tuple[Marker, ...] = ()


@dataclass(frozen=True, slots=True)
class Effect:
    """One row of a forest plot; NaN where unknown."""

    name: str
    value: float
    low: float
    high: float
    rows: float


@dataclass(frozen=True, slots=True)
class Forest:
    """Effects of one metric, and values to compare them with.

    Attributes:
        lines: values marked from top to bottom: the whole, the reference, or declared bounds.
    """

    metric: str
    effects: tuple[Effect, ...]
    lines: tuple[float, ...]


def metric(data: Metric, palette: Palette) -> Any:
    """Draw both kinds as bands, the reference and the bounds."""
    plot = drawn(palette, times=(data.period.start_s, data.period.end_s))
    items = {}
    ends = milliseconds([data.period.start_s, data.period.end_s])
    looks = (("estimated", data.estimated, palette.series[1], "dashed"),
             ("realised", data.realised, palette.accent, "solid"))  # fmt: skip
    for kind, shown, colour, dash in looks:
        if shown is None:
            continue
        points = shown.points
        columns = source(
            kind,
            at=milliseconds([(p.start_s + p.end_s) / 2 for p in points]),
            value=[p.value for p in points], low=[p.low for p in points], high=[p.high for p in points],
            rows=[p.rows for p in points], complete=[p.completeness for p in points],
            kind=[kind] * len(points),
        )  # fmt: skip
        band = plot.varea("at", "low", "high", source=columns, fill_color=colour, fill_alpha=0.18)
        line = plot.line("at", "value", source=columns, line_color=colour, line_width=2, line_dash=dash)
        dots = plot.scatter("at", "value", source=columns, size=5, fill_color=colour, line_color=None)
        items[f"{kind}, 95 %"] = [line, band]
        tooltip(
            plot, [dots], ("", "@kind"), ("at", "@at{%d %b %H:%M}"), ("value", "@value{0.0000}"),
            ("95 %", "@low{0.0000} to @high{0.0000}"), ("rows", "@rows{0,0}"),
            ("labels in", "@complete{0 %}"),
        )  # fmt: skip
    known = data.realised or data.estimated
    bounds = [known.least, known.most] if known else []
    for name, values, colour, dash in (
        ("bound", [value for value in bounds if math.isfinite(value)], palette.bad, "dashed"),
        (
            "reference",
            [known.reference] if known and math.isfinite(known.reference) else [],
            palette.reference,
            "dotted",
        ),
    ):
        lines = source(name, at=[ends] * len(values), y=[[value, value] for value in values])
        drawn_lines = plot.multi_line(
            "at", "y", source=lines, line_color=colour, line_dash=dash, line_width=1.5
        )
        if values:
            items[name] = [drawn_lines]
    columns = source("marks", at=[m.at_s * 1000 for m in data.markers], text=[m.text for m in data.markers])
    plot.vspan("at", source=columns, line_color=palette.wait, line_dash="dotted", line_width=1.5)
    legend(plot, palette, items)
    return plot


def completeness(data: Metric, palette: Palette) -> Any:
    """Draw which share of rows has got its label by now, by block."""
    plot = drawn(palette, height=90, times=(data.period.start_s, data.period.end_s))
    points = data.realised.points if data.realised else ()
    columns = source(
        "labels",
        at=milliseconds([(p.start_s + p.end_s) / 2 for p in points]),
        width=[(p.end_s - p.start_s) * 950 for p in points],
        share=[p.completeness for p in points],
        rows=[p.rows for p in points],
    )
    bars = plot.vbar(
        "at", top="share", width="width", source=columns, fill_color=palette.accent, line_color=None
    )
    plot.y_range.start, plot.y_range.end = 0, 1.05
    plot.yaxis.ticker = [0, 0.5, 1]
    tooltip(
        plot, [bars], ("at", "@at{%d %b %H:%M}"), ("labels in", "@share{0.0 %}"), ("labels", "@rows{0,0}")
    )
    return plot


def reliability(shown: Reliability, palette: Palette) -> Any:
    """Draw observed shares by predicted score; on the diagonal scores mean what they say."""
    plot = drawn(
        palette, height=300, unit="observed", across="predicted", x_range=(0.0, 1.0), y_range=(0.0, 1.0)
    )
    diagonal = source("diagonal", x=[0.0, 1.0], y=[0.0, 1.0])
    perfect = plot.line("x", "y", source=diagonal, line_color=palette.reference, line_dash="dashed")
    most = max(shown.rows, default=1.0) or 1.0
    columns = source(
        "bins", x=shown.predicted, y=shown.observed, low=shown.low, high=shown.high, rows=shown.rows,
        size=[5 + 9 * math.sqrt(max(0.0, rows) / most) for rows in shown.rows],
    )  # fmt: skip
    plot.segment("x", "low", "x", "high", source=columns, line_color=palette.accent, line_width=1.5)
    plot.line("x", "y", source=columns, line_color=palette.accent, line_width=1)
    dots = plot.scatter("x", "y", size="size", source=columns, fill_color=palette.accent, line_color=None)
    tooltip(
        plot, [dots], ("predicted", "@x{0.000}"), ("observed", "@y{0.000}"),
        ("95 %", "@low{0.000} to @high{0.000}"), ("rows", "@rows{0,0}"),
    )  # fmt: skip
    legend(plot, palette, {"observed, 95 %": [dots], "perfect": [perfect]})
    return plot


def forest(data: Forest, palette: Palette) -> Any:
    """Draw one interval per row, with lines to compare them with."""
    names = distinct([effect.name for effect in data.effects])
    plot = drawn(
        palette,
        height=60 + 24 * max(1, len(names)),
        across=data.metric,
        y_range=FactorRange(factors=names[::-1], name="names"),
    )
    columns = source(
        "effects", name=names, full=[e.name for e in data.effects], value=[e.value for e in data.effects],
        low=[e.low for e in data.effects], high=[e.high for e in data.effects],
        rows=[e.rows for e in data.effects],
    )  # fmt: skip
    plot.segment("low", "name", "high", "name", source=columns, line_color=palette.accent, line_width=2)
    dots = plot.scatter(
        "value", "name", size=8, marker="square", source=columns, fill_color=palette.accent, line_color=None
    )
    lines = source("lines", x=[line for line in data.lines if math.isfinite(line)])
    plot.vspan("x", source=lines, line_color=palette.bad, line_dash="dashed", line_width=1.5)
    plot.ygrid.grid_line_color = None
    plot.xgrid.grid_line_color = palette.line
    tooltip(
        plot, [dots], ("", "@full"), (data.metric, "@value{0.0000}"),
        ("95 %", "@low{0.0000} to @high{0.0000}"), ("rows", "@rows{0,0}"),
    )  # fmt: skip
    return plot
