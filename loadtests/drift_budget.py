"""Simulates days of traffic in which nothing drifts, and counts what detection says of it.

    python -m loadtests.drift_budget                     90 days, 100 rows a minute: half an hour
    python -m loadtests.drift_budget --days 2            a fraction
    python -m loadtests.drift_budget --season 0.7        the mean swings by so many deviations every day

The declared budget is one false page per model in 90 days. Expected are at most the numbers of
`gateway.monitor.detect.levels`, which bound both what a family finds and what is raised. With `--season` the
reference is two weeks of the same swing in order of time, so that its blocks know it.
"""

from __future__ import annotations

import argparse
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.config.monitor_detect import DetectSettings
from gateway.config.monitor_ingest import PanesSettings
from gateway.monitor.detect.part import Detection
from gateway.monitor.panes.part import Panes
from gateway.monitor.profile.build import BuildOptions, from_batches
from gateway.monitor.profile.catalog import ProfileCatalog
from gateway.monitor.profile.tables import rows_of
from gateway.monitor.values import Applied
from gateway.predlog.rows import Column, ColumnKind, Role, RowBatch

if TYPE_CHECKING:
    from gateway.monitor.detect.budget import Spent

MODEL: Final = "quiet"
START_S: Final = 1_760_054_400
SEED: Final = 20_261_122
DAY_MINUTES: Final = 1440


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is served.

    Attributes:
        rows: a minute.
        numbers: numeric inputs, of which every other has a heavy tail.
        season: swing of the first input's mean over a day, in deviations.
    """

    rows: int = 100
    numbers: int = 8
    season: float = 0.0

    def minute(self, rng: np.random.Generator, minute: int, rows: int = 0) -> RowBatch:
        """Return the rows of a minute, done within it."""
        rows = rows or self.rows
        columns = []
        for i in range(self.numbers):
            values = rng.normal(size=rows) if i % 2 else rng.lognormal(size=rows)
            if i == 1:
                values += self.season * np.sin(2 * np.pi * minute / DAY_MINUTES)
            column = values.astype(np.float32).reshape(-1, 1)
            columns.append(Column(f"x{i}", Role.INPUT, ColumnKind.NUMERIC, column))
        codes = rng.choice(4, size=(rows, 1), p=(0.6, 0.3, 0.08, 0.02)).astype(np.int32)
        columns.append(Column("c", Role.INPUT, ColumnKind.CATEGORY, codes, (b"a", b"b", b"c", b"d")))
        score = rng.beta(2, 5, (rows, 1)).astype(np.float32)
        columns.append(Column("score", Role.OUTPUT, ColumnKind.NUMERIC, score))
        batch = rows_of(columns, rows, MODEL)
        batch.done_ns[:] = (START_S + 60 * minute + 1) * 1_000_000_000
        batch.key_hashes[:] = rng.integers(1, 1 << 62, rows).astype(np.uint64)
        return batch


@dataclass(frozen=True, slots=True)
class Result:
    """What was said of quiet traffic.

    Attributes:
        spent: expected and observed, by window.
        pages: alarms of severity `page`.
        tickets: others.
        seconds: that it took.
    """

    spent: tuple[Spent, ...]
    pages: int
    tickets: int
    seconds: float


def simulate(
    traffic: Traffic, minutes: int, seed: int = SEED, settings: DetectSettings | None = None
) -> Result:
    """Serve so many minutes and count."""
    begin = time.perf_counter()
    settings = settings or DetectSettings()
    rng = np.random.default_rng(seed)
    reference = [traffic.minute(rng, m, 60) for m in range(0, 14 * DAY_MINUTES, 20)]
    catalog = ProfileCatalog()
    catalog.put(from_batches(reference, BuildOptions(model=MODEL)))
    panes = Panes(catalog, PanesSettings())
    detection = Detection(panes, catalog, settings)
    database = sqlite3.connect(":memory:")
    for part in (panes, detection):
        part.create(database)
        part.restore(database)
    for minute in range(minutes):
        now_s = START_S + 60.0 * (minute + 1) + settings.settle + 1
        panes.apply(Applied("gateway", traffic.minute(rng, minute), now_s - settings.settle))
        detection.evaluate(now_s)
        if minute % 240 == 239:
            for part in (panes, detection):
                part.flush(database)
                part.expire(database, now_s)
    alarms = detection.alarms(limit=100_000)
    pages = sum(alarm.severity == "page" for alarm in alarms)
    return Result(detection.spent(MODEL), pages, len(alarms) - pages, time.perf_counter() - begin)


def table(result: Result, days: float) -> str:
    """Return a Markdown table."""
    lines = [
        "| window | q | families | with a finding | at most expected | alarms | at most expected |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.window} | {s.q:.5f} | {s.families} | {s.rejected} | {s.expected_rejected:.2f} | {s.raised} | "
        f"{s.expected_raised:.4f} |"
        for s in result.spent
    ]
    lines.append("")
    lines.append(f"{days:g} days: {result.pages} pages, {result.tickets} tickets; {result.seconds:.0f} s")
    return "\n".join(lines)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=float, default=90.0)
    parser.add_argument("--rows", type=int, default=100, help="per minute")
    parser.add_argument("--numbers", type=int, default=8)
    parser.add_argument("--season", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    traffic = Traffic(arguments.rows, arguments.numbers, arguments.season)
    print(table(simulate(traffic, int(arguments.days * DAY_MINUTES), arguments.seed), arguments.days))


if __name__ == "__main__":
    main()
