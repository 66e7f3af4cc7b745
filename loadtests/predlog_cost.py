"""What the prediction log costs the requests that it logs: CPU time and latency with and without it.

`python -m loadtests.predlog_cost` starts two gateways on one core, one without a log and one with, and a
client on another core that asks one of them at a time: stretches follow each other as A B B A, so that a
machine that drifts drifts for both. `--load 1000` sends at random times of that mean rate, so that there is
capacity to spare and batches are of one; `--load closed` keeps 64 requests in flight by wrk, whole seconds
each stretch: the highest rate, where batches are full.

`--monitor` says what the log is streamed to: `none` (frames are made and thrown away), `absent` (nobody
listens, frames go to the spool), `healthy`, `stopped` (by SIGSTOP, throughout) or `killed`. It runs on the
client's core when that is idle (SCHED_IDLE), so that it takes nothing of the gateway's and delays no client:
as it would on a third core.

Two numbers decide. The 99th percentile is compared within each pair of neighbours, whose sides met the same
machine; the geometric mean of these ratios is given with the upper end of its 95 % interval from a bootstrap
over pairs. Both sides of a pair have as many requests, so that the noise of a percentile of few, in itself
large, is equally likely to favour either. Many short pairs therefore tell more than few long ones; the ratio
over all requests is printed beside it, and is that of whichever side the machine's worst moments met.
The CPU time of a request is the whole process's, by its clock, as a mean of differences with the same kind
of bound. With `--together` both gateways are asked at once, each at the rate: then they meet the same moments
of the machine, which otherwise differ by far more than the log takes. Where memory comes to lie makes one
process a microsecond faster than another of the same program, and its tail by some percent: `--starts` shares
the pairs among so many fresh gateways.

Each load decides what it can tell, and both numbers are printed. Exits with 1
- at a rate, in turns, if the ratio's bound is above 1.10; the CPU times of stretches apart are too far apart;
- with `--together` if that of the CPU time is above 5 us; what one of them does is in the other's latency;
- when closed if that of the CPU time is above 5 us; each request waits for 63 others, so that p99 grows
  as the CPU time does, by any work at all.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from loadtests.generators import wrk_load
from loadtests.noninterference import (
    MOST_P99_RATIO,
    Client,
    Stretch,
    bound,
    bound_by_pair,
    by_pair,
    cpu_us,
    quantile,
)
from loadtests.noninterference_models import STABLE, repository_of
from loadtests.process_tree import process_cpu_s, side_threads_cpu_s
from loadtests.soak_load import http_infer
from loadtests.soak_server import GatewayProcess, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_CPU_US: Final = 5.0
"""More CPU time of a request, the upper bound of the 95 % interval over pairs."""

_SERVER_CORE: Final = 0
_CLIENT_CORE: Final = 1
_IN_FLIGHT: Final = 64
_RESAMPLES: Final = 1000
_FATES: Final = {
    "gateway_prediction_log_rows",
    "gateway_prediction_log_sink_rows",
    "gateway_prediction_log_sink_held_rows",
}


class MeasuredProcess(GatewayProcess):
    """A gateway whose CPU time is read."""

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid


class LoggedGateways:
    """One gateway without a log and one with, on one core; the one that is not asked does nothing."""

    def __init__(self, plain: MeasuredProcess, logging: MeasuredProcess, options: argparse.Namespace) -> None:
        self._processes = (plain, logging)
        self._options = options
        # In turns both sides get the same times; at once those of their own, or one would always be second.
        seeds = (1, 2 if options.together else 1)
        self._clients = [Client(p.http_port, seed) for p, seed in zip(self._processes, seeds, strict=True)]
        self._beside_s = [0.0, 0.0]
        self._requests = [0, 0]

    async def pairs(self, monitor: Monitor) -> list[tuple[Stretch, Stretch]]:
        """Return stretches without and with the log, taken in turns as A B B A."""
        for logged in (False, True):
            await self._stretch(logged=logged)
        found = []
        # The client's own collector would hold up whichever side it happens in.
        gc.disable()
        with monitor.state():
            for number in range(self._options.pairs // self._options.starts):
                gc.collect()
                if self._options.together:
                    both = [self._stretch(logged=logged) for logged in (False, True)]
                    one, other = await asyncio.gather(*both)
                    found.append((one, other))
                    continue
                first = await self._stretch(logged=number % 2 == 1)
                second = await self._stretch(logged=number % 2 == 0)
                found.append((second, first) if number % 2 else (first, second))
        gc.enable()
        for client in self._clients:
            client.close()
        return found

    async def _stretch(self, *, logged: bool) -> Stretch:
        process, options = self._processes[logged], self._options
        before_s, beside_s = process_cpu_s(process.pid), side_threads_cpu_s(process.pid)
        if options.load is None:
            count, latencies_s = self._saturate(process)
        else:
            latencies_s = await self._clients[logged].send(options.load, options.seconds)
            count = int(options.load * options.seconds)
        taken_s = process_cpu_s(process.pid) - before_s
        self._beside_s[logged] += side_threads_cpu_s(process.pid) - beside_s
        self._requests[logged] += count
        return Stretch(latencies_s=latencies_s, cpu_s=taken_s / count)

    def beside_us(self) -> tuple[float, float]:
        """Return the CPU time of a request in threads beside the event loop, without and with the log.

        That of the log's own threads is their difference, and no noise of the event loop's is in it.
        """
        without, logged = (s / n * 1e6 for s, n in zip(self._beside_s, self._requests, strict=True))
        return without, logged

    def _saturate(self, process: GatewayProcess) -> tuple[int, Any]:
        """Return how many requests wrk had answered, and quantiles of their latency."""
        head, _, body = http_infer((1.0, 2.0, 3.0, 4.0)).partition(b"\r\n\r\n")
        length = re.search(rb"(?i)inference-header-content-length: (\d+)", head)
        assert length is not None
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            script = str(Path(__file__).with_name("post.lua"))
            path = head.split(b" ")[1].decode()
            url = f"http://127.0.0.1:{process.http_port}{path}"
            shape = ["-t1", f"-c{_IN_FLIGHT}", f"-d{max(1, round(self._options.seconds))}s"]
            header = f"Inference-Header-Content-Length: {length[1].decode()}"
            command = ["wrk", *shape, "-s", script, url, "--", file.name, header]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        told = wrk_load(output)
        if told.failed:
            raise RuntimeError(f"{told.failed} requests failed")
        # Weighted so that quantiles of stretches together are about those of all requests.
        return told.requests, np.repeat([told.p50_ms / 1e3, told.p99_ms / 1e3], [98, 2])


class Monitor:
    """What the log is streamed to.

    Args:
        kind: as on the command line.
        directory: for its state and its socket.
    """

    def __init__(self, kind: str, directory: Path) -> None:
        self._kind = kind
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = directory / "log.sock"

    def __enter__(self) -> Self:
        if self._kind in {"healthy", "stopped", "killed"}:
            config = self._directory / "monitor.yaml"
            config.write_text(
                json.dumps(
                    {
                        "data": str(self._directory / "monitor"),
                        "ingest": {"socket": str(self.socket)},
                        "pages": {"port": 0},
                    }
                )
            )
            command = [sys.executable, "-m", "gateway", "monitor", "serve", "--config", str(config)]
            # On the client's core only when the client leaves it.
            aside = ["chrt", "--idle", "0", "taskset", "-c", str(_CLIENT_CORE)]
            self._process = subprocess.Popen([*aside, *command])
            hopeless_s = time.monotonic() + 30
            while not self.socket.exists():
                if self._process.poll() is not None or time.monotonic() > hopeless_s:
                    raise RuntimeError("the monitor does not listen")
                time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def state(self) -> Iterator[None]:
        """Have it stopped or killed, if that is asked for."""
        if self._process is not None and self._kind == "stopped":
            self._process.send_signal(signal.SIGSTOP)
        elif self._process is not None and self._kind == "killed":
            self._process.kill()
        yield
        if self._process is not None and self._kind == "stopped":
            self._process.send_signal(signal.SIGCONT)


def extra_us(pairs: list[tuple[Stretch, Stretch]]) -> float:
    """Return the upper bound of the 95 % interval of the CPU time that a request costs more, by pairs."""
    random = np.random.default_rng(0)
    extra = np.array([(b.cpu_s - a.cpu_s) * 1e6 for a, b in pairs])
    means = [random.choice(extra, len(extra)).mean() for _ in range(_RESAMPLES)]
    return float(np.quantile(means, 0.975))


def report(pairs: list[tuple[Stretch, Stretch]], *, judge_latency: bool) -> bool:
    """Print the table; return whether what was promised holds.

    Args:
        pairs: without and with the log.
        judge_latency: rather than CPU time.
    """
    without, logged = [a for a, _ in pairs], [b for _, b in pairs]
    print(f"{len(pairs)} pairs; us")
    print(f"{'':12}{'without':>10}{'with':>10}{'ratio':>10}{'<= (95 %)':>12}")
    for name, value in {"p50": quantile(0.5), "p99": quantile(0.99), "CPU": cpu_us}.items():
        one, other = value(without), value(logged)
        print(f"{name:12}{one:10.1f}{other:10.1f}{other / one:10.3f}{bound(pairs, value):12.3f}")
    within, most_within = (make(pairs, quantile(0.99)) for make in (by_pair, bound_by_pair))
    print(f"{'p99 by pair':12}{'':20}{within:10.3f}{most_within:12.3f}")
    extra, most = cpu_us(logged) - cpu_us(without), extra_us(pairs)
    print(f"CPU time of a request: {extra:+.2f} us, at most {most:+.2f}")
    return most_within <= MOST_P99_RATIO if judge_latency else most <= MOST_CPU_US


def log_section(options: argparse.Namespace, monitor: Monitor, directory: Path) -> dict[str, Any]:
    """Return the section `prediction_log` of the gateway with a log."""
    section: dict[str, Any] = {"defaults": {"max_rows_per_s": options.max_rows_per_s}}
    if options.linger_s is not None:
        section["linger_s"] = options.linger_s
    if options.monitor != "none":
        section["sinks"] = {
            "stream": {"socket": str(monitor.socket)},
            "spool": {"directory": str(directory / "spool")},
        }
    return section


class Measured(NamedTuple):
    """What was found with one start of the gateways.

    Attributes:
        pairs: without and with the log.
        beside_us: CPU time of a request beside the event loop, without and with the log.
        fates: what became of the log's rows.
    """

    pairs: list[tuple[Stretch, Stretch]]
    beside_us: tuple[float, float]
    fates: dict[str, float]


async def measure_once(options: argparse.Namespace) -> Measured:
    """Start two gateways and perhaps a monitor, and measure."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Longer than all pairs take: a client that was given many connections seldom uses most of them.
        config = settings(repository_of(directory, STABLE), http={"keep_alive_timeout_s": 3600})
        monitor = stack.enter_context(Monitor(options.monitor, directory))
        processes = []
        for name, section in (("plain", {}), ("logged", log_section(options, monitor, directory))):
            place = directory / name
            place.mkdir()
            extra = {"prediction_log": section} if section else {}
            processes.append(
                stack.enter_context(MeasuredProcess({**config, **extra}, place, core=_SERVER_CORE))
            )
        gateways = LoggedGateways(processes[0], processes[1], options)
        pairs = await gateways.pairs(monitor)
        return Measured(pairs, gateways.beside_us(), rows_by_fate(processes[1].metrics_port))


async def measure(options: argparse.Namespace) -> bool:
    """Measure with so many starts, and report."""
    found = [await measure_once(options) for _ in range(options.starts)]
    in_turns_at_a_rate = options.load is not None and not options.together
    holds = report([pair for each in found for pair in each.pairs], judge_latency=in_turns_at_a_rate)
    without, logged = (sum(us) / len(found) for us in zip(*[each.beside_us for each in found], strict=True))
    print(
        f"of it beside the event loop: {without:.2f} without, {logged:.2f} with: {logged - without:+.2f} us"
    )
    fates: Counter[str] = Counter()
    for each in found:
        fates.update(each.fates)
    print("rows by fate:", ", ".join(f"{rows:.0f} {fate}" for fate, rows in fates.items() if rows))
    return holds


def rows_by_fate(port: int) -> dict[str, float]:
    """Return what a gateway's metrics say of its log's rows: without it nobody knows what was measured."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        text = page.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        if family.name in _FATES:
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    found["/".join(sample.labels.values())] = sample.value
    return found


def load(text: str) -> float | None:
    """Return the rate that `--load` names; None for a closed load.

    Raises:
        ArgumentTypeError: it is neither a rate nor `closed`.
    """
    if text == "closed":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"neither a rate nor closed: {text}")
    return rate


def main() -> None:
    """Measure as told on the command line; exit with 1 if the promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--starts", type=int, default=1, help="of the gateways, which share the pairs")
    parser.add_argument("--seconds", type=float, default=1.2, help="of each stretch")
    parser.add_argument(
        "--load",
        type=load,
        default=1000.0,
        metavar="RATE|closed",
        help="requests per second, or as many as go",
    )
    parser.add_argument(
        "--monitor", choices=("none", "absent", "healthy", "stopped", "killed"), default="none"
    )
    parser.add_argument("--together", action="store_true", help="ask both at once, to judge CPU time alone")
    parser.add_argument("--linger-s", type=float, help="as in the configuration; its default")
    parser.add_argument("--max-rows-per-s", type=int, default=10_000, help="as in the configuration; 0: all")
    options = parser.parse_args()
    if options.together and options.load is None:
        parser.error("--together needs a rate")
    if options.load is None and shutil.which("wrk") is None:
        parser.error("a closed load needs wrk")
    os.sched_setaffinity(0, {_CLIENT_CORE})
    sys.exit(0 if uvloop.run(measure(options)) else 1)


if __name__ == "__main__":
    main()
