"""One arm against another, and the way of the log."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.monitor.pages.charts.base import drawn, legend, milliseconds, source, tooltip

if TYPE_CHECKING:
    from gateway.monitor.pages.palette import Palette
    from gateway.monitor.pages.shown import ArmMetric, ArmSignal, PipelineShown


_ASIDE_S: Final = 30.0
"""Room beside the first and the last look."""


def funnel(shown: ArmMetric, palette: Palette) -> Any:
    """Draw the difference and its confidence sequence as rows arrive, and what is tolerated."""
    ends = shown.ends_s
    times = (ends[0] - _ASIDE_S, ends[-1] + _ASIDE_S) if len(ends) else (0.0, 1.0)
    plot = drawn(palette, times=times, unit="candidate - baseline")
    columns = source(
        "looks", at=milliseconds(ends), difference=shown.difference, low=shown.low, high=shown.high
    )
    band = plot.varea("at", "low", "high", source=columns, fill_color=palette.accent, fill_alpha=0.2)
    line = plot.line("at", "difference", source=columns, line_color=palette.accent, line_width=2)
    # A single look is neither band nor line.
    plot.segment("at", "low", "at", "high", source=columns, line_color=palette.accent, line_alpha=0.5)
    plot.scatter("at", "difference", source=columns, size=5, color=palette.accent)
    nothing = source("nothing", at=milliseconds(times), y=[0.0, 0.0])
    plot.line("at", "y", source=nothing, line_color=palette.reference)
    sides = {"above": [shown.margin], "below": [-shown.margin]}.get(shown.harm, [shown.margin, -shown.margin])
    margins = source("margins", at=[milliseconds(times)] * len(sides), y=[[side, side] for side in sides])
    bound = plot.multi_line(
        "at", "y", source=margins, line_color=palette.bad, line_dash="dashed", line_width=1.5
    )
    legend(plot, palette, {"difference": [line], "95 % at all looks": [band], "tolerated": [bound]})
    tooltip(
        plot, [line], ("at", "@at{%d %b %H:%M}"), ("difference", "@difference{0.0000}"),
        ("95 %", "@low{0.0000} to @high{0.0000}"),
    )  # fmt: skip
    return plot


def overlay(shown: ArmSignal, palette: Palette) -> Any:
    """Draw the ECDFs of both arms and of the reference."""
    plot = drawn(palette, height=200, unit="share up to")
    # The last bin is open: its end is no further than the picture is clear.
    span = shown.edges[-1] - shown.edges[0] if len(shown.edges) else 0.0
    edges = [*shown.edges, min(shown.most, shown.edges[-1] + 0.15 * span) if len(shown.edges) else shown.most]
    items = {}
    looks = (("reference", shown.reference, palette.reference, "dashed"),
             ("baseline", shown.baseline, palette.series[1], "solid"),
             ("candidate", shown.candidate, palette.accent, "solid"))  # fmt: skip
    for name, shares, colour, dash in looks:
        known = np.cumsum(shares).tolist() if len(shares) else []
        columns = source(name, x=edges[: len(known)], y=known, arm=[name] * len(known))
        line = plot.step(
            "x", "y", source=columns, mode="after", line_color=colour, line_dash=dash, line_width=2
        )
        if known:
            items[name] = [line]
    legend(plot, palette, items)
    tooltip(
        plot,
        [r for rs in items.values() for r in rs],
        ("", "@arm"),
        ("up to", "@x{0.000}"),
        ("share", "@y{0.0 %}"),
    )
    plot.y_range.start, plot.y_range.end = 0, 1.02
    return plot


def flow(shown: PipelineShown, palette: Palette) -> Any:
    """Draw rows applied per second, and dropped ones by reason."""
    plot = drawn(palette, times=_times(shown), unit="rows/s")
    at = milliseconds([start + shown.step_s / 2 for start in shown.starts_s])
    kinds = {
        "applied": shown.applied,
        **shown.dropped,
    }
    items = {}
    for index, (name, rows) in enumerate(kinds.items()):
        columns = source(
            f"flow-{index}", at=at, y=[count / shown.step_s for count in rows], kind=[name] * len(at)
        )
        colour = palette.series[index % len(palette.series)]
        items[name] = [plot.line("at", "y", source=columns, line_color=colour, line_width=2)]
    legend(plot, palette, items)
    tooltip(
        plot, [r for rs in items.values() for r in rs],
        ("", "@kind"), ("at", "@at{%d %b %H:%M}"), ("rows/s", "@y{0,0.0}"),
    )  # fmt: skip
    plot.y_range.start = 0
    return plot


def lag(shown: PipelineShown, palette: Palette) -> Any:
    """Draw how old rows were when they were applied."""
    plot = drawn(palette, height=160, times=_times(shown), unit="lag, p99, s")
    at = milliseconds([start + shown.step_s / 2 for start in shown.starts_s])
    columns = source("lag", at=at, y=[value if math.isfinite(value) else math.nan for value in shown.lag_s])
    line = plot.line("at", "y", source=columns, line_color=palette.accent, line_width=2)
    tooltip(plot, [line], ("at", "@at{%d %b %H:%M}"), ("p99", "@y{0.00} s"))
    plot.y_range.start = 0
    return plot


def _times(shown: PipelineShown) -> tuple[float, float]:
    starts = shown.starts_s
    return (starts[0], starts[-1] + shown.step_s) if len(starts) else (0.0, 1.0)
