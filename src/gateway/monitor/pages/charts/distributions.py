"""One signal now against its reference: histograms, ECDFs, fans, categories, quality, embeddings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import FactorRange

from gateway.monitor.pages.charts.base import distinct, drawn, legend, milliseconds, short, source, tooltip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.pages.palette import Palette
    from gateway.monitor.pages.shown import CategoryShown, Distribution, NumericShown

_BARS = 32
_MOST_CATEGORIES = 12


def histogram(shown: NumericShown, palette: Palette) -> Any:
    """Draw densities: the reference as an outline, the present filled."""
    edges, reference, current = _bars(shown)
    plot = drawn(palette, unit="density")
    columns = source(
        "bins", left=edges[:-1], right=edges[1:],
        now=_density(current, edges), was=_density(reference, edges), share=current, before=reference,
    )  # fmt: skip
    now = plot.quad(
        "left", "right", "now", 0, source=columns, fill_color=palette.accent, fill_alpha=0.45, line_color=None
    )
    steps = source(
        "outline",
        x=np.repeat(edges, 2)[1:-1].tolist(),
        y=np.repeat(_density(reference, edges), 2).tolist(),
    )
    was = plot.line("x", "y", source=steps, line_color=palette.reference, line_width=2)
    tooltip(
        plot, [now], ("from", "@left{0.000}"), ("to", "@right{0.000}"), ("now", "@share{0.0 %}"),
        ("reference", "@before{0.0 %}"),
    )  # fmt: skip
    legend(plot, palette, {"now": [now], "reference": [was]})
    plot.y_range.start = 0
    return plot


def difference(shown: NumericShown, palette: Palette) -> Any:
    """Draw the difference of both ECDFs, and the band within which it is noise and sketch error."""
    gaps = (np.cumsum(shown.current) - np.cumsum(shown.reference))[:-1]
    edges = np.asarray(shown.edges, dtype=float)
    plot = drawn(palette, height=180, unit="ECDF now - reference")
    error = shown.error if math.isfinite(shown.error) else 0.0
    ends = [edges[0], edges[-1]] if len(edges) else []
    band = source("band", x=ends, low=[-error] * len(ends), high=[error] * len(ends))
    noise = plot.varea("x", "low", "high", source=band, fill_color=palette.reference, fill_alpha=0.3)
    columns = source("difference", x=edges.tolist(), y=gaps.tolist())
    line = plot.step("x", "y", source=columns, mode="after", line_color=palette.accent, line_width=2)
    legend(plot, palette, {"difference": [line], "noise": [noise]})
    tooltip(plot, [line], ("up to", "@x{0.000}"), ("difference", "@y{0.000}"))
    return plot


def fan(shown: Distribution, palette: Palette) -> Any:
    """Draw quantiles over time as nested bands, with the reference's as dashed lines."""
    numeric = shown.numeric
    assert numeric is not None
    ends = (shown.period.start_s, shown.period.end_s)
    plot = drawn(palette, times=ends, unit="value")
    middle = len(numeric.percents) // 2
    quantiles = np.asarray(numeric.quantiles, dtype=float).reshape(-1, len(numeric.percents))
    at = milliseconds([start + shown.step_s / 2 for start in shown.starts_s])
    names = [f"q{index}" for index in range(len(numeric.percents))]
    columns = source("fan", at=at, **{name: quantiles[:, i].tolist() for i, name in enumerate(names)})
    items = {}
    for index in range(middle):
        low, high = names[index], names[-1 - index]
        area = plot.varea(
            "at", low, high, source=columns, fill_color=palette.accent, fill_alpha=0.18 + 0.12 * index
        )
        items[f"{numeric.percents[index]:g}-{numeric.percents[-1 - index]:g} %"] = [area]
    line = plot.line("at", names[middle], source=columns, line_color=palette.accent, line_width=2)
    items["median"] = [line]
    lines = source(
        "reference", at=[milliseconds(ends)] * len(names), y=[[q, q] for q in numeric.reference_quantiles]
    )
    was = plot.multi_line(
        "at", "y", source=lines, line_color=palette.reference, line_dash="dashed", line_width=1.25
    )
    items["reference"] = [was]
    legend(plot, palette, items)
    tooltip(
        plot, [line], ("at", "@at{%d %b %H:%M}"),
        *((f"{numeric.percents[i]:g} %", f"@{name}{{0.000}}") for i, name in enumerate(names)),
    )  # fmt: skip
    return plot


def category_bars(shown: CategoryShown, palette: Palette) -> Any:
    """Draw shares by category, now beside the reference; what is new to the reference stands out."""
    count = min(len(shown.values), _MOST_CATEGORIES)
    rest_now = sum(shown.current[count:]) + max(0.0, shown.current_other - shown.novel)
    rest_was = sum(shown.reference[count:]) + shown.reference_other
    names = [*distinct(shown.values[:count]), "other", "new values"]
    now = [*shown.current[:count], rest_now, shown.novel]
    was = [*shown.reference[:count], rest_was, 0.0]
    plot = drawn(
        palette,
        height=60 + 30 * len(names),
        across="share",
        y_range=FactorRange(factors=names[::-1], name="names"),
    )
    columns = source(
        "categories", name=names, now=now, was=was,
        value=[*shown.values[:count], "other", "new values"],
        colour=[palette.accent] * (len(names) - 1) + [palette.bad],
        above=[(name, 0.18) for name in names], below=[(name, -0.2) for name in names],
    )  # fmt: skip
    bars = plot.hbar("above", right="now", height=0.34, source=columns, fill_color="colour", line_color=None)
    past = plot.hbar(
        "below", right="was", height=0.34, source=columns, fill_color=palette.reference, line_color=None
    )
    plot.x_range.start = 0
    plot.ygrid.grid_line_color = None
    plot.xgrid.grid_line_color = palette.line
    tooltip(plot, [bars, past], ("value", "@value"), ("now", "@now{0.00 %}"), ("reference", "@was{0.00 %}"))
    legend(plot, palette, {"now": [bars], "reference": [past]})
    return plot


def category_stack(shown: Distribution, palette: Palette) -> Any:
    """Draw shares of the most frequent categories over time, one above the other."""
    category = shown.category
    assert category is not None
    count = min(len(category.values), len(palette.series))
    shares = np.asarray(category.shares, dtype=float).reshape(len(shown.starts_s), -1)[:, :count]
    plot = drawn(palette, times=(shown.period.start_s, shown.period.end_s), unit="share")
    names = [f"s{index}" for index in range(count)]
    columns = source(
        "shares",
        at=milliseconds([start + shown.step_s / 2 for start in shown.starts_s]),
        width=[shown.step_s * 1000] * len(shown.starts_s),
        **{name: shares[:, i].tolist() for i, name in enumerate(names)},
    )
    if names:
        bars = plot.vbar_stack(
            names, x="at", width="width", source=columns, color=list(palette.series[:count]), line_color=None
        )
        items = dict(zip(distinct(category.values[:count]), ([bar] for bar in bars), strict=True))
        legend(plot, palette, items)
        tooltip(
            plot, bars, ("at", "@at{%d %b %H:%M}"),
            *((short(category.values[i]), f"@{name}{{0.0 %}}") for i, name in enumerate(names)),
        )  # fmt: skip
    plot.y_range.start, plot.y_range.end = 0, 1
    return plot


def quality(shown: Distribution, palette: Palette) -> Any:
    """Draw over time what share is missing, of the wrong type, out of range, or new."""
    plot = drawn(palette, times=(shown.period.start_s, shown.period.end_s), unit="share of rows")
    at = milliseconds([start + shown.step_s / 2 for start in shown.starts_s])
    kinds: dict[str, Sequence[float]] = {
        "missing": shown.missing,
        "invalid": shown.invalid,
        "below": shown.below,
        "above": shown.above,
        "new values": shown.novel,
    }
    items = {}
    for index, (name, shares) in enumerate((name, shares) for name, shares in kinds.items() if len(shares)):
        columns = source(f"quality-{index}", at=at, y=shares, kind=[name] * len(at))
        line = plot.line(
            "at", "y", source=columns, line_color=palette.series[index], line_width=2,
            line_dash=("solid", "dashed", "dotted", "dotdash", "dashdot")[index % 5],
        )  # fmt: skip
        items[name] = [line]
    ends = milliseconds([shown.period.start_s, shown.period.end_s])
    base = source("reference", at=ends, y=[shown.reference_missing] * 2)
    items["missing before"] = [
        plot.line("at", "y", source=base, line_color=palette.reference, line_dash="dashed")
    ]
    legend(plot, palette, items)
    tooltip(
        plot, [r for rs in items.values() for r in rs],
        ("", "@kind"), ("at", "@at{%d %b %H:%M}"), ("share", "@y{0.00 %}"),
    )  # fmt: skip
    plot.y_range.start = 0
    return plot


def embedding(shown: Distribution, palette: Palette) -> Any:
    """Draw the reference's points on their principal axes and how the centroid wandered."""
    points = shown.embedding
    assert points is not None
    plot = drawn(palette, height=300, unit="second axis", across="first axis")
    was = source("points", x=[x for x, _ in points.reference], y=[y for _, y in points.reference])
    dots = plot.scatter(
        "x", "y", source=was, size=4, fill_color=palette.reference, fill_alpha=0.5, line_color=None
    )
    now = source("path", x=[x for x, _ in points.current], y=[y for _, y in points.current])
    path = plot.line("x", "y", source=now, line_color=palette.accent, line_width=2)
    ends = plot.scatter("x", "y", source=now, size=6, fill_color=palette.accent, line_color=None)
    legend(plot, palette, {"reference": [dots], "centroid now": [path, ends]})
    return plot


def _bars(shown: NumericShown) -> tuple[list[float], list[float], list[float]]:
    """Return edges and shares of at most _BARS bins; open ends reach no further than the picture is clear."""
    inner = np.asarray(shown.edges, dtype=float)
    if not len(inner):
        return [shown.least, max(shown.most, shown.least + 1)], list(shown.reference), list(shown.current)
    margin = 0.15 * (inner[-1] - inner[0]) or 1.0
    low = max(shown.least, inner[0] - margin) if math.isfinite(shown.least) else inner[0] - margin
    high = min(shown.most, inner[-1] + margin) if math.isfinite(shown.most) else inner[-1] + margin
    gap = 1e-9 * max(1.0, abs(float(inner[-1])))
    edges = np.concatenate([[min(low, inner[0] - gap)], inner, [max(high, inner[-1] + gap)]])
    keep = np.unique(np.linspace(0, len(edges) - 1, min(len(edges), _BARS + 1)).astype(int))
    starts = keep[:-1]
    reference = np.add.reduceat(np.asarray(shown.reference, dtype=float), starts)
    current = np.add.reduceat(np.asarray(shown.current, dtype=float), starts)
    return edges[keep].tolist(), reference.tolist(), current.tolist()


def _density(shares: Sequence[float], edges: Sequence[float]) -> list[float]:
    densities = np.asarray(shares, dtype=float) / np.maximum(np.diff(edges), 1e-300)
    return [float(density) for density in densities]
