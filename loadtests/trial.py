"""One measured run: generator on one core, target on another, some answers checked, every figure taken."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests import process_tree
from loadtests.arrivals import Closed
from loadtests.engines import ENGINES
from loadtests.engines.job import Job
from loadtests.machine import CoreTime, core_time
from loadtests.metrics_page import Reading, read_page
from loadtests.open_inference import identified
from loadtests.peers.asking import NoAnswer, ask
from loadtests.requests_on_file import same

if TYPE_CHECKING:
    from pathlib import Path

    from loadtests.direct import DirectModel
    from loadtests.peers.base import Floats, WireAnswer
    from loadtests.scenario import Scenario
    from loadtests.tally import Tally
    from loadtests.targets import Served

_PROBES: Final = 5
_MIB: Final = 1 << 20
_FIRST_SEED: Final = 1
_PROBE_SEED: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Result:
    """What one run gave.

    Attributes:
        figures: by the names of thresholds.FIGURES; what could not be measured is absent.
        problems: what went wrong, in words; `figures["errors"]` counts all of it.
        counts: more counts of the target, for the record.
    """

    figures: dict[str, float]
    problems: tuple[str, ...]
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Trial:
    """A scenario, the target that answers it, and what answers are compared with.

    Attributes:
        scenario: what to send.
        served: under load.
        reference: the same model in this process.
        cores: of the server and of the generator.
        folder: for request files and logs.
        engine: which generator.
    """

    scenario: Scenario
    served: Served
    reference: DirectModel
    cores: tuple[int, int]
    folder: Path
    engine: str
    _tensors: list[Floats] = field(default_factory=list)
    _seed: int = _PROBE_SEED

    def __post_init__(self) -> None:
        """Make the tensors, the same for every target."""
        rows, features = self.scenario.rows, self.scenario.bench_model.features
        self._tensors = [
            _tensor(rows, features, _FIRST_SEED + n) for n in range(self.scenario.payload.distinct)
        ]

    def run(self, arrival: Any, seconds: float) -> Result:
        """Measure one run.

        Args:
            arrival: how requests come, its rate resolved.
            seconds: how long.

        Raises:
            EngineFailed: the generator gave no figures.
            TargetUnavailable: the target does not speak the scenario's protocol.
            NoAnswer: it did not answer a single request before the run.
        """
        job = self._job(arrival, seconds)
        meter = _Meter(self.served, self.scenario.bench_model.name, self.cores)
        with ENGINES[self.engine](job) as finished:
            probes = self._probe(seconds)
            tally = finished()
        measured = meter.read(tally.seconds)
        return self._result(
            tally, measured, [*probes, *self._wrong(tally), *self._uncounted(tally, measured)]
        )

    def _job(self, arrival: Any, seconds: float) -> Job:
        scenario = self.scenario
        address = self.served.address(scenario.protocol)
        requests = [
            self.served.wire.request(scenario.protocol, scenario.bench_model, tensor)
            for tensor in self._tensors
        ]
        if scenario.payload.ids:
            identified(scenario.protocol, requests[0], "x")  # refuses what has no place for one
        return Job(
            protocol=scenario.protocol,
            address=address,
            requests=requests,
            payload=scenario.payload,
            arrival=arrival,
            seconds=seconds,
            core=self.cores[1],
            folder=self.folder,
            answer_bytes=len(ask(scenario.protocol, address, requests[0]).body),
        )

    def _probe(self, seconds: float) -> list[str]:
        """Spread requests over the run, each with other values; return what was wrong with the answers."""
        wrong: list[str] = []
        pause = threading.Event()  # never set: it only spaces the requests
        rows, model = self.scenario.rows, self.scenario.bench_model
        for _ in range(_PROBES):
            pause.wait(seconds / (_PROBES + 1))
            self._seed += 1
            tensor = _tensor(rows, model.features, self._seed)
            request = self.served.wire.request(self.scenario.protocol, model, tensor)
            try:
                answer = ask(self.scenario.protocol, self.served.address(self.scenario.protocol), request)
            except NoAnswer as exc:
                wrong += [] if self.scenario.allow else [f"a request beside the load: {exc}"]
                continue
            wrong += self._compared(tensor, answer, f"input of seed {self._seed}")
        return wrong

    def _wrong(self, tally: Tally) -> list[str]:
        return [
            complaint
            for sample in tally.samples
            for complaint in self._compared(
                self._tensors[sample.tensor], sample.answer, f"tensor {sample.tensor}"
            )
        ]

    def _compared(self, tensor: Floats, answer: WireAnswer, name: str) -> list[str]:
        try:
            got = self.served.wire.read(self.scenario.protocol, answer)
        except ValueError as exc:
            return [f"the answer to {name} cannot be read: {exc}"]
        expected = tensor if self.served.echoes else self.reference.run(tensor)
        return [] if same(got, expected) else [f"{name} was answered with other values than ONNX Runtime's"]

    def _uncounted(self, tally: Tally, measured: _Measured) -> list[str]:
        """Compare the counts of generators that see no status well with the gateway's own."""
        loop = self.scenario.arrival
        if self.engine not in {"wrk", "h2load"} or not measured.counts or not isinstance(loop, Closed):
            return []
        slack = 2 * loop.in_flight + _PROBES
        if abs(measured.answered - tally.good) <= slack:
            return []
        return [f"{self.engine} counted {tally.good} answers, the gateway {measured.answered:.0f} good ones"]

    def _result(self, tally: Tally, measured: _Measured, wrong: list[str]) -> Result:
        allowed = self.scenario.allow
        bad = tally.failed + tally.dropped
        bad += 0 if "rejected" in allowed else tally.rejected
        bad += 0 if "expired" in allowed else tally.expired
        figures = {
            "requests_per_s": tally.good / tally.seconds,
            "rows_per_s": tally.good * self.scenario.rows / tally.seconds,
            "offered_per_s": tally.due / tally.seconds,
            "goodput_ratio": tally.good / max(tally.due, 1),
            "errors": float(bad + len(wrong)),
            "rejected": float(tally.rejected),
            "expired": float(tally.expired),
            "dropped": float(tally.dropped),
            **{f"{name}_ms": value for name, value in tally.latency_ms.items()},
            **measured.figures,
        }
        if tally.generator_busy is not None:
            figures["generator_idle"] = 1 - tally.generator_busy
        if tally.rejected_p99_ms is not None:
            figures["rejected_p99_ms"] = tally.rejected_p99_ms
        if measured.cpu_s is not None:
            answered = measured.answered or tally.good
            figures["cpu_us_per_request"] = measured.cpu_s * 1e6 / max(answered, 1)
        if (batch_ms := figures.get("batch_ms")) and "p99_ms" in figures:
            figures["p99_of_service"] = figures["p99_ms"] / batch_ms
        return Result(figures, (*tally.problems, *wrong), measured.counts)


@dataclass(frozen=True, slots=True)
class _Measured:
    cpu_s: float | None
    answered: float
    figures: dict[str, float]
    counts: dict[str, Any]


class _Meter:
    """CPU time, memory and metrics of the target, and both cores, from its making on."""

    def __init__(self, served: Served, model: str, cores: tuple[int, int]) -> None:
        self._served, self._model, self._cores = served, model, cores
        self._page = self._read_page()
        self._memory = None if served.pid is None else process_tree.memory(served.pid)
        self._cpu_s = self._read_cpu_s()
        self._core_times = self._read_cores()

    def read(self, seconds: float) -> _Measured:
        """Return what came since, in a run of `seconds`."""
        server, generator = (
            after.since(before) for after, before in zip(self._read_cores(), self._core_times, strict=True)
        )
        cpu_s = None if self._cpu_s is None else (self._read_cpu_s() or 0.0) - self._cpu_s
        figures = {"steal": server.steal_s / seconds, "generator_idle": generator.idle_s / seconds}
        if cpu_s is not None:
            figures["foreign"] = max(server.busy_s - cpu_s, 0.0) / seconds
        figures |= self._memory_figures()
        answered, counts = 0.0, {}
        if (page := self._read_page()) is not None and self._page is not None:
            counted = page.counters.since(self._page.counters)
            answered = counted.answered.get("ok", 0.0)
            counts = {"answered": counted.answered, "batch_sizes": counted.sizes, "closed": counted.closed}
            figures |= page.figures_since(self._page)
        return _Measured(cpu_s, answered, figures, counts)

    def _memory_figures(self) -> dict[str, float]:
        if self._memory is None or self._served.pid is None:
            return {}
        after = process_tree.memory(self._served.pid)
        grown = after.rss_bytes - self._memory.rss_bytes
        return {"peak_rss_mib": after.peak_bytes / _MIB, "rss_growth_mib": grown / _MIB}

    def _read_page(self) -> Reading | None:
        return None if (url := self._served.metrics_url) is None else read_page(url, self._model)

    def _read_cpu_s(self) -> float | None:
        return None if self._served.pid is None else process_tree.cpu_s(self._served.pid)

    def _read_cores(self) -> tuple[CoreTime, CoreTime]:
        return core_time(self._cores[0]), core_time(self._cores[1])


def _tensor(rows: int, features: int, seed: int) -> Floats:
    return np.random.default_rng(seed).random((rows, features), np.float32)
