"""Mixed load over models of this process and of a Triton fleet whose endpoints get into trouble at random."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadtests import triton_scene as scene
from loadtests.metrics_page import parse_page, quantile
from loadtests.soak_http import fetch
from loadtests.soak_models import OFFSET, offset_model, publish
from loadtests.soak_table import Row, bytes_row
from loadtests.triton_clients import GrpcLoad, HttpLoad, OpenLoad, failed, reasons
from loadtests.triton_troubles import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadtests.triton_clients import Answer
    from loadtests.triton_scene import Endpoint, FleetGateway

SECONDS: Final = 1800.0
LEAST_SECONDS: Final = 20.0
REMOTE: Final = "remote"
"""The fleet's model, under a name of its own beside this process's."""

MOST_ERRORS: Final = 0.005
MOST_GROWTH_BYTES: Final = 8 << 20
LAG_P999_S: Final = 0.005
RIGHT_ERRORS: Final = (
    "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL",
    "HTTP 503", "HTTP 504", "HTTP 429", "HTTP 500",
)  # fmt: skip
"""What may be said of a fleet's model: it failed, or was not there or not in time."""

KEEP_ALIVE_S: Final = 7200
_WARM_SHARE: Final = 0.25
_DEADLINE_S: Final = 1.0
_HEALTHY_WITHIN_S: Final = 60.0


@dataclass(slots=True)
class Report:
    """What a soak came to.

    Attributes:
        remote: answers of the fleet's model.
        local: answers of this process's model.
        unanswered: requests without one.
        faults: how often each fault was there.
        rss_bytes: once a second, the warm-up left out.
        lag: upper bound in seconds -> measurements of the loop's lag, the warm-up left out.
        lost: endpoints that were not used again in time, with their fault.
    """

    remote: list[Answer] = field(default_factory=list)
    local: list[Answer] = field(default_factory=list)
    unanswered: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    rss_bytes: list[int] = field(default_factory=list)
    lag: Mapping[float, float] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    @property
    def growth_bytes(self) -> int:
        """Of resident memory, from the first fifth of the samples to the last."""
        fifth = max(1, len(self.rss_bytes) // 5)
        return round(statistics.median(self.rss_bytes[-fifth:]) - statistics.median(self.rss_bytes[:fifth]))


class _Troubles:
    """Gets one endpoint after the other into trouble and out of it."""

    def __init__(self, process: FleetGateway, fleet: Sequence[Endpoint], seed: int) -> None:
        self._process = process
        self._fleet = fleet
        self._random = random.Random(seed)

    async def run(self, report: Report, stop: asyncio.Event) -> None:
        """Go on until told to stop; every endpoint is well again then."""
        while not stop.is_set():
            fault, endpoint = self._random.choice(list(FAULTS)), self._random.choice(self._fleet)
            heal = await asyncio.to_thread(FAULTS[fault], endpoint)
            report.faults[fault] += 1
            await _rest(stop, self._random.uniform(1, 8))
            await asyncio.to_thread(heal)
            if not await self._well(endpoint):
                report.lost.append(f"{fault}: {await self._process.shown(endpoint)}")
                return
            await _rest(stop, self._random.uniform(1, 4))

    async def _well(self, endpoint: Endpoint) -> bool:
        loop = asyncio.get_running_loop()
        hopeless_s = loop.time() + _HEALTHY_WITHIN_S
        while not await self._process.in_use(endpoint):
            if loop.time() > hopeless_s:
                return False
            await asyncio.sleep(0.2)
        return True


async def soak(process: FleetGateway, fleet: Sequence[Endpoint], seconds: float, seed: int) -> Report:
    """Send requests to both models for a while, with troubles; return what became of them."""
    report, stop = Report(), asyncio.Event()
    remote: list[OpenLoad] = [
        GrpcLoad(process.grpc_port, rate=80, deadline_s=_DEADLINE_S, model=REMOTE, seed=seed),
        HttpLoad(process.http_port, rate=40, model=REMOTE, seed=seed + 1),
    ]
    local: list[OpenLoad] = [
        GrpcLoad(process.grpc_port, rate=80, deadline_s=_DEADLINE_S, seed=seed + 2),
        HttpLoad(process.http_port, rate=40, seed=seed + 3),
    ]
    async with asyncio.TaskGroup() as group:
        for load in (*remote, *local):
            group.create_task(load.run(stop))
        troubles = group.create_task(_Troubles(process, fleet, seed).run(report, stop))
        try:
            await asyncio.sleep(seconds * _WARM_SHARE)
            before = await _lag(process)
            await _sampled(process, report, seconds * (1 - _WARM_SHARE))
            after = await _lag(process)
        finally:
            stop.set()
        await troubles
    report.lag = {bound: count - before[bound] for bound, count in after.items()}
    for load in (*remote, *local):
        (report.remote if load in remote else report.local).extend(load.answers.got)
        report.unanswered += load.answers.sent - len(load.answers.got)
    return report


async def _rest(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


async def _sampled(process: FleetGateway, report: Report, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds
    while loop.time() < end_s:
        report.rss_bytes.append(process.usage().rss_bytes)
        await asyncio.sleep(1)


async def _lag(process: FleetGateway) -> Mapping[float, float]:
    page = await fetch(process.metrics_port, "GET", "/metrics")
    return parse_page(page.body.decode(), REMOTE).lag


def run_soak(seconds: float, seed: int = 1) -> Report:
    """Start three endpoints and a gateway with both kinds of models, and soak them."""
    with scene.endpoints(3) as fleet, tempfile.TemporaryDirectory() as name:
        repository = Path(name) / "repository"
        for version in scene.VERSIONS:
            publish(repository, OFFSET, version, offset_model(version))
        more = {
            # A connection that only a burst needs stays till the end: it is not closed as a request comes.
            "server": {"ports": scene.ANY_PORTS, "http": {"keep_alive_timeout_s": KEEP_ALIVE_S}},
            "repository": {"path": str(repository), "mode": "none"},
            "models": [
                {"name": OFFSET, "versions": {"all": True}},
                {"name": REMOTE, "backend": "triton", "triton": {"model": OFFSET}},
            ],
        }
        with scene.gateway(fleet, options={"serve": []}, more=more) as process:
            return asyncio.run(soak(process, fleet, seconds, seed))


def rows(report: Report, seconds: float) -> Iterator[Row]:
    """Yield the rows of a report."""
    both = [*report.remote, *report.local]
    count = f"{len(both)} requests, {seconds:.0f} s"
    bad = [a for a in both if a.wrong or (a.error and not a.error.startswith(RIGHT_ERRORS))]
    missed = len(bad) + report.unanswered
    said = f"{report.faults.total()} faults, {sum(not a.error for a in both)} right"
    yield Row(
        "triton, answers",
        count,
        said,
        f"{missed} wrong or none",
        "0",
        ok=not missed and not report.lost,
        why=[*reasons(bad), *report.lost],
    )
    errors, limit = failed(report.remote), f"{MOST_ERRORS:.1%}"
    share = errors / max(1, len(report.remote))
    said = f"of {len(report.remote)} to the fleet"
    yield Row(
        "triton, errors", count, said, f"{errors} ({share:.2%})", limit,
        ok=share <= MOST_ERRORS, why=reasons(report.remote),
    )  # fmt: skip
    own = failed(report.local)
    said = f"of {len(report.local)} to this process"
    yield Row("triton, beside", count, said, f"{own} errors", "0", ok=not own, why=reasons(report.local))
    yield bytes_row("triton, memory", count, report.growth_bytes, MOST_GROWTH_BYTES)
    p999_s, most = quantile(report.lag, 0.999), f"{LAG_P999_S * 1e3:.0f} ms"
    samples = f"{max(report.lag.values()):.0f} samples"
    yield Row("triton, loop lag", samples, "p99.9", f"{p999_s * 1e3:.1f} ms", most, ok=p999_s <= LAG_P999_S)


def troubled_fleet(fraction: float) -> Iterator[Row]:
    """Half an hour of load over both backends, with faults of random endpoints."""
    seconds = max(LEAST_SECONDS, SECONDS * fraction)
    yield from rows(run_soak(seconds), seconds)
