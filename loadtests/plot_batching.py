"""Draws the curves of docs/batching.md from what tuning.py has measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from loadtests.report import quiet, spread
from loadtests.svg_chart import Chart, Point, Series, render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Record = Mapping[str, Any]

_ROOT: Final = Path(__file__).resolve().parent.parent
_CELL: Final = ("settings", "concurrency", "arrivals_per_s")
_SIZES: Final = {
    "alone": "no batching",
    "rows8": "max_batch_rows 8",
    "rows32": "max_batch_rows 32",
    "rows64": "max_batch_rows 64",
}
_DELAYS: Final = {f"delay{ms}": f"max_delay_s {ms / 1e3:g}" for ms in (0, 2, 5, 20)}


def main() -> None:
    """Write every chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="*", type=Path, help="build/loadtests/tuning-*.jsonl if not given")
    parser.add_argument("--into", type=Path, default=_ROOT / "docs" / "img")
    args = parser.parse_args()
    paths = args.records or sorted((_ROOT / "build" / "loadtests").glob("tuning-*.jsonl"))
    records = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    kept = quiet([record for record in records if record["kind"] != "machine"], _CELL)
    closed = [record for record in kept if record["kind"] == "closed"]
    paced = [record for record in kept if record["kind"] == "paced"]
    args.into.mkdir(parents=True, exist_ok=True)
    for name, chart in _charts(closed, paced).items():
        (args.into / f"{name}.svg").write_text(render(chart))
        print(args.into / f"{name}.svg")


def _charts(closed: Sequence[Record], paced: Sequence[Record]) -> dict[str, Chart]:
    in_flight = sorted({record["concurrency"] for record in closed})
    rates = (50, 100, 200, 400)

    def by_size(key: str) -> list[Series]:
        return _series(closed, _SIZES, "concurrency", lambda record: record[key])

    def by_delay(key: str) -> list[Series]:
        return _series(paced, _DELAYS, "arrivals_per_s", lambda record: record[key])

    flight, arriving = "requests in flight", "requests arriving per second"
    return {
        "batching-throughput": Chart(
            "Closed loop, 1 row per request: throughput",
            flight,
            "rows/s",
            in_flight,
            by_size("rows_per_s"),
        ),
        "batching-p99": Chart(
            "Closed loop, 1 row per request: latency",
            flight,
            "p99, ms",
            in_flight,
            by_size("p99_ms"),
            y_log=True,
        ),
        "batching-sizes": _sizes_chart([r for r in closed if r["settings"] == "rows64"]),
        "batching-delay-p50": Chart(
            "Random arrivals: median latency", arriving, "p50, ms", rates, by_delay("p50_ms"), y_log=True
        ),
        "batching-delay-p99": Chart(
            "Random arrivals: tail latency", arriving, "p99, ms", rates, by_delay("p99_ms"), y_log=True
        ),
        "batching-delay-cpu": Chart(
            "Random arrivals: cost", arriving, "server CPU, us per request", rates, by_delay("cpu_us")
        ),
    }


def _series(
    records: Sequence[Record], labels: Mapping[str, str], cell: str, y: Callable[[Record], float]
) -> list[Series]:
    return [
        Series(label, _points([record for record in records if record["settings"] == settings], cell, y))
        for settings, label in labels.items()
    ]


def _points(records: Sequence[Record], cell: str, y: Callable[[Record], float]) -> list[Point]:
    """Return a point for each value of `cell`; random arrivals are drawn at the rate that was reached."""
    repeats: dict[int, list[Record]] = {}
    for record in records:
        repeats.setdefault(record[cell], []).append(record)
    x = "requests_per_s" if cell == "arrivals_per_s" else cell
    return [
        Point(spread(r[x] for r in repeats[at]).median, *spread(map(y, repeats[at])))
        for at in sorted(repeats)
    ]


def _sizes_chart(records: Sequence[Record]) -> Chart:
    """Return the share of rows that ran in batches of each size, for some numbers in flight."""
    bounds = [1, 2, 4, 8, 16, 32, 64]
    series = [
        Series(
            f"{flight} in flight",
            [
                Point(bound, *spread(_share(r, bound) for r in records if r["concurrency"] == flight))
                for bound in bounds
            ],
        )
        for flight in (1, 8, 32, 64)
    ]
    return Chart(
        "Batch sizes, max_batch_rows 64", "rows in the batch, up to", "share of batches, %", bounds, series
    )


def _share(record: Record, bound: int) -> float:
    sizes: Mapping[str, float] = record["batch_sizes"]
    return 100 * sizes.get(f"{float(bound)}", 0.0) / sum(sizes.values())


if __name__ == "__main__":
    main()
