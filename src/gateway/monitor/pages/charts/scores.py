"""Scores over time: the heat map, lines against their thresholds, the coverage strip and what to mark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bokeh.models import FactorRange

from gateway.monitor.pages.charts.base import distinct, drawn, legend, milliseconds, source, tooltip
from gateway.monitor.values import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.pages.palette import Palette
    from gateway.monitor.pages.shown import CoverageShown, Period
    from gateway.monitor.values import Marker, Score

_ROW = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the heat map: the worst statistic of a signal by window.

    Attributes:
        name: of the signal.
        scores: one per window at most, earliest first.
    """

    name: str
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Heat:
    """Rows over the same time, the worst first."""

    period: Period
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One statistic of one signal over time."""

    name: str
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Lines over the same time with what happened then.

    Attributes:
        relative: scores are drawn as multiples of their thresholds, for lines of several statistics.
    """

    period: Period
    lines: tuple[Line, ...]
    markers: tuple[Marker, ...] = ()
    relative: bool = True


def ratio(score: Score) -> float:
    """Return a score as a multiple of its threshold; NaN where one of them is unknown."""
    if not score.threshold > 0:
        return math.inf if score.value > 0 and score.threshold == 0 else math.nan
    return score.value / score.threshold


def heat_map(heat: Heat, palette: Palette) -> Any:
    """Draw signals by time: darker is nearer to the threshold, a cross is drift, grey cannot be said."""
    names = [row.name for row in heat.rows]
    labels = distinct(names, 16)
    height = 34 + _ROW * max(1, len(names))
    plot = drawn(
        palette,
        height=height,
        times=(heat.period.start_s, heat.period.end_s),
        y_range=FactorRange(factors=labels[::-1], name="names"),
    )
    cells = [
        (label, row.name, score) for label, row in zip(labels, heat.rows, strict=True) for score in row.scores
    ]
    columns = source(
        "cells",
        at=[(score.start_s + score.end_s) * 500 for _, _, score in cells],
        width=[(score.end_s - score.start_s) * 1000 for _, _, score in cells],
        label=[label for label, _, _ in cells],
        signal=[name for _, name, _ in cells],
        statistic=[score.statistic for _, _, score in cells],
        value=[score.value for _, _, score in cells],
        threshold=[score.threshold for _, _, score in cells],
        finding=[SAID[score.finding] for _, _, score in cells],
        colour=[_colour(score, palette) for _, _, score in cells],
        mark=["\u00d7" if score.finding is Finding.DRIFT else "" for _, _, score in cells],
    )
    squares = plot.rect(
        "at", "label", width="width", height=0.9, source=columns, fill_color="colour", line_color=palette.card
    )
    plot.text(
        "at", "label", text="mark", source=columns, text_color=palette.card, text_align="center",
        text_baseline="middle", text_font_size="12px", text_font_style="bold",
    )  # fmt: skip
    plot.grid.grid_line_color = None
    tooltip(
        plot, [squares], ("signal", "@signal"), ("at", "@at{%d %b %H:%M}"), ("statistic", "@statistic"),
        ("value", "@value{0.0000}"), ("threshold", "@threshold{0.0000}"), ("says", "@finding"),
    )  # fmt: skip
    return plot


def timeline(data: Timeline, palette: Palette) -> Any:
    """Draw lines, their threshold, and a dot where drift was found."""
    unit = "score / threshold" if data.relative else "score"
    plot = drawn(palette, times=(data.period.start_s, data.period.end_s), unit=unit)
    shown = {}
    renderers = []
    for index, line in enumerate(data.lines):
        colour = palette.series[index % len(palette.series)]
        columns = _line_source(f"line-{index}", line, relative=data.relative)
        drawn_line = plot.line("at", "y", source=columns, line_color=colour, line_width=2)
        dots = plot.scatter("at", "drift", source=columns, size=7, fill_color=palette.bad, line_color=colour)
        shown[line.name] = [drawn_line]
        renderers += [drawn_line, dots]
        if not data.relative:
            plot.line(
                "at", "threshold", source=columns, line_color=palette.bad, line_dash="dashed", line_width=1.5
            )
    if data.relative:
        ends = source("threshold", at=milliseconds([data.period.start_s, data.period.end_s]), y=[1.0, 1.0])
        plot.line("at", "y", source=ends, line_color=palette.bad, line_dash="dashed", line_width=1.5)
    marks(plot, data.markers, palette)
    tooltip(
        plot, renderers, ("signal", "@signal"), ("at", "@at{%d %b %H:%M}"), ("statistic", "@statistic"),
        ("value", "@value{0.0000}"), ("threshold", "@threshold{0.0000}"), ("rows", "@rows{0,0}"),
    )  # fmt: skip
    if shown:
        legend(plot, palette, shown)
    plot.y_range.start = 0
    return plot


def coverage_strip(shown: CoverageShown, palette: Palette) -> Any:
    """Draw the share of served rows that the monitor saw, as a strip; under 95 % it is degraded."""
    end_s = (shown.starts_s[-1] if shown.starts_s else 0.0) + shown.step_s
    plot = drawn(palette, height=90, times=(shown.starts_s[0] if shown.starts_s else 0.0, end_s))
    columns = source(
        "coverage",
        at=milliseconds([start + shown.step_s / 2 for start in shown.starts_s]),
        width=[shown.step_s * 1000] * len(shown.starts_s),
        ratio=shown.ratio,
        rows=shown.rows,
        colour=[palette.bad if value < 0.95 else palette.reference for value in shown.ratio],
    )
    bars = plot.vbar("at", top="ratio", width="width", source=columns, fill_color="colour", line_color=None)
    plot.y_range.start, plot.y_range.end = 0, 1.05
    plot.yaxis.ticker = [0, 0.5, 0.95]
    plot.yaxis.formatter.use_scientific = False
    marks(plot, shown.markers, palette)
    tooltip(
        plot, [bars], ("at", "@at{%d %b %H:%M}"), ("coverage", "@ratio{0.0 %}"), ("rows served", "@rows{0,0}")
    )
    return plot


def marks(plot: Any, markers: Sequence[Marker], palette: Palette) -> None:
    """Draw moments as lines from top to bottom, with a triangle that says what happened."""
    columns = source(
        "marks",
        at=[marker.at_s * 1000 for marker in markers],
        y=[0.0] * len(markers),
        text=[marker.text for marker in markers],
    )
    plot.vspan("at", source=columns, line_color=palette.wait, line_dash="dotted", line_width=1.5)
    triangles = plot.scatter(
        "at", "y", marker="triangle", size=9, fill_color=palette.wait, line_color=None, source=columns
    )
    tooltip(plot, [triangles], ("", "@text"), ("at", "@at{%d %b %H:%M}"))


def _line_source(name: str, line: Line, *, relative: bool) -> Any:
    values = [ratio(score) if relative else score.value for score in line.scores]
    found = [score.finding is Finding.DRIFT for score in line.scores]
    return source(
        name,
        at=milliseconds([score.end_s for score in line.scores]),
        y=values,
        drift=[value if drift else math.nan for value, drift in zip(values, found, strict=True)],
        value=[score.value for score in line.scores],
        threshold=[score.threshold for score in line.scores],
        rows=[score.rows for score in line.scores],
        statistic=[score.statistic for score in line.scores],
        signal=[line.name] * len(line.scores),
    )


def _colour(score: Score, palette: Palette) -> str:
    if score.finding is Finding.DRIFT:
        return palette.heat[-1]
    if score.finding is not Finding.OK:
        return palette.void
    share = ratio(score)
    return palette.heat[min(3, int(share * 4))] if math.isfinite(share) else palette.void


SAID = {
    Finding.OK: "no drift",
    Finding.DRIFT: "drift",
    Finding.TOO_FEW: "too few rows",
    Finding.DEGRADED: "coverage too low",
    Finding.NO_REFERENCE: "no reference",
}
"""Findings in words."""
