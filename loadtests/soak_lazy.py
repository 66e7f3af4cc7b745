"""Hundreds of lazy models under a memory budget: Zipf traffic, beside a simulated cache on the same trace."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import tempfile
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families

from loadtests.metrics_page import quantile
from loadtests.served import metrics_text
from loadtests.soak_http import HttpConnection
from loadtests.soak_lag import Lag, lag_of, probing
from loadtests.soak_load import http_infer
from loadtests.soak_models import publish
from loadtests.soak_server import GatewayProcess, settings
from loadtests.soak_table import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx

    from loadtests.soak_http import HttpAnswer

MODELS: Final = 300
MODEL_BYTES: Final = 5_000_000
BUDGET_BYTES: Final = 500_000_000
REQUESTS: Final = 6000
EXPONENT: Final = 1.0
CLIENTS: Final = 4
HIT_RATE_POINTS: Final = 2.0
COLD_P99_S: Final = 5.0
LAG_P999_S: Final = 0.005
WIDTH: Final = 4
_PAGE_EVERY: Final = 100
_OPSET: Final = 17
_IR_VERSION: Final = 8


def zipf_trace(models: int, requests: int, exponent: float = EXPONENT, seed: int = 0) -> list[int]:
    """Return which model each request is for: the one of rank r as often as 1 / r ** exponent says."""
    chance = random.Random(seed)
    ranks = list(range(models))
    chance.shuffle(ranks)
    weights = list(accumulate(1 / (rank + 1) ** exponent for rank in range(models)))
    return chance.choices(ranks, cum_weights=weights, k=requests)


def lru_hits(trace: Sequence[int], costs: Mapping[int, int], limit: int) -> int:
    """Return how many requests of a trace a least-recently-used cache of `limit` bytes has the model for."""
    cache: OrderedDict[int, int] = OrderedDict()
    held = hits = 0
    for model in trace:
        if model in cache:
            hits += 1
            cache.move_to_end(model)
            continue
        while cache and held + costs[model] > limit:
            held -= cache.popitem(last=False)[1]
        cache[model] = costs[model]
        held += costs[model]
    return hits


def lazy_model(index: int, size_bytes: int) -> onnx.ModelProto:
    """Build FP32 `x` `[batch, 4]` -> `y` `[batch, 1]`: the sum of a row, plus `index`."""
    side = max(1, math.isqrt(size_bytes // 4))  # square, so that a run takes little beside the weights
    constants = [
        numpy_helper.from_array(np.ones((WIDTH, side), np.float32), "v"),
        numpy_helper.from_array(np.full((side, side), 1 / side, np.float32), "w"),
        numpy_helper.from_array(np.array([index], np.float32), "index"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["g"]),
        helper.make_node("MatMul", ["g", "w"], ["h"]),
        helper.make_node("ReduceMean", ["h"], ["m"], axes=[1], keepdims=1),
        helper.make_node("Add", ["m", "index"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in (("x", WIDTH), ("y", 1))
    ]
    graph = helper.make_graph(nodes, "lazy", ends[:1], ends[1:], constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="soak"
    )


def name_of(index: int) -> str:
    """Return the name of a model."""
    return f"lazy{index:03d}"


@dataclass
class LazyReport:
    """What became of a trace.

    Attributes:
        sent: requests.
        problems: answers that were wrong or none.
        seconds: latency of each request.
        starts: loads that requests began, by the gateway's metrics: the misses of a cache.
        waits: requests that waited for a load, begun by themselves or by others.
        peak_held: most bytes that models held at any look at the metrics.
        costs: bytes that each model held when it was looked at.
        peak_rss: most resident memory more than before the first request.
        lag: bound in seconds -> measurements of the event loop's lag at or below it, since the first request.
        naps: by how much naps of another process on the same machine came out too long, meanwhile.
    """

    sent: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    starts: int = 0
    waits: int = 0
    peak_held: int = 0
    costs: dict[int, int] = field(default_factory=dict)
    peak_rss: int = 0
    lag: Mapping[float, float] = field(default_factory=dict)
    naps: Lag = field(default_factory=lambda: Lag(0, 0.0, 0.0))

    @property
    def hit_rate(self) -> float:
        """Share of the requests that began no load.

        A simulated cache has a model as soon as it is asked for. So what counts against it is the loads that
        requests began; one that joins a load under way waits as well (`waits` tells), and is no miss.
        """
        return 1 - self.starts / max(1, self.sent)

    @property
    def at_once_rate(self) -> float:
        """Share of the requests that found their model loaded."""
        return 1 - self.waits / max(1, self.sent)

    def cold_s(self, share: float) -> float:
        """Return a quantile of the latencies of requests that waited: of as many of the slowest as did."""
        slowest = sorted(self.seconds)[-self.waits :] if self.waits else [0.0]
        return slowest[min(len(slowest) - 1, int(share * len(slowest)))]


async def replay(server: GatewayProcess, trace: Sequence[int], clients: int = CLIENTS) -> LazyReport:
    """Send one request for each entry of a trace, in order, by clients that each wait for their answers."""
    report = LazyReport()
    lag_before = await _look(server, report)
    before = server.usage().rss_bytes
    server.reset_peak()
    entries = iter(trace)
    async with probing(server.http_port) as found, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(_client(server, entries, report))
    lag = await _look(server, report)
    report.lag = {bound: count - lag_before[bound] for bound, count in lag.items()}
    report.naps = lag_of(found["naps_s"])
    report.peak_rss = server.usage().peak_bytes - before
    return report


async def _client(server: GatewayProcess, entries: Iterator[int], report: LazyReport) -> None:
    async with HttpConnection(server.http_port) as connection:
        for index in entries:
            request = http_infer((1.0,) * WIDTH, name_of(index))
            began_s = time.perf_counter()
            answer = await connection.exchange(request)
            report.seconds.append(time.perf_counter() - began_s)
            report.sent += 1
            if answer.status != 200 or not np.isclose(_value(answer), WIDTH + index, atol=0.1):
                report.problems.append(f"{name_of(index)}: {answer.status} {answer.body[:300]!r}")
            if report.sent % _PAGE_EVERY == 0:
                await _look(server, report)


def _value(answer: HttpAnswer) -> float:
    return float(np.frombuffer(answer.body[-4:], np.float32)[0])


async def _look(server: GatewayProcess, report: LazyReport) -> Mapping[float, float]:
    """Read the metrics page; return how often the event loop lagged no more than each bound."""
    lag: dict[float, float] = {}
    text = await asyncio.to_thread(metrics_text, f"http://127.0.0.1:{server.metrics_port}/metrics")
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
            if sample.name == "gateway_loop_lag_seconds_bucket":
                lag[float(sample.labels["le"])] = sample.value
            if sample.name == "gateway_model_memory_bytes" and sample.value:
                report.costs[int(sample.labels["model"].removeprefix("lazy") or 0)] = int(sample.value)
    report.starts = int(totals.get("gateway_lazy_cold_starts_total", 0))
    report.waits = int(totals.get("gateway_lazy_waits_total", 0))
    report.peak_held = max(report.peak_held, int(totals["gateway_memory_held_bytes"]))
    return lag


def run_lazy(models: int, requests: int, model_bytes: int, budget_bytes: int) -> tuple[LazyReport, float]:
    """Replay a trace on a gateway of its own; return what became of it, and the hit rate of a simulation.

    The simulated cache knows what each model holds, on average where it was never seen loaded.
    """
    directory = Path(tempfile.mkdtemp())
    try:
        repository = directory / "repository"
        for index in range(models):
            publish(repository, name_of(index), 1, lazy_model(index, model_bytes))
        config = settings(repository)
        config["defaults"] = {"lazy": True}
        config["memory"] = {"limits": {"cpu": budget_bytes}}
        trace = zipf_trace(models, requests)
        with GatewayProcess(config, directory) as server:
            report = asyncio.run(replay(server, trace))
    finally:
        shutil.rmtree(directory)
    mean = sum(report.costs.values()) // max(1, len(report.costs))
    costs = {index: report.costs.get(index, mean) for index in range(models)}
    return report, lru_hits(trace, costs, budget_bytes) / requests


def lazy(fraction: float) -> Iterator[Row]:
    """Ask hundreds of lazy models under a budget for a part of them."""
    models, requests = math.ceil(MODELS * fraction), math.ceil(REQUESTS * fraction)
    budget = math.ceil(BUDGET_BYTES * fraction)
    report, simulated = run_lazy(models, requests, MODEL_BYTES, budget)
    count = f"{report.sent} requests"
    bad = len(report.problems)
    said = f"{models} models, {report.starts} loads"
    yield Row("lazy, answers", count, said, f"{bad} failed", "0", ok=not bad, why=report.problems[:5])
    held = f"{report.peak_held / 1e6:.0f} MB"
    said = f"resident memory +{report.peak_rss / 1e6:.0f} MB"
    limit = f"{budget / 1e6:.0f} MB"
    yield Row("lazy, memory held", count, said, held, limit, ok=report.peak_held <= budget)
    yield _hit_row(report, simulated * 100)
    yield _cold_row(report)
    yield _lag_row(report)


def _hit_row(report: LazyReport, simulated: float) -> Row:
    rate, at_once = report.hit_rate * 100, report.at_once_rate * 100
    count = f"{report.starts} loads begun"
    said = f"simulated LRU {simulated:.1f} %; {at_once:.1f} % waited for no load, own or other"
    limit = f"within {HIT_RATE_POINTS:g} points"
    ok = abs(rate - simulated) <= HIT_RATE_POINTS
    return Row("lazy, hit rate", count, said, f"{rate:.1f} %", limit, ok=ok)


def _cold_row(report: LazyReport) -> Row:
    cold_s, said = report.cold_s(0.99), f"p50 {report.cold_s(0.5):.2f} s"
    count, limit = f"{report.waits} waits", f"{COLD_P99_S:.0f} s"
    return Row("lazy, cold start p99", count, said, f"{cold_s:.2f} s", limit, ok=cold_s <= COLD_P99_S)


def _lag_row(report: LazyReport) -> Row:
    """Return the row of the loop's lag; it cannot be less than what the machine lets anybody wait."""
    bounds = sorted(report.lag)
    machine_s = next(bound for bound in bounds if bound >= min(report.naps.p999_s, bounds[-1]))
    lag_s, most_s = quantile(report.lag, 0.999), max(LAG_P999_S, machine_s)
    under = share_within(report.lag, LAG_P999_S) * 100
    said = f"{under:.2f} % within 5 ms; naps of another process {report.naps.p999_s * 1e3:.1f} ms late"
    count, figure = f"{max(report.lag.values()):.0f} samples", f"<= {lag_s * 1e3:g} ms"
    return Row("lazy, loop lag p99.9", count, said, figure, f"{most_s * 1e3:g} ms", ok=lag_s <= most_s)


def share_within(cumulative: Mapping[float, float], bound: float) -> float:
    """Return the share of the measurements that lie at or below a bound."""
    return cumulative[bound] / max(1.0, *cumulative.values())
