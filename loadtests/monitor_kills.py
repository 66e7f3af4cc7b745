"""Kills, stops and continues a gateway and its monitor at random moments, then counts every row.

`python -m loadtests.soak --only monitor-kills` prints the row of the table.
"""

from __future__ import annotations

import http.client
import json
import math
import random
import signal
import sqlite3
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from loadtests.soak_server import GatewayProcess
from loadtests.soak_table import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KILLS: Final = 50
LONGEST_S: Final = 0.8
"""A kill comes so long after the last start, at most; checkpoints are made every quarter of a second."""
READY_S: Final = 5.0
PATIENCE_S: Final = 60.0
MODEL: Final = "car_loan"
ROOT: Final = Path(__file__).parents[1]
_NUMBERS: Final = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
_TEXTS: Final = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")
_INPUTS: Final = [
    *({"name": name, "datatype": "FP32", "shape": [1, 1], "data": [1.0]} for name in _NUMBERS),
    *({"name": name, "datatype": "BYTES", "shape": [1, 1], "data": ["x"]} for name in _TEXTS),
]
_SINK: Final = "gateway_prediction_log_sink_"


@dataclass(slots=True)
class Life:
    """One process of the gateway.

    Attributes:
        number: its requests' ids begin with it.
        answered: ids whose answers came.
        durable: rows that it said were durable at the monitor, when last asked: those of its first requests.
        safe: with those in its spool.
        produced: rows that it said it had, likewise.
        killed: it did not end by itself.
    """

    number: int
    answered: list[str] = field(default_factory=list)
    durable: int = 0
    safe: int = 0
    produced: int = 0
    killed: bool = False


@dataclass(slots=True)
class Report:
    """What was seen.

    Attributes:
        kills: by SIGKILL, by program.
        stops: by SIGSTOP and SIGCONT.
        starts_s: how long each start took until READY.
        lives: of the gateway.
        applied: rows by id, that the monitor has at the end.
        problems: what must not be, in words.
    """

    kills: Counter[str] = field(default_factory=Counter)
    stops: int = 0
    starts_s: list[float] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    applied: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Answers whose rows went with a gateway that was killed."""
        return sum(name not in self.applied for life in self.lives for name in life.answered)


class MonitorProcess(GatewayProcess):
    """`gateway monitor serve` in a process of its own."""

    def _program(self, config: str) -> list[str]:
        return ["gateway", "monitor", "serve", "--config", config, "--ready-json"]


class Scene:
    """A gateway and a monitor that are started again whenever they were killed.

    Args:
        directory: of both; short, for the socket's sake.
        seed: of the moments.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.report = Report()
        self._directory = directory
        self._stack = ExitStack()
        self.monitor = self._monitor()
        self.gateway = self._gateway()

    def __enter__(self) -> Self:
        self._start(self.monitor)
        self.start_gateway()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_gateway(self) -> None:
        """Begin the gateway's next life, and ask it from now on."""
        self.gateway = self._gateway()
        self._start(self.gateway)
        life = Life(len(self.report.lives))
        self.report.lives.append(life)
        self._asked = ExitStack()
        self._asked.enter_context(_asking(self.gateway.http_port, life))

    def kill_gateway(self) -> None:
        """Kill it while it is asked."""
        life = self.report.lives[-1]
        self._note(life)
        self._pause(0.1)
        life.killed = True
        self._kill("gateway", self.gateway)
        self._asked.close()
        self.start_gateway()

    def kill_monitor(self) -> None:
        """Kill it while the gateway is asked."""
        self._kill("monitor", self.monitor)
        self.monitor = self._monitor()
        self._start(self.monitor)

    def hold(self, process: GatewayProcess) -> None:
        """Stop a process for a moment."""
        process.send(signal.SIGSTOP)
        self._pause(0.5)
        process.send(signal.SIGCONT)
        self.report.stops += 1

    def live(self) -> None:
        """Let both work for a while."""
        self._pause(LONGEST_S)

    def end_gateway(self) -> None:
        """End it by SIGTERM once all its rows are durable."""
        self._asked.close()
        life = self.report.lives[-1]
        _until(lambda: self._settled(life), lambda: f"rows wait at the end: {_samples(self.gateway)}")
        self._end("gateway", self.gateway)

    def end_monitor(self) -> None:
        """End it by SIGTERM, and count what it has."""
        self._end("monitor", self.monitor)
        path = self._directory / "monitor" / "data" / "monitor.sqlite"
        with closing(sqlite3.connect(path)) as database:
            for (keys,) in database.execute("SELECT keys FROM performance_blocks"):
                self.report.applied.update(bytes.fromhex(key).decode() for key in json.loads(keys))

    def _settled(self, life: Life) -> bool:
        self._note(life)
        found = _samples(self.gateway)
        waiting = found.get("gateway_prediction_log_waiting_rows", 0)
        # The log has its rows a moment after the answers.
        whole = len(life.answered) <= life.produced == life.safe
        return whole and not waiting and not _held(found, "spool")

    def _note(self, life: Life) -> None:
        found = _samples(self.gateway)
        applied = found.get(f'{_SINK}rows_total{{outcome="applied",sink="stream"}}', 0)
        life.durable = int(applied)
        life.safe = int(applied + _held(found, "spool"))
        produced = "gateway_prediction_log_produced_rows_total"
        life.produced = int(sum(value for name, value in found.items() if name.startswith(produced)))

    def _pause(self, longest_s: float) -> None:
        threading.Event().wait(self.chance.random() * longest_s)

    def _start(self, process: GatewayProcess) -> None:
        began_s = time.monotonic()
        self._stack.enter_context(process)
        self.report.starts_s.append(time.monotonic() - began_s)

    def _kill(self, name: str, process: GatewayProcess) -> None:
        process.kill()
        process.wait()
        self.report.kills[name] += 1
        self._look(name, process)

    def _end(self, name: str, process: GatewayProcess) -> None:
        process.terminate()
        if (code := process.wait()) != 0:
            self.report.problems.append(f"SIGTERM ended the {name} with exit code {code}")
        self._look(name, process)

    def _look(self, name: str, process: GatewayProcess) -> None:
        if "Traceback" in process.log:
            self.report.problems.append(f"{name}: {process.log[process.log.index('Traceback') :][:2000]}")

    def _monitor(self) -> MonitorProcess:
        directory = self._directory / "monitor"
        directory.mkdir(exist_ok=True)
        return MonitorProcess(
            {
                "data": "data",
                "pages": {"port": 0},
                "engine": {"checkpoint": "250ms"},
                "profiles": {"directories": [str(ROOT / "models")]},
                "log": {"level": "error"},
            },
            directory,
        )

    def _gateway(self) -> GatewayProcess:
        return GatewayProcess(
            {
                "server": {"ports": dict.fromkeys(("http", "grpc", "metrics", "admin"), 0)},
                "models": [
                    {
                        "name": MODEL,
                        "path": str(ROOT / "models" / MODEL),
                        "versions": {"specific": [1]},
                        "prediction_log": {"inputs": dict.fromkeys(_TEXTS, "category")},
                    }
                ],
                "prediction_log": {
                    "producer": "here",
                    "sinks": {
                        "spool": {"directory": "spool"},
                        "stream": {
                            "socket": str(self._directory / "monitor" / "data" / "log.sock"),
                            "silence": "1s",
                        },
                    },
                },
            },
            self._directory,
        )


def kill_both(kills: int, *, seed: int) -> Report:
    """Kill one or the other so often, stop and continue them between, and see where every row is.

    Args:
        kills: by SIGKILL, of both programs together.
        seed: of the moments.
    """
    with tempfile.TemporaryDirectory() as name, Scene(Path(name), seed) as scene:
        for number in range(kills):
            scene.live()
            if number % 3 == 2:
                scene.hold(scene.chance.choice([scene.gateway, scene.monitor]))
            if number % 2:
                scene.kill_gateway()
            else:
                scene.kill_monitor()
        scene.live()
        scene.end_gateway()
        scene.end_monitor()
        report = scene.report
    _compare(report)
    return report


def _compare(report: Report) -> None:
    """Hold what the monitor has against what gateways said."""
    twice = [name for name, count in report.applied.items() if count > 1]
    if twice:
        report.problems.append(f"{len(twice)} ids counted twice: {twice[:5]}")
    rows = Counter(int(name.partition("-")[0]) for name in report.applied)
    for life in report.lives:
        there = rows[life.number]
        if there < life.safe:
            report.problems.append(f"life {life.number}: {life.safe} rows were safe, {there} are there")
        first = (f"{life.number}-{number}" for number in range(life.durable))
        if gone := [name for name in first if name not in report.applied]:
            report.problems.append(f"life {life.number}: {len(gone)} durable rows lost: {gone[:5]}")
        missing = [name for name in life.answered if name not in report.applied]
        if missing and not life.killed:
            report.problems.append(f"life {life.number}: {len(missing)} rows lost: {missing[:5]}")
        if not life.killed and there != life.produced:
            report.problems.append(f"life {life.number}: {life.produced} rows produced, {there} are there")


def _until(holds: Callable[[], bool], complaint: Callable[[], str]) -> None:
    hopeless_s = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > hopeless_s:
            raise RuntimeError(complaint())
        threading.Event().wait(0.02)


@contextmanager
def _asking(port: int, life: Life) -> Iterator[None]:
    """Ask meanwhile, one request after the other, from a thread of its own."""
    stop = threading.Event()
    thread = threading.Thread(target=_ask, args=(port, life, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _ask(port: int, life: Life, stop: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    number = 0
    try:
        while not stop.is_set():
            name = f"{life.number}-{number}"
            body: dict[str, Any] = {"id": name, "inputs": _INPUTS}
            connection.request("POST", f"/v2/models/{MODEL}/infer", json.dumps(body))
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {answer.read()[:300]!r}")
            answer.read()
            life.answered.append(name)
            number += 1
            stop.wait(0.002)
    except (OSError, http.client.HTTPException):
        # The gateway was killed: nobody else ends its connections.
        return
    finally:
        connection.close()


def _samples(gateway: GatewayProcess) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    found = (line.rpartition(" ") for line in lines if line.startswith("gateway_prediction_log"))
    return {name: float(value) for name, _, value in found}


def _held(found: dict[str, float], place: str) -> float:
    return found.get(f'{_SINK}held_rows{{place="{place}",sink="stream"}}', 0)


def kills(fraction: float) -> Iterator[Row]:
    """Kill a gateway and its monitor at random moments; count rows, and measure the restarts."""
    report = kill_both(math.ceil(KILLS * fraction), seed=11)
    bad, answers = len(report.problems), sum(len(life.answered) for life in report.lives)
    count = f"{report.kills.total()} kills, {report.stops} stops"
    said = f"{len(report.applied)} rows once each, of {answers} answers {report.lost} lost with a gateway"
    yield Row("prediction log, kills", count, said, f"{bad} wrong", "0", ok=not bad, why=report.problems[:5])
    worst_s = max(report.starts_s)
    starts = f"{len(report.starts_s)} starts"
    limit = f"{READY_S:g} s"
    yield Row(
        "prediction log, restart", starts, "until READY", f"{worst_s:.1f} s", limit, ok=worst_s <= READY_S
    )
