"""What a shadow costs the requests it is a shadow of: latency with and without it, in interleaved pairs.

`python -m loadtests.noninterference` starts one gateway on one core, and a client on another that sends
requests at random times of a fixed mean rate, so that the gateway has capacity to spare. Stretches without
and with a shadow follow each other as A B B A, so that a machine that drifts drifts for both. Printed are the
median, the 99th percentile and the CPU time of both, and their ratios with the upper bound of a 95 %
confidence interval from a bootstrap over pairs.

The 99th percentile is given twice. Over all requests of a side it is that of the worst stretches: where the
machine holds everybody up for a second now and then, the ratio says which side that met. Within each pair,
whose sides are neighbours in time, it is compared like with like; the geometric mean of those ratios is what
the promise is about. Exits with 1 if its bound is above the limit, or if fewer copies were compared than
would make that worth saying.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import uvloop

from loadtests.noninterference_models import SAME, STABLE, repository_of
from loadtests.noninterference_server import MODEL, ShadowedProcess
from loadtests.process_tree import process_cpu_s
from loadtests.soak_http import HttpConnection
from loadtests.soak_load import http_infer
from loadtests.soak_server import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Samples = npt.NDArray[np.float64]

MOST_P99_RATIO: Final = 1.10
LEAST_COMPARED: Final = 0.9
"""Share of the copies that must have run: a shadow that was dropped interferes with nobody."""

_SERVER_CORE: Final = 0
_CLIENT_CORE: Final = 1
_SKIPPED_S: Final = 0.2
_MOST_CONNECTIONS: Final = 64
_RESAMPLES: Final = 1000
_BODY: Final = http_infer((1.0, 2.0, 3.0, 4.0))


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Some seconds of load.

    Attributes:
        latencies_s: from sending each request to its answer, the first moments left out.
        cpu_s: that the gateway took for each request.
    """

    latencies_s: Samples
    cpu_s: float


Pair: TypeAlias = "tuple[Stretch, Stretch]"
"""Neighbours in time: without the shadow, and with it."""
Value: TypeAlias = "Callable[[Sequence[Stretch]], float]"


class Client:
    """Sends requests when they are due, on as many connections as that takes."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._random = np.random.default_rng(seed)
        self._free: list[HttpConnection] = []
        self._open = 0

    async def send(self, rate: float, seconds: float) -> Samples:
        """Send at `rate` per second; return the latency of each request that was due after the beginning."""
        due_s = np.cumsum(self._random.exponential(1 / rate, int(rate * seconds)))
        latencies_s = np.zeros(len(due_s))
        start_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for index, due in enumerate(due_s):
                await asyncio.sleep(start_s + due - time.perf_counter())
                group.create_task(self._ask(latencies_s, index))
        return latencies_s[due_s >= _SKIPPED_S]

    async def _ask(self, latencies_s: Samples, index: int) -> None:
        connection = self._free.pop() if self._free else await self._connected()
        sent_s = time.perf_counter()
        answer = await connection.exchange(_BODY)
        latencies_s[index] = time.perf_counter() - sent_s
        self._free.append(connection)
        if answer.status != 200:
            raise RuntimeError(f"the gateway answered {answer.status}: {answer.error}")

    async def _connected(self) -> HttpConnection:
        if self._open >= _MOST_CONNECTIONS:
            raise RuntimeError("the gateway does not keep up with this rate: there is no capacity to spare")
        self._open += 1
        return await HttpConnection(self._port).__aenter__()

    def close(self) -> None:
        """Drop every connection."""
        for connection in self._free:
            connection.abort()


class Trial:
    """One gateway, measured with and without a shadow."""

    def __init__(self, process: ShadowedProcess, client: Client, options: argparse.Namespace) -> None:
        self._process = process
        self._client = client
        self._options = options
        self.copies: Counter[str] = Counter()

    async def pairs(self) -> list[Pair]:
        """Return stretches without and with the shadow, taken in turns as A B B A."""
        await self._stretch(shadowed=True)
        found = []
        for number in range(self._options.pairs):
            first = await self._stretch(shadowed=number % 2 == 1)
            second = await self._stretch(shadowed=number % 2 == 0)
            found.append((second, first) if number % 2 else (first, second))
        return found

    async def _stretch(self, *, shadowed: bool) -> Stretch:
        options = self._options
        spec = {
            "version": SAME,
            "sample_ppm": options.sample_ppm,
            "max_inflight": options.max_inflight,
            "headroom_ppm": options.headroom_ppm,
        }
        self._process.follow(*([spec] if shadowed else []))
        before_s = process_cpu_s(self._process.pid)
        gc.collect()
        gc.disable()
        try:
            latencies_s = await self._client.send(options.rate, options.seconds)
        finally:
            gc.enable()
        taken_s = process_cpu_s(self._process.pid) - before_s
        if shadowed:
            self._count(self._process.counts(SAME))
        return Stretch(latencies_s=latencies_s, cpu_s=taken_s / (options.rate * options.seconds))

    def _count(self, counts: dict[str, Any]) -> None:
        self.copies.update(counts.pop("dropped"))
        self.copies.update(counts)


def pooled(pairs: Sequence[Pair], value: Value) -> float:
    """Return the ratio of a value over all stretches with the shadow to that over all without."""
    return value([b for _, b in pairs]) / value([a for a, _ in pairs])


def by_pair(pairs: Sequence[Pair], value: Value) -> float:
    """Return the geometric mean of the ratios within pairs."""
    return math.exp(np.mean([math.log(pooled([pair], value)) for pair in pairs]))


def bound(pairs: Sequence[Pair], value: Value) -> float:
    """Return the upper bound of the 95 % interval of the pooled ratio, from a bootstrap over pairs."""
    drawn = _drawn(len(pairs))
    return float(np.quantile([pooled([pairs[i] for i in indices], value) for indices in drawn], 0.975))


def bound_by_pair(pairs: Sequence[Pair], value: Value) -> float:
    """Return the upper bound of the 95 % interval of the ratio by pair, from a bootstrap over pairs."""
    logs = np.log([pooled([pair], value) for pair in pairs])
    return math.exp(np.quantile(logs[_drawn(len(pairs))].mean(axis=1), 0.975))


def _drawn(count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, count, (_RESAMPLES, count))


def quantile(share: float) -> Value:
    """Return what gives a quantile of the latencies of stretches together, in microseconds."""
    return lambda stretches: float(
        np.quantile(np.concatenate([s.latencies_s for s in stretches]), share) * 1e6
    )


def cpu_us(stretches: Sequence[Stretch]) -> float:
    """Return the CPU time of a request, in microseconds."""
    return float(np.mean([s.cpu_s for s in stretches]) * 1e6)


def report(pairs: Sequence[Pair], copies: Counter[str]) -> bool:
    """Print the table; return whether what was promised holds."""
    without, shadowed = [a for a, _ in pairs], [b for _, b in pairs]
    print(f"{len(pairs)} pairs, {sum(len(a.latencies_s) for a in without)} requests on either side; us")
    print(f"{'':14}{'without':>10}{'with':>10}{'ratio':>10}{'<= (95 %)':>12}")
    for name, value in {"p50": quantile(0.5), "p99": quantile(0.99), "CPU": cpu_us}.items():
        one, other = value(without), value(shadowed)
        print(f"{name:14}{one:10.1f}{other:10.1f}{other / one:10.3f}{bound(pairs, value):12.3f}")
    within, most = (make(pairs, quantile(0.99)) for make in (by_pair, bound_by_pair))
    print(f"{'p99 by pair':14}{'':20}{within:10.3f}{most:12.3f}")
    print("copies:", ", ".join(f"{count} {name}" for name, count in sorted(copies.items()) if count))
    ran = copies["compared"] >= LEAST_COMPARED * copies["mirrored"] > 0
    if not ran:
        print(f"fewer than {LEAST_COMPARED:.0%} of the copies ran: there was no capacity to spare")
    if most > MOST_P99_RATIO:
        print(f"the bound of the p99 ratio by pair is above {MOST_P99_RATIO}")
    return ran and most <= MOST_P99_RATIO


async def measure(options: argparse.Namespace) -> bool:
    """Start a gateway, measure, and report."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        # Connections that only a burst needs stay: closing them is not what is measured.
        config = settings(repository_of(directory, STABLE, SAME), http={"keep_alive_timeout_s": 3600})
        config["models"] = [{"name": MODEL, "versions": {"all": True}}]
        with ShadowedProcess(config, directory, core=_SERVER_CORE) as process:
            client = Client(process.http_port, seed=1)
            trial = Trial(process, client, options)
            pairs = await trial.pairs()
            client.close()
    return report(pairs, trial.copies)


def main() -> None:
    """Measure as told on the command line; exit with 1 if the promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.8, help="of each stretch")
    parser.add_argument("--rate", type=float, default=1000.0, help="requests per second")
    parser.add_argument("--sample-ppm", type=int, default=1_000_000)
    parser.add_argument("--headroom-ppm", type=int, default=500_000)
    parser.add_argument("--max-inflight", type=int, default=8)
    options = parser.parse_args()
    os.sched_setaffinity(0, {_CLIENT_CORE})
    sys.exit(0 if uvloop.run(measure(options)) else 1)


if __name__ == "__main__":
    main()
