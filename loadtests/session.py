"""Runs scenarios in turns, A B A B, and keeps a record of every run."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING, Any, Final

from loadtests.arrivals import Closed
from loadtests.direct import DirectModel
from loadtests.engines.job import EngineFailed
from loadtests.machine import describe
from loadtests.peers.asking import NoAnswer
from loadtests.report import quiet
from loadtests.scenario import Payload, Scenario
from loadtests.targets import Served, TargetUnavailable, serving
from loadtests.trial import Result, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    Record = Mapping[str, Any]

PEAK_IN_FLIGHT: Final = 64
_PEAK_S: Final = 5.0
_UNAVAILABLE: Final = (TargetUnavailable, EngineFailed, NoAnswer)


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a session runs and what it leaves.

    Attributes:
        cores: of the servers, and of the generators.
        folder: for request files, configurations and logs.
        records: JSON lines: the machine, then a line per run.
        keep_running: targets live through the whole session; else each is started anew for each of its runs,
            so that those that work while idle do not disturb the others.
    """

    cores: tuple[int, int]
    folder: Path
    records: Path
    keep_running: bool = True


@dataclass(slots=True)
class Session:
    """Measures entries: scenarios by the label they have in tables."""

    setup: Setup
    _served: dict[str, Served] = field(default_factory=dict)
    _references: dict[str, DirectModel] = field(default_factory=dict)
    _connections: dict[str, int] = field(default_factory=dict)

    def measure(self, entries: Mapping[str, Scenario]) -> list[Record]:
        """Run every entry as often as it asks for, in turns; return a record per run, failed ones too."""
        records: list[Record] = []
        rounds = max(scenario.repeat for scenario in entries.values())
        with ExitStack() as stack, self.setup.records.open("a") as file:
            _write(file, {"kind": "machine", "time": time.time(), **describe()})
            for number in range(rounds):
                turn = [item for item in entries.items() if number < item[1].repeat]
                # Back and forth, so that what drifts with time meets every entry early and late.
                for label, scenario in turn if number % 2 == 0 else reversed(turn):
                    records.append(self._record(label, scenario, number, stack))
                    _write(file, records[-1])
                    print(_line(records[-1]), flush=True)
        return records

    def _record(self, label: str, scenario: Scenario, number: int, stack: ExitStack) -> Record:
        about = {
            "kind": "load",
            "entry": label,
            "repeat": number,
            "scenario": scenario.model_dump(mode="json"),
            "engine": scenario.chosen_engine,
        }
        try:
            with self._target(scenario, stack) as served:
                result = self._run(scenario, served)
                about |= {"target": served.label, "settings": dict(served.settings)}
        except _UNAVAILABLE as exc:
            return {**about, "unavailable": str(exc), "problems": [str(exc)], "figures": {"errors": 1.0}}
        return {**about, "figures": result.figures, "problems": list(result.problems), **result.counts}

    @contextmanager
    def _target(self, scenario: Scenario, stack: ExitStack) -> Iterator[Served]:
        """Lend the target, started before or now."""
        model = scenario.bench_model
        if not self.setup.keep_running:
            with serving(scenario.target, model, self.setup.cores[0], self.setup.folder) as served:
                yield served
            return
        key = f"{scenario.target.model_dump_json()} {model}"
        if key not in self._served:
            starting = serving(scenario.target, model, self.setup.cores[0], self.setup.folder)
            self._served[key] = stack.enter_context(starting)
        yield self._served[key]

    def _run(self, scenario: Scenario, served: Served) -> Result:
        """Warm up, find the peak if the rate hangs on it, before and after, and measure.

        A minute of load is long enough for the machine to become another: the mean of both peaks counts.
        """
        arrival, peaks_per_s = scenario.arrival, []
        trial = self._trial(scenario, served, scenario.chosen_engine)
        if (of_peak := getattr(arrival, "of_peak", None)) is not None:
            peaks_per_s.append(self._peak_per_s(scenario, served))
            arrival = arrival.model_copy(update={"rate": of_peak * peaks_per_s[0], "of_peak": None})
        if scenario.warm_up_s:
            trial.run(arrival, scenario.warm_up_s)
        if (connections := self._best_connections(trial)) is not None:
            arrival = arrival.model_copy(update={"connections": connections})
        result = trial.run(arrival, scenario.duration_s)
        if connections is not None:
            result.counts["connections"] = connections
        if peaks_per_s:
            peaks_per_s.append(self._peak_per_s(scenario, served))
            result.figures["goodput_of_peak"] = result.figures["requests_per_s"] / mean(peaks_per_s)
            result.counts["peaks_per_s"] = peaks_per_s
        return result

    def _best_connections(self, trial: Trial) -> int | None:
        """Return with how many gRPC connections a peer answers most requests; found out once for each."""
        loop, served = trial.scenario.arrival, trial.served
        left_open = isinstance(loop, Closed) and not loop.connections and trial.engine == "h2load"
        if not left_open or not served.connections or not isinstance(loop, Closed):
            return None
        if served.label not in self._connections:
            rates = {
                count: trial.run(loop.model_copy(update={"connections": count}), 1.0).figures[
                    "requests_per_s"
                ]
                for count in served.connections
                if count <= loop.in_flight and loop.in_flight % count == 0
            }
            self._connections[served.label] = max(rates, key=lambda count: rates[count])
        return self._connections[served.label]

    def _peak_per_s(self, scenario: Scenario, served: Served) -> float:
        loop = Closed(kind="closed", in_flight=PEAK_IN_FLIGHT)
        changes = {"arrival": loop, "payload": Payload(), "engine": "auto", "thresholds": {}}
        closed = scenario.model_copy(update=changes)
        trial = self._trial(closed, served, closed.chosen_engine)
        trial.run(loop, 1.0)
        return trial.run(loop, min(_PEAK_S, scenario.duration_s)).figures["requests_per_s"]

    def _trial(self, scenario: Scenario, served: Served, engine: str) -> Trial:
        model = scenario.bench_model
        if model.name not in self._references:
            self._references[model.name] = DirectModel(model.file)
        reference = self._references[model.name]
        return Trial(scenario, served, reference, self.setup.cores, self.setup.folder, engine)


def kept(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Return the runs of each entry that nothing disturbed, or its least disturbed one."""
    noisy = [
        {
            **record,
            "foreign": record["figures"].get("foreign", 0.0),
            "steal": record["figures"].get("steal", 0.0),
            "errors": bool(record["problems"]),
        }
        for record in records
    ]
    grouped: dict[str, list[Record]] = {}
    for record in quiet(noisy, ("entry",)):
        grouped.setdefault(record["entry"], []).append(record)
    return grouped


def _write(file: Any, record: Record) -> None:
    file.write(json.dumps(record) + "\n")
    file.flush()


def _line(record: Record) -> str:
    if "unavailable" in record:
        return f"{record['repeat']} {record['entry']}: UNAVAILABLE: {record['unavailable']}"
    figures = record["figures"]
    parts = [
        f"{figures[name]:,.{digits}f} {unit}"
        for name, digits, unit in (
            ("requests_per_s", 0, "requests/s"),
            ("p50_ms", 2, "ms p50"),
            ("p99_ms", 2, "ms p99"),
            ("cpu_us_per_request", 1, "us CPU"),
            ("mean_batch", 1, "rows/batch"),
            ("errors", 0, "errors"),
        )
        if name in figures
    ]
    noise = " ".join(f"{name} {figures[name]:.0%}" for name in _NOISE if name in figures)
    said = "".join(f"\n    {problem}" for problem in record["problems"][:5])
    return f"{record['repeat']} {record['entry']} ({record['engine']}): {', '.join(parts)} | {noise}{said}"


_NOISE: Final = ("foreign", "steal", "generator_idle")
