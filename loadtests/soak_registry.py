"""Moves an alias between versions of a large model in a real bucket, under a constant rate of requests.

The gateway fetches, verifies and loads what the alias names while it answers; the row holds what clients see
meanwhile against what they see in between. The store stands for another machine: it has a tenth of a claim to
the processors, where it would share them by halves with the gateway and its clients. What it takes of the
memory's bandwidth is still lost to them.

`python -m loadtests.soak_registry [--core N] [SECONDS]` runs it alone, with the gateway kept on one core and
everything else on the others where that is asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from gateway.core.background import MOST, give_way
from loadtests.machine import core_time
from loadtests.process_tree import cpu_s
from loadtests.soak_http import fetch
from loadtests.soak_models import OFFSET
from loadtests.soak_registry_load import Sent
from loadtests.soak_registry_models import Publisher, following, secrets
from loadtests.soak_registry_report import RegistryReport, Swap, rows
from loadtests.soak_server import GatewayProcess
from loadtests.soak_table import table
from tests.servers.seaweed import seaweed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager

    from loadtests.soak_table import Row

Entered = TypeVar("Entered")

MODEL_BYTES: Final = 200_000_000
RATE: Final = 200.0
SECONDS: Final = 300.0
PERIOD_S: Final = 10.0
POLL_S: Final = 2.0
COLD_EVERY: Final = 5
"""Each fifth move is to a version that the gateway has never had."""
_SETTLE_S: Final = 5.0
"""Of load before the first move."""
_PAUSE_S: Final = 0.1
"""Between two looks at it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run.

    Attributes:
        moves: how often the alias moves.
        period_s: from one move to the next.
        poll_s: `poll_interval_s` of the registry.
        size_bytes: of the model.
        rate: requests per second.
        core: the gateway is kept on it, and everything else away from it; None: the kernel decides.
        patience_s: after a period, for a move that is not over on a busy machine.
    """

    moves: int
    period_s: float = PERIOD_S
    poll_s: float = POLL_S
    size_bytes: int = MODEL_BYTES
    rate: float = RATE
    core: int | None = None
    patience_s: float = 60.0

    def targets(self) -> list[int]:
        """Return the version of each move: now and then a new one, else back and forth."""
        found, current, previous, newest = [], 1, 2, 2
        for move in range(1, self.moves + 1):
            if move % COLD_EVERY == 0:
                newest += 1
                current, previous = newest, current
            else:
                current, previous = previous, current
            found.append(current)
        return found


def run_registry(plan: Plan) -> RegistryReport:
    """Run a plan with a bucket and a gateway of its own."""
    directory = Path(tempfile.mkdtemp())
    allowed = os.sched_getaffinity(0)
    if plan.core is not None:
        os.sched_setaffinity(0, allowed - {plan.core})  # children inherit it
    try:
        with elsewhere(seaweed) as server:
            publisher = Publisher(server)
            for version in sorted({1, *plan.targets()}):
                publisher.push(version, plan.size_bytes)
            asyncio.run(publisher.move(1))
            _let_servers_give_way()
            config = following(server, str(directory / "cache"), plan.poll_s)
            with GatewayProcess(config, directory, secrets(server), plan.core) as gateway:
                return asyncio.run(swapping(gateway, publisher, plan))
    finally:
        os.sched_setaffinity(0, allowed)
        shutil.rmtree(directory)


async def swapping(gateway: GatewayProcess, publisher: Publisher, plan: Plan) -> RegistryReport:
    """Carry out a plan's moves on a gateway that serves version 1."""
    report = RegistryReport()
    async with _offering(gateway.http_port, plan.rate, report.sent):
        await asyncio.sleep(min(_SETTLE_S, plan.period_s))
        report.rss_before = gateway.usage().rss_bytes
        lag_before = (await _metrics(gateway))[0]
        before = _Processors.now()
        current, seen = 1, {1}
        for version in plan.targets():
            moved = Swap(version, version not in seen, time.time())
            await publisher.move(version)
            await asyncio.sleep(max(0.0, moved.moved_s + plan.period_s - time.time()))
            report.swaps.append(await _over(gateway, moved, current, plan.patience_s))
            seen.add(version)
            current = version
        report.others = before.others_since()
        report.rss_after = gateway.usage().rss_bytes
        lag, report.steps = await _metrics(gateway)
        report.lag = {bound: count - lag_before.get(bound, 0.0) for bound, count in lag.items()}
    return report


async def _over(gateway: GatewayProcess, moved: Swap, old: int, patience_s: float) -> Swap:
    """Return what became of a move once it is over, or after so long."""
    hopeless_s = time.monotonic() + patience_s
    while True:
        page = (await fetch(int(gateway.ready["admin_port"]), "GET", f"/models/{OFFSET}")).json
        swap = moved.read(old, page["versions"])
        if not swap.problem or time.monotonic() > hopeless_s:
            return swap
        await asyncio.sleep(_PAUSE_S)


@dataclass(frozen=True, slots=True)
class _Processors:
    """Seconds of processors so far: all there were, those at work, and those of this program's processes."""

    all_s: float
    busy_s: float
    own_s: float

    @classmethod
    def now(cls) -> Self:
        cores = [core_time(core) for core in range(os.cpu_count() or 1)]
        busy_s = sum(core.busy_s for core in cores)
        return cls(time.monotonic() * len(cores), busy_s, cpu_s(os.getpid()))

    def others_since(self) -> float:
        """Return the share of all processors that other programs have had since."""
        now = self.now()
        others_s = (now.busy_s - self.busy_s) - (now.own_s - self.own_s)
        return max(0.0, others_s / (now.all_s - self.all_s))


@contextmanager
def elsewhere(server: Callable[[], AbstractContextManager[Entered]]) -> Iterator[Entered]:
    """Run a server with the least claim to the processors, as if it had a machine of its own."""
    with ThreadPoolExecutor(1, initializer=lambda: give_way(less=MOST)) as thread:
        running = server()  # what the thread starts has the thread's priority
        entered = thread.submit(running.__enter__).result()
        try:
            yield entered
        finally:
            thread.submit(running.__exit__, None, None, None).result()


def _let_servers_give_way() -> None:
    """Lower the claim of the sessions that this process has started: `elsewhere` counts within one alone.

    Not before all is pushed, and not by the most: beside others at work, a store would then answer too late.
    """
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            process, parent = int(entry.parent.name), int(entry.read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and os.getsid(process) == process:
                give_way(process)


@asynccontextmanager
async def _offering(port: int, rate: float, sent: list[Sent]) -> AsyncIterator[None]:
    """Keep the requests coming while the block runs; afterwards `sent` holds them all."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtests.soak_registry_load", str(port), str(rate), stdin=pipe, stdout=pipe
    )
    try:
        yield
        output, _ = await process.communicate(b"end\n")
        sent += [Sent(*json.loads(line)) for line in output.splitlines()]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _metrics(gateway: GatewayProcess) -> tuple[dict[float, float], dict[str, float]]:
    """Return the histogram of the loop's lag, and the mean seconds of each step of a load."""
    lag: dict[float, float] = {}
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    text = (await fetch(gateway.metrics_port, "GET", "/metrics")).body.decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "gateway_loop_lag_seconds_bucket":
                lag[float(sample.labels["le"])] = sample.value
            elif sample.name == "gateway_model_step_seconds_sum":
                sums[sample.labels["step"]] = sample.value
            elif sample.name == "gateway_model_step_seconds_count":
                counts[sample.labels["step"]] = sample.value
    return lag, {step: total / counts[step] for step, total in sums.items() if counts[step]}


def registry(fraction: float, core: int | None = None) -> Iterator[Row]:
    """Move an alias every ten seconds under 200 requests a second."""
    report = run_registry(Plan(moves=math.ceil(SECONDS / PERIOD_S * fraction), core=core))
    yield from rows(report)


def main() -> int:
    """Run it alone; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=SECONDS)
    parser.add_argument("--core", type=int, help="keep the gateway on this core, all else away from it")
    options = parser.parse_args()
    found = list(registry(options.seconds / SECONDS, options.core))
    print(table(found))
    return 0 if all(row.ok for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
