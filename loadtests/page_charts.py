"""Draws a report's figures as the charts of docs/performance.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from loadtests.page_entries import OURS, SMALL_IN_FLIGHT
from loadtests.page_figures import Entry, entries, request_bytes, yardsticks
from loadtests.svg_chart import Bar, Bars, Chart, Point, Series, render, render_bars

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Record = Mapping[str, Any]

_TICKS: Final = (1, 2, 4, 8, 16, 32, 64)


def page_charts(parts: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    """Return name -> SVG document of every chart that there are figures for."""
    drawers: Mapping[str, Callable[[Sequence[Record]], dict[str, str]]] = {
        "small": _small,
        "dense": _dense,
        "latency": _latency,
        "large": _large,
    }
    found: dict[str, str] = {}
    for part, records in parts.items():
        found |= drawers[part](records)
    return found


def _small(records: Sequence[Record]) -> dict[str, str]:
    alike = [entry for entry in entries(records) if entry.runs and not entry.point]
    what = f"digits, {SMALL_IN_FLIGHT} in flight"
    drawn = {
        "digits-peers-cpu": _bars(
            alike, "cpu_us_per_request", f"Server CPU per request: {what}", "microseconds"
        ),
        "digits-peers-rate": _bars(alike, "requests_per_s", f"One core's throughput: {what}", "requests/s"),
    }
    return {name: document for name, document in drawn.items() if document}


def _bars(found: Sequence[Entry], figure: str, title: str, x_label: str) -> str:
    bars = [
        Bar(entry.label, *entry.figure(figure), muted=not entry.label.startswith(OURS))
        for entry in found
        if entry.has(figure)
    ]
    best_first = sorted(bars, key=lambda bar: bar.value, reverse=figure == "requests_per_s")
    return render_bars(Bars(title, x_label, best_first)) if bars else ""


def _dense(records: Sequence[Record]) -> dict[str, str]:
    found = [entry for entry in entries(records) if entry.has("of_direct")]
    lines = _lines(found, _in_flight, "of_direct", times=100)
    if not lines:
        return {}
    y_label = "rows/s, % of ONNX Runtime called directly with 32 rows"
    chart = Chart("Dense net: throughput", "requests in flight", y_label, _TICKS, lines)
    return {"dense-throughput": render(chart)}


def _latency(records: Sequence[Record]) -> dict[str, str]:
    found = [entry for entry in entries(records) if entry.runs and entry.point]
    x = _offered_share(entries(records))
    tails = [Series(f"{line.label}, p99", line.points) for line in _lines(found, x, "p99_ms")]
    medians = [
        Series(f"{line.label}, p50", line.points, dashed=True, colour=number)
        for number, line in enumerate(_lines(found, x, "p50_ms"))
    ]
    lines = tails + medians
    if not lines:
        return {}
    most = max(point.x for line in lines for point in line.points)
    ticks = [tick for tick in (0, 25, 50, 75, 100, 125, 150, 175, 200) if tick <= most + 1]
    title, x_label = "Dense net: latency against offered load", "requests due per second, % of the peak"
    chart = Chart(title, x_label, "ms, from when a request was due", ticks, lines, y_log=True, x_log=False)
    return {"dense-latency": render(chart)}


def _large(records: Sequence[Record]) -> dict[str, str]:
    found = [entry for entry in entries(records) if entry.has("mb_per_s")]
    if not found:
        return {}
    bars = []
    rates = yardsticks(records, "copy", "bytes", "mb_per_s")
    for size in sorted({request_bytes(entry.scenario) for entry in found}):
        name = f"{size / 1e6:.1f} MB"
        bars.append(Bar(f"memcpy, {name}", *rates[size], muted=True))
        bars += [
            Bar(f"{entry.curve.removeprefix(OURS + ', ')}, {name}", *entry.figure("mb_per_s"))
            for entry in found
            if request_bytes(entry.scenario) == size
        ]
    return {"large-tensors": render_bars(Bars("Large tensors through one core", "MB/s", bars))}


def _lines(
    found: Sequence[Entry], x: Callable[[Entry], float], figure: str, times: float = 1
) -> list[Series]:
    curves: dict[str, list[Point]] = {}
    for entry in found:
        if entry.has(figure):
            values = (value * times for value in entry.figure(figure))
            curves.setdefault(entry.curve, []).append(Point(x(entry), *values))
    return [
        Series(label, sorted(points, key=lambda point: point.x)) for label, points in curves.items() if points
    ]


def _in_flight(entry: Entry) -> float:
    return float(entry.scenario["arrival"]["in_flight"])


def _offered_share(found: Sequence[Entry]) -> Callable[[Entry], float]:
    """Return the share of its curve's peak that an open loop offered, in percent."""
    peaks = {
        entry.curve: entry.figure("requests_per_s").most for entry in found if entry.runs and not entry.point
    }
    return lambda entry: 100 * entry.figure("offered_per_s").median / peaks[entry.curve]
