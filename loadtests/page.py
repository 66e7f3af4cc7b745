"""Measures everything that docs/performance.md shows, part by part, and draws and writes what was found."""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from loadtests import page_entries
from loadtests.direct import DirectProcess
from loadtests.large_tensors import IMAGES, image_model
from loadtests.page_charts import page_charts
from loadtests.page_figures import entries
from loadtests.page_tables import page_tables
from loadtests.requests_on_file import DENSE, DIGITS
from loadtests.session import Session, Setup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtests.page_entries import Extent, Group
    from loadtests.requests_on_file import BenchModel
    from loadtests.scenario import Scenario

    Record = Mapping[str, Any]

PARTS: Final = ("small", "dense", "latency", "large")
_DIRECT_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Report:
    """A measurement of the page.

    Attributes:
        folder: of the records, a file of JSON lines for each part.
        models: folder of the models made for it.
        cores: of the servers and of the generators.
        extent: how much.
        peers: those that the small model is compared with.
    """

    folder: Path
    models: Path
    cores: tuple[int, int]
    extent: Extent
    peers: Sequence[str]

    def measure(self, parts: Sequence[str]) -> None:
        """Measure parts of `PARTS`, one after the other, targets of each in turns."""
        os.sched_setaffinity(0, {self.cores[1]})  # checking answers must not disturb the server
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in parts:
            started_s = time.monotonic()
            getattr(self, f"_{part}")()
            print(f"{part}: {time.monotonic() - started_s:.0f} s\n", flush=True)

    def _small(self) -> None:
        groups = page_entries.small_groups(self.extent, self.peers)
        self._turns("small", groups, [(DIGITS, rows) for rows in (1, 32)])

    def _dense(self) -> None:
        self._turns("dense", page_entries.dense_groups(self.extent), [(DENSE, rows) for rows in (1, 32)])

    def _latency(self) -> None:
        peaks = self._turns("latency", page_entries.peak_groups(self.extent), [(DENSE, 32)])
        rates: dict[str, list[float]] = {}
        for record in peaks:
            rates.setdefault(record["entry"], []).append(record["figures"].get("requests_per_s", 0.0))
        best = {label: max(found) for label, found in rates.items()}
        if not all(best.values()):
            print("latency: no peak was reached, nothing can be offered")
            return
        self._turns("latency", page_entries.latency_groups(self.extent, best), [])

    def _large(self) -> None:
        groups = page_entries.large_groups(self.extent, self.models)
        self._turns("large", groups, [(image_model(name, self.models), 1) for name in IMAGES])

    def _turns(
        self, part: str, groups: Sequence[Group], yardsticks: Sequence[tuple[BenchModel, int]]
    ) -> list[Record]:
        """Measure each group's entries on a target started for it; before each group the yardsticks."""
        records: list[Record] = []
        connections: dict[str, int] = {}
        path = self.folder / f"{part}.jsonl"
        with DirectProcess(self.cores[0]) as direct:
            for number in range(self.extent.repeat):
                for group in groups if number % 2 == 0 else reversed(groups):
                    self._yardsticks(path, direct, yardsticks)
                    found = self._visit(path, _with_connections(group, connections))
                    connections |= {r["entry"]: r["connections"] for r in found if "connections" in r}
                    records += found
        return records

    def _visit(self, path: Path, group: Group) -> list[Record]:
        """Start the target that a group's entries share, measure them, stop it."""
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="run-", dir=self.folder) as folder:
            records = Session(Setup(self.cores, Path(folder), path)).measure(group)
        print(f"    {time.monotonic() - started_s:.0f} s", flush=True)
        return records

    def _yardsticks(
        self, path: Path, direct: DirectProcess, yardsticks: Sequence[tuple[BenchModel, int]]
    ) -> None:
        with path.open("a") as file:
            for model, rows in yardsticks:
                called = direct.measure(model.file, rows, _DIRECT_S)
                file.write(_line({"kind": "direct", "model": model.name, "rows": rows, **called}))
                if model.name in IMAGES:
                    size = rows * model.features * 4
                    file.write(_line({"kind": "copy", "bytes": size, **direct.copies(size, _DIRECT_S)}))


def _with_connections(group: Group, connections: Mapping[str, int]) -> dict[str, Scenario]:
    """Return a group that need not find out again over how many connections a peer answers most."""
    return {
        label: scenario.model_copy(
            update={"arrival": scenario.arrival.model_copy(update={"connections": connections[label]})}
        )
        if label in connections
        else scenario
        for label, scenario in group.items()
    }


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"


def read_parts(folder: Path) -> dict[str, list[Record]]:
    """Return the records of each part that a folder holds."""
    return {
        part: [json.loads(line) for line in (folder / f"{part}.jsonl").read_text().splitlines()]
        for part in PARTS
        if (folder / f"{part}.jsonl").exists()
    }


def write_page(folder: Path, into: Path) -> list[Path]:
    """Draw and write what a folder's records hold; return the files written.

    Args:
        folder: of a measurement; gets the tables, `tables.md`.
        into: of the charts.
    """
    parts = read_parts(folder)
    into.mkdir(parents=True, exist_ok=True)
    written = [folder / "tables.md"]
    written[0].write_text(page_tables(parts))
    for name, document in page_charts(parts).items():
        written.append(into / f"{name}.svg")
        written[-1].write_text(document)
    return written


def status(folder: Path) -> int:
    """Return 1 if any request went wrong, else 0; what could not be had is in the tables, and no error."""
    found = [entry for records in read_parts(folder).values() for entry in entries(records)]
    return int(any(entry.has("errors") and entry.figure("errors").most for entry in found))
