"""Draws line and bar charts as SVG: axes, ticks, values with the spread of their repeats. Nothing more.

They are narrow and their letters large, so that they can be read on a phone; in the dark they turn dark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Scale = Callable[[float], float]

# Okabe and Ito's palette, told apart by colour-blind readers too, and lighter shades of it for a dark ground.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#A8508A", "#B07C00", "#3590C8", "#6E6E6E")
_ON_DARK: Final = ("#58B4F0", "#F08A4B", "#2FC79B", "#E29BC4", "#E8B93C", "#A5D8F8", "#A6A6A6")
_MUTED: Final = len(_COLOURS) - 1
_WIDTH: Final = 480
_LEFT, _RIGHT, _EDGE, _PLOT_HEIGHT = 58, 22, 12, 250
_ROW, _BAR_HEIGHT, _BAR_LEFT, _BAR_RIGHT = 20, 28, 178, 74
_CHARACTER: Final = 7.5
"""Mean width of a letter; what stands in legends must fit without being measured."""
_FAR_APART: Final = 30.0
_SAME: Final = 1e-9
_MOST_TICKS: Final = 8
_MOST_BAR_TICKS: Final = 5


@dataclass(frozen=True, slots=True)
class Point:
    """A median, with the least and the greatest value behind it."""

    x: float
    y: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Series:
    """One line; `dashed` sets a reference apart; `colour` is the number of the line whose colour it has."""

    label: str
    points: Sequence[Point]
    dashed: bool = False
    colour: int | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart; x is drawn with these ticks, both axes linearly from 0 or logarithmically."""

    title: str
    x_label: str
    y_label: str
    x_ticks: Sequence[float]
    series: Sequence[Series] = field(default_factory=list)
    y_log: bool = False
    y_most: float = math.inf
    x_log: bool = True


@dataclass(frozen=True, slots=True)
class Bar:
    """A median under its label, with the least and the most behind it; `muted`: one to compare with."""

    label: str
    value: float
    least: float
    most: float
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars, one below the other, drawn logarithmically where values are far apart."""

    title: str
    x_label: str
    bars: Sequence[Bar]


def render(chart: Chart) -> str:
    """Return the SVG document."""
    rows = _legend_rows(chart.series)
    top = 34 + _ROW * len(rows) + 28
    bottom = top + _PLOT_HEIGHT
    x, y, y_ticks = _scales(chart, top)
    parts = [_text(_EDGE, 24, chart.title, 'class="title"')]
    for number, row in enumerate(rows):
        parts += _legend(row, 46 + _ROW * number)
    parts.append(_text(_EDGE, top - 12, chart.y_label))
    for tick in y_ticks:
        parts.append(f'<path d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}" class="grid"/>')
        parts.append(_text(_LEFT - 8, y(tick) + 4, _number(tick), 'text-anchor="end"'))
    for tick in _apart(chart.x_ticks, x):
        parts.append(f'<path d="M{x(tick):.1f} {bottom}v5" class="axis"/>')
        parts.append(_text(x(tick), bottom + 20, _number(tick), 'text-anchor="middle"'))
    parts.append(f'<path d="M{_LEFT} {bottom}H{_WIDTH - _RIGHT}" class="axis"/>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(_text(middle, bottom + 42, chart.x_label, 'text-anchor="middle"'))
    for index, series in enumerate(chart.series):
        parts += _series(series, _colour(series, index), x, y)
    return _document(bottom + 54, parts)


def render_bars(chart: Bars) -> str:
    """Return the SVG document."""
    top = 42
    bottom = top + _BAR_HEIGHT * len(chart.bars)
    most, least = max(bar.most for bar in chart.bars), min(bar.least for bar in chart.bars)
    log = least > 0 and most / least > _FAR_APART
    start = 10 ** math.floor(math.log10(least)) if log else 0.0
    across = _WIDTH - _BAR_LEFT - _BAR_RIGHT

    def x(value: float) -> float:
        share = math.log(value / start) / math.log(most / start) if log else value / (most or 1.0)
        return _BAR_LEFT + across * share

    parts = [_text(_EDGE, 24, chart.title, 'class="title"')]
    for tick in _bar_ticks(start, most, log=log):
        parts.append(f'<path d="M{x(tick):.1f} {top}V{bottom + 5}" class="grid"/>')
        parts.append(_text(x(tick), bottom + 20, _number(tick), 'text-anchor="middle"'))
    for index, bar in enumerate(chart.bars):
        y = top + _BAR_HEIGHT * index
        middle = y + _BAR_HEIGHT / 2
        parts.append(_text(_BAR_LEFT - 8, middle + 4, bar.label, 'text-anchor="end"'))
        size = f'width="{max(x(bar.value) - _BAR_LEFT, 0):.1f}" height="{_BAR_HEIGHT - 8}"'
        colour = _MUTED if bar.muted else 0
        parts.append(f'<rect x="{_BAR_LEFT}" y="{y + 4}" {size} class="f{colour}"/>')
        parts.append(f'<path d="{_whisker(x(bar.least), x(bar.most), middle)}" class="axis"/>')
        parts.append(_text(x(bar.most) + 6, middle + 4, _number(bar.value)))
    scale = f"{chart.x_label}{', logarithmic' if log else ''}"
    parts.append(_text(_BAR_LEFT + across / 2, bottom + 42, scale, 'text-anchor="middle"'))
    return _document(bottom + 54, parts)


def _document(height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
        'font-family="system-ui, sans-serif" font-size="13">'
    )
    ground = f'<rect width="{_WIDTH}" height="{height:.0f}" class="ground"/>'
    return "\n".join([head, f"<style>{_style()}</style>", ground, *parts, "</svg>\n"])


def _style() -> str:
    def rules(ground: str, ink: str, grid: str, colours: Sequence[str]) -> str:
        found = [f".ground{{fill:{ground}}}text{{fill:{ink}}}.grid{{stroke:{grid}}}.axis{{stroke:{ink}}}"]
        found += [f".f{n}{{fill:{c}}}.s{n}{{stroke:{c}}}" for n, c in enumerate(colours)]
        return "".join(found)

    shape = ".title{font-size:15px;font-weight:bold}path,polyline{fill:none}"
    dark = rules("#0d1117", "#e6edf3", "#30363d", _ON_DARK)
    return (
        f"{shape}{rules('#fff', '#1f2328', '#d8dee4', _COLOURS)}@media(prefers-color-scheme:dark){{{dark}}}"
    )


def _scales(chart: Chart, top: float) -> tuple[Scale, Scale, list[float]]:
    """Return where x and y are drawn, and the ticks of y."""
    points = [point for series in chart.series for point in series.points]
    most = min(max(point.most for point in points), chart.y_most)
    if chart.y_log:
        ticks = _log_ticks(min(point.least for point in points), most)
        low, high = math.log(ticks[0]), math.log(ticks[-1])
        ticks = ticks if len(ticks) <= _MOST_TICKS else [t for t in ticks if math.log10(t).is_integer()]
        share: Scale = lambda v: (math.log(v) - low) / (high - low)  # noqa: E731
    else:
        step = _step(most)
        ticks = [step * n for n in range(math.ceil(most / step - _SAME) + 1)]
        share = lambda v: v / ticks[-1]  # noqa: E731
    reached = [*chart.x_ticks, *(point.x for point in points)]
    along = _along(min(reached), max(reached), log=chart.x_log)
    across = _WIDTH - _LEFT - _RIGHT - 24
    return (
        lambda v: _LEFT + 12 + across * along(v),
        lambda v: top + _PLOT_HEIGHT * (1 - min(share(v), 1.0)),
        ticks,
    )


def _log_ticks(least: float, most: float) -> list[float]:
    """Return 1, 2, 5, 10, ... from the last one not above `least` to the first not below `most`."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 2)
    ticks = [m * 10.0**e for e in powers for m in (1, 2, 5)]
    first = max(t for t in ticks if t <= least * (1 + _SAME))
    last = min(t for t in ticks if t >= most * (1 - _SAME) and t > first)
    return [t for t in ticks if first <= t <= last]


def _along(least: float, most: float, *, log: bool) -> Scale:
    """Return the share of the x axis that lies left of a value."""
    if not log:
        return lambda v: v / most
    first, last = math.log(least), math.log(most)
    return lambda v: (math.log(v) - first) / (last - first)


def _step(most: float) -> float:
    """Return a round distance between ticks that gives four to ten of them."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * m for m in (0.1, 0.2, 0.5, 1.0, 2.0) if most / (power * m) <= 7)


def _bar_ticks(start: float, most: float, *, log: bool) -> list[float]:
    if log:
        return [10.0**e for e in range(round(math.log10(start)), math.floor(math.log10(most)) + 1)]
    step = _step(most)
    step *= 1 if most / step < _MOST_BAR_TICKS else 2
    return [step * n for n in range(math.floor(most / step + _SAME) + 1)]


def _apart(ticks: Sequence[float], x: Scale) -> list[float]:
    """Leave out ticks whose numbers would touch the one before."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or x(tick) - x(kept[-1]) > _CHARACTER * (len(_number(tick)) + 1):
            kept.append(tick)
    return kept


def _legend_rows(series: Sequence[Series]) -> list[list[tuple[int, Series, float]]]:
    """Return what stands in each line of the legend: number, series, x; as many as fit beside each other."""
    rows: list[list[tuple[int, Series, float]]] = []
    at = math.inf
    for index, one in enumerate(series):
        width = 26 + _CHARACTER * len(one.label) + 12
        if at + width > _WIDTH:
            rows.append([])
            at = _EDGE
        rows[-1].append((_colour(one, index), one, at))
        at += width
    return rows


def _colour(series: Series, index: int) -> int:
    return (index if series.colour is None else series.colour) % _MUTED


def _legend(row: Sequence[tuple[int, Series, float]], y: float) -> Iterator[str]:
    for colour, series, x in row:
        yield f'<path d="M{x:.1f} {y - 4}h20" stroke-width="3" class="s{colour}"{_dash(series)}/>'
        yield _text(x + 26, y, series.label)


def _series(series: Series, colour: int, x: Scale, y: Scale) -> Iterator[str]:
    path = " ".join(f"{x(p.x):.1f},{y(p.y):.1f}" for p in series.points)
    yield f'<polyline points="{path}" stroke-width="2" class="s{colour}"{_dash(series)}/>'
    for p in series.points:
        low, high = y(p.least), y(p.most)
        caps = f"M{x(p.x) - 3:.1f} {low:.1f}h6M{x(p.x) - 3:.1f} {high:.1f}h6"
        yield f'<path d="M{x(p.x):.1f} {low:.1f}V{high:.1f}{caps}" class="s{colour}" opacity=".7"/>'
        yield f'<circle cx="{x(p.x):.1f}" cy="{y(p.y):.1f}" r="3" class="f{colour}"/>'


def _dash(series: Series) -> str:
    return ' stroke-dasharray="6 4"' if series.dashed else ""


def _whisker(least: float, most: float, y: float) -> str:
    return f"M{least:.1f} {y:.1f}H{most:.1f}M{least:.1f} {y - 3:.1f}v6M{most:.1f} {y - 3:.1f}v6"


def _number(value: float) -> str:
    """Return a number of at most three or so digits, thousands apart, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'
