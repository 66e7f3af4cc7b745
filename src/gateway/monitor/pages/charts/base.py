"""What every chart has in common: axes, colours, tooltips, named sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.document import Document
from bokeh.models import ColumnDataSource, HoverTool, Range1d
from bokeh.models.annotations import Legend
from bokeh.plotting import figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.monitor.pages.palette import Palette

HEIGHT = 210
"""Of an ordinary chart, in CSS pixels; its width is the page's."""

_MOST_CHARACTERS = 22
_LEGEND_ROW = 20


def drawn(
    palette: Palette,
    *,
    height: int = HEIGHT,
    times: tuple[float, float] | None = None,
    unit: str = "",
    across: str = "",
    **ranges: Any,
) -> Any:
    """Return an empty figure.

    Args:
        palette: its colours.
        height: in CSS pixels.
        times: begin and end of a time axis; None: the axis across is numeric.
        unit: label of the axis upwards.
        across: label of the other one.
        ranges: further arguments of `bokeh.plotting.figure`.
    """
    if times:
        ranges["x_axis_type"] = "datetime"
        ranges["x_range"] = Range1d(start=times[0] * 1000, end=times[1] * 1000, name="times")
    # No tools that take a finger's movement: it scrolls the page.
    plot: Any = figure(
        height=height,
        sizing_mode="stretch_width",
        min_width=200,
        tools="",
        toolbar_location=None,
        background_fill_color=palette.card,
        border_fill_color=palette.card,
        outline_line_color=None,
        min_border=4,
        output_backend="canvas",
        y_axis_label=unit or None,
        x_axis_label=across or None,
        **ranges,
    )
    plot.axis.axis_line_color = palette.line
    plot.axis.major_tick_line_color = palette.line
    plot.axis.minor_tick_line_color = None
    plot.axis.major_label_text_color = palette.dim
    plot.axis.axis_label_text_color = palette.dim
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_font_size = "12px"
    plot.axis.major_label_text_font_size = "11px"
    # As many as a phone has room for.
    plot.xaxis.ticker.desired_num_ticks = 5
    plot.grid.grid_line_color = palette.line
    plot.grid.grid_line_alpha = 0.6
    plot.xgrid.grid_line_color = None
    return plot


def source(name: str, /, **columns: Sequence[Any]) -> ColumnDataSource:
    """Return a data source of this name; NaN is a gap."""
    data = {key: np.asarray(column, dtype=float) if _numbers(column) else list(column)
            for key, column in columns.items()}  # fmt: skip
    return ColumnDataSource(data=data, name=name)


def milliseconds(seconds: Sequence[float]) -> list[float]:
    """Return times as Bokeh's axes want them."""
    return [second * 1000 for second in seconds]


def tooltip(plot: Any, renderers: Sequence[Any], *lines: tuple[str, str]) -> None:
    """Show `lines` of (name, Bokeh field) when one of the renderers is pointed at or touched."""
    plot.add_tools(
        HoverTool(
            renderers=list(renderers),
            tooltips=list(lines),
            formatters={"@at": "datetime"},
            name="tooltip",
        )
    )


def legend(plot: Any, palette: Palette, items: Mapping[str, Sequence[Any]]) -> None:
    """Put a legend above the plot, in columns that a phone has room for; the plot grows by it."""
    rows = -(-len(items) // 2) if len(items) > 2 else 1
    plot.height += _LEGEND_ROW * rows
    key = Legend(
        items=[(short(name, 18), list(renderers)) for name, renderers in items.items()],
        orientation="horizontal",
        ncols=2 if len(items) > 2 else "auto",
        margin=2,
        spacing=4,
        label_height=16,
        glyph_height=16,
        location="left",
        label_text_font_size="12px",
        label_text_color=palette.text,
        background_fill_alpha=0.0,
        border_line_color=None,
    )
    plot.add_layout(key, "above")


def short(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Return a text cut in its middle to at most `most` characters: names differ at their ends."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}\u2026{text[-tail:]}"


def distinct(names: Sequence[str], most: int = 18) -> list[str]:
    """Return short names, distinct though cut: what is drawn at an axis of names."""
    labels: list[str] = []
    taken: set[str] = set()
    for name in names:
        label = short(name, most) or "(empty)"
        while label in taken:
            label += "\u200a"
        taken.add(label)
        labels.append(label)
    return labels


def item(plot: Any, target: str) -> dict[str, Any]:
    """Return the chart as the JSON that BokehJS's `embed_item` puts into the element of id `target`."""
    # bokeh.embed.json_item gives the same in twice the time: it looks for the figure's document and theme.
    document = Document()
    document.add_root(plot)
    return {"target_id": target, "root_id": plot.id, "doc": document.to_json(deferred=False)}


def _numbers(column: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in column)
