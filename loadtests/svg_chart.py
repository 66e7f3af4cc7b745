"""Draws line and bar charts as SVG: axes, ticks, values with the spread of their repeats. Nothing more."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Okabe and Ito's palette: told apart by colour-blind readers too.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_BAR_HEIGHT, _BAR_LEFT = 30, 230
_FAR_APART: Final = 30.0
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 750, 420, 78, 190, 44, 56


@dataclass(frozen=True, slots=True)
class Point:
    """A median, with the least and the greatest value behind it."""

    x: float
    y: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Series:
    """One line; `dashed` sets a reference apart from what was varied."""

    label: str
    points: Sequence[Point]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart; x is drawn logarithmically with these ticks, y linearly from 0 or logarithmically."""

    title: str
    x_label: str
    y_label: str
    x_ticks: Sequence[float]
    series: Sequence[Series] = field(default_factory=list)
    y_log: bool = False
    y_most: float = math.inf


def render(chart: Chart) -> str:
    """Return the SVG document."""
    x, y, y_ticks = _scales(chart)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
    )
    parts = [head + ' font-size="13">', f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>']
    parts.append(_text(_LEFT, 24, chart.title, 'font-weight="bold" font-size="15"'))
    for tick in y_ticks:
        parts.append(f'<path d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 8, y(tick) + 4, f"{tick:,g}", 'text-anchor="end"'))
    below = _HEIGHT - _BOTTOM + 20
    parts += [_text(x(tick), below, f"{tick:g}", 'text-anchor="middle"') for tick in chart.x_ticks]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(_text(middle, _HEIGHT - 14, chart.x_label, 'text-anchor="middle"'))
    turn = f'text-anchor="middle" transform="rotate(-90 18 {_HEIGHT / 2})"'
    parts.append(_text(18, _HEIGHT / 2, chart.y_label, turn))
    for index, series in enumerate(chart.series):
        parts += _series(series, index, x, y)
    return "\n".join([*parts, "</svg>\n"])


@dataclass(frozen=True, slots=True)
class Bar:
    """A median under its label, with the least and the greatest value behind it."""

    label: str
    value: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars, one below the other, drawn logarithmically where values are far apart."""

    title: str
    x_label: str
    bars: Sequence[Bar]


def render_bars(chart: Bars) -> str:
    """Return the SVG document."""
    height = _TOP + _BAR_HEIGHT * len(chart.bars) + _BOTTOM
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
    parts = [head + ' font-size="13">', f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>']
    parts.append(_text(16, 24, chart.title, 'font-weight="bold" font-size="15"'))
    most, least = max(bar.most for bar in chart.bars), min(bar.least for bar in chart.bars)
    log = least > 0 and most / least > _FAR_APART
    bottom = 10 ** math.floor(math.log10(least)) if log else 0.0
    across = _WIDTH - _BAR_LEFT - 150

    def x(value: float) -> float:
        share = math.log(value / bottom) / math.log(most / bottom) if log else value / most
        return _BAR_LEFT + across * share

    for index, bar in enumerate(chart.bars):
        y = _TOP + _BAR_HEIGHT * index
        colour, middle = _COLOURS[index % len(_COLOURS)], y + _BAR_HEIGHT / 2
        parts.append(_text(_BAR_LEFT - 8, middle + 4, bar.label, 'text-anchor="end"'))
        size = f'width="{x(bar.value) - _BAR_LEFT:.1f}" height="{_BAR_HEIGHT - 8}"'
        parts.append(f'<rect x="{_BAR_LEFT}" y="{y + 4}" {size} fill="{colour}"/>')
        parts.append(f'<path d="M{x(bar.least):.1f} {middle:.1f}H{x(bar.most):.1f}" stroke="#000"/>')
        parts.append(_text(x(bar.most) + 6, middle + 4, f"{bar.value:,.4g}"))
    scale = f"{chart.x_label}{', logarithmic' if log else ''}"
    parts.append(_text(_BAR_LEFT + across / 2, height - 18, scale, 'text-anchor="middle"'))
    return "\n".join([*parts, "</svg>\n"])


def _scales(chart: Chart) -> tuple[Callable[[float], float], Callable[[float], float], list[float]]:
    """Return where x and y are drawn, and the ticks of y."""
    points = [point for series in chart.series for point in series.points]
    most = min(max(point.most for point in points), chart.y_most)
    if chart.y_log:
        bottom = math.floor(math.log10(min(point.least for point in points)))
        top = math.ceil(math.log10(most))
        ticks = [m * 10.0**e for e in range(bottom, top + 1) for m in (1, 2, 5) if m == 1 or e < top]
        share: Callable[[float], float] = lambda v: (math.log10(v) - bottom) / (top - bottom)  # noqa: E731
    else:
        step = _step(most)
        ticks = [step * n for n in range(math.ceil(most / step) + 1)]
        share = lambda v: v / ticks[-1]  # noqa: E731
    reached = [*chart.x_ticks, *(point.x for point in points)]
    first, last = math.log(min(reached)), math.log(max(reached))
    across, up = _WIDTH - _LEFT - _RIGHT - 24, _HEIGHT - _TOP - _BOTTOM
    return (
        lambda v: _LEFT + 12 + across * (math.log(v) - first) / (last - first),
        lambda v: _TOP + up * (1 - min(share(v), 1.0)),
        ticks,
    )


def _step(most: float) -> float:
    """Return a round distance between ticks that gives four to ten of them."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * m for m in (0.1, 0.2, 0.5, 1.0) if most / (power * m) <= 8)


def _series(
    series: Series, index: int, x: Callable[[float], float], y: Callable[[float], float]
) -> Iterator[str]:
    colour = _COLOURS[index % len(_COLOURS)]
    path = " ".join(f"{x(p.x):.1f},{y(p.y):.1f}" for p in series.points)
    dash = ' stroke-dasharray="6 4"' if series.dashed else ""
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
    for p in series.points:
        yield f'<path d="M{x(p.x):.1f} {y(p.least):.1f}V{y(p.most):.1f}" stroke="{colour}" opacity=".5"/>'
        yield f'<circle cx="{x(p.x):.1f}" cy="{y(p.y):.1f}" r="3" fill="{colour}"/>'
    at_x, at_y = _WIDTH - _RIGHT + 14, _TOP + 14 + 22 * index
    yield f'<path d="M{at_x} {at_y - 4}h18" stroke="{colour}" stroke-width="2"{dash}/>'
    yield _text(at_x + 24, at_y, series.label)


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'
