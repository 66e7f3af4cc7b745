"""Measures how long the event loop is held up while models load, unload and run, and large bodies come in."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.soak_http import HttpConnection, fetch, request
from loadtests.soak_load import Target, under_load
from loadtests.soak_models import OFFSET, WIDTH, large_model, publish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from loadtests.soak_server import GatewayProcess

LARGE: Final = "large"
LARGE_BYTES: Final = 250_000_000
BODY_BYTES: Final = 1 << 20
_PROBE: Final = Path(__file__).with_name("soak_probe.py")
_LAG: Final = "gateway_loop_lag_seconds_bucket"


@dataclass(frozen=True, slots=True)
class Lag:
    """Delays in seconds.

    Attributes:
        samples: how many were measured.
        p999_s: 99.9 % are at or below; from a histogram, the upper bound of its bucket.
        max_s: the largest.
    """

    samples: int
    p999_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class LagReport:
    """Lag as the gateway measures it, as a client sees it, and of the machine; and how often a model came."""

    loop: Lag
    probe: Lag
    machine: Lag
    loads: int


def write_large_model(repository: Path) -> None:
    """Add the large model to a repository; it is loaded by explicit loads only."""
    publish(repository, LARGE, 1, large_model(LARGE_BYTES))


async def measure(server: GatewayProcess, duration_s: float) -> LagReport:
    """Load and unload the large model over and over for a while, under small and large requests.

    Args:
        server: in mode explicit, with the large model in its repository and not loaded.
        duration_s: how long, to the end of the load and unload then under way.
    """
    before = await _buckets(server)
    async with probing(server.http_port) as found:
        loads = await _busy(server, duration_s)
    after = await _buckets(server)
    counts = {bound: after[bound] - before[bound] for bound in after}
    maximum = (await _samples(server))["gateway_loop_lag_max_seconds"]
    return LagReport(
        loop=Lag(round(max(counts.values())), _quantile(counts, 0.999), maximum),
        probe=lag_of(found["latencies_s"]),
        machine=lag_of(found["naps_s"]),
        loads=loads,
    )


async def _busy(server: GatewayProcess, duration_s: float) -> int:
    loop = asyncio.get_running_loop()
    target = Target(server.http_port, server.grpc_port, http_clients=1, grpc_clients=1)
    end_s, loads = loop.time() + duration_s, 0
    async with under_load(target), asyncio.TaskGroup() as group:
        large = group.create_task(_large_bodies(server.http_port))
        while loop.time() < end_s:
            for verb in ("load", "unload"):
                answer = await fetch(server.http_port, "POST", f"/v2/repository/models/{LARGE}/{verb}")
                assert answer.status == 200, answer.body
            loads += 1
        large.cancel()
    return loads


async def _large_bodies(port: int) -> None:
    """Send bodies of 1 MiB, JSON and binary in turn; they are decoded, and refused as too large a batch."""
    rows = BODY_BYTES // (4 * WIDTH) - 64
    described = f'"name":"x","datatype":"FP32","shape":[{rows},{WIDTH}]'
    head = f'{{"inputs":[{{{described},"parameters":{{"binary_data_size":{rows * WIDTH * 4}}}}}]}}'.encode()
    few = BODY_BYTES // 12 // WIDTH  # twelve bytes a number
    numbers = ",".join(f"{x:.9f}" for x in np.random.default_rng(0).random(few * WIDTH))
    text = f'{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{few},{WIDTH}],"data":[{numbers}]}}]}}'
    path = f"/v2/models/{OFFSET}/infer"
    bodies = [
        request("POST", path, head + bytes(rows * WIDTH * 4), Inference_Header_Content_Length=str(len(head))),
        request("POST", path, text.encode()),
    ]
    async with HttpConnection(port) as connection:
        while True:
            for body in bodies:
                answer = await connection.exchange(body)
                assert answer.status in {200, 400}, answer.body
                await asyncio.sleep(0.05)  # a rate, not a flood: the loop is to be held up, not worn down


@asynccontextmanager
async def probing(port: int) -> AsyncIterator[dict[str, list[float]]]:
    """Run the probe beside the block; its measurements are in the dictionary afterwards."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(_PROBE), str(port), stdin=pipe, stdout=pipe
    )
    found: dict[str, list[float]] = {}
    try:
        yield found
        output, _ = await process.communicate(b"end\n")
        found.update(json.loads(output))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _samples(server: GatewayProcess) -> dict[str, float]:
    """Return the metrics page, sample by sample."""
    page = (await fetch(server.metrics_port, "GET", "/metrics")).body.decode()
    lines = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def _buckets(server: GatewayProcess) -> dict[float, float]:
    """Return the cumulative counts of the lag histogram by their bounds."""
    samples = await _samples(server)
    return {float(name.split('"')[1]): value for name, value in samples.items() if name.startswith(_LAG)}


def _quantile(counts: dict[float, float], share: float) -> float:
    """Return the bound of the bucket in which the quantile lies."""
    total = max(counts.values())
    return min(bound for bound, count in counts.items() if count >= share * total)


def lag_of(values: Sequence[float]) -> Lag:
    """Return what delays come to."""
    array: np.ndarray[Any, np.dtype[np.float64]] = np.asarray(values)
    return Lag(len(values), float(np.quantile(array, 0.999)), float(array.max()))
