"""Draws what sessions have recorded: throughput by concurrency, latency by offered load, CPU by target."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from loadtests.report import spread
from loadtests.session import kept
from loadtests.svg_chart import Bar, Bars, Chart, Point, Series, render, render_bars

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Record = Mapping[str, Any]


def draw(paths: Sequence[Path], into: Path, prefix: str) -> list[Path]:
    """Draw every chart that the records have something for; return the files written.

    Args:
        paths: JSON lines of one or more sessions.
        into: folder of the charts.
        prefix: of their names.
    """
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    measured = [line for line in lines if line["kind"] == "load" and "unavailable" not in line]
    into.mkdir(parents=True, exist_ok=True)
    written = []
    for name, document in charts(list(kept(measured).values())).items():
        path = into / f"{prefix}-{name}.svg"
        path.write_text(document)
        written.append(path)
    return written


def charts(entries: Sequence[Sequence[Record]]) -> dict[str, str]:
    """Return name -> SVG document; a curve needs two points."""
    closed = [runs for runs in entries if runs[0]["scenario"]["arrival"]["kind"] == "closed"]
    opened = [runs for runs in entries if runs[0]["scenario"]["arrival"]["kind"] != "closed"]
    found = {
        "throughput": _curves(
            closed, _in_flight, "requests_per_s", ("Closed loop", "requests in flight", "requests/s")
        ),
        "latency": _curves(
            opened, _offered, "p99_ms", ("Open loop", "requests due per second", "p99, ms"), log=True
        ),
        "cpu": _cpu(entries),
    }
    return {name: document for name, document in found.items() if document}


def _curves(
    entries: Sequence[Sequence[Record]],
    x: Callable[[Record], float],
    figure: str,
    titles: tuple[str, str, str],
    *,
    log: bool = False,
) -> str:
    lines: dict[str, list[Point]] = {}
    for runs in entries:
        if all(figure in run["figures"] for run in runs):
            point = Point(spread(map(x, runs)).median, *spread(run["figures"][figure] for run in runs))
            lines.setdefault(_series(runs[0]), []).append(point)
    series = [Series(label, sorted(points, key=lambda p: p.x)) for label, points in lines.items()]
    series = [line for line in series if len({point.x for point in line.points}) > 1]
    if not series:
        return ""
    ticks = sorted({round(point.x) for line in series for point in line.points})
    return render(Chart(*titles, ticks, series, y_log=log))


def _cpu(entries: Sequence[Sequence[Record]]) -> str:
    bars = [
        Bar(runs[0]["entry"], *spread(run["figures"]["cpu_us_per_request"] for run in runs))
        for runs in entries
        if all("cpu_us_per_request" in run["figures"] for run in runs)
    ]
    if not bars:
        return ""
    ordered = sorted(bars, key=lambda bar: bar.value)
    return render_bars(Bars("Server CPU per request", "microseconds", ordered))


def _series(record: Record) -> str:
    """Return the label of the curve a record belongs to: everything but the place on the x axis."""
    scenario = record["scenario"]
    rows = f", {scenario['rows']} rows" if scenario["rows"] > 1 else ""
    return f"{record['target']} {scenario['protocol']}{rows}"


def _in_flight(record: Record) -> float:
    return float(record["scenario"]["arrival"]["in_flight"])


def _offered(record: Record) -> float:
    return float(record["figures"]["offered_per_s"])
