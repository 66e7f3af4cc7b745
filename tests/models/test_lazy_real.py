"""Real models, loaded by ONNX Runtime on first use under a budget for a third of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gateway.backends.onnxruntime.backend import OnnxRuntimeBackend
from gateway.backends.warm_up import warm_up
from gateway.batchers import Batchers
from gateway.core.clock import LoopClock
from gateway.core.options import ModelSpec
from gateway.core.types import Artifact, VersionState, VersionStatus
from gateway.models.desired import DesiredVersion, desired
from gateway.models.lazy import LazyModels
from gateway.models.manager import ManagerParts, ModelManager
from gateway.models.memory import MemoryBudget, MemoryOptions
from gateway.routing.cold_starts import ColdStarts
from gateway.routing.router import Router
from gateway.testing import infer_request
from loadtests.soak_lazy import WIDTH, lazy_model, lru_hits, name_of, zipf_trace
from tests.models.lazy_stage import Told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

MODELS = 40
FILES = 8
MODEL_BYTES = 2_000_000
ROOM = 12.5
REQUESTS = 200


class Peak:
    """A LifecycleObserver that looks at what is held with every transition, and at what each model took."""

    def __init__(self) -> None:
        self.held = 0
        self.costs: dict[str, int] = {}

    def watch(self, budget: MemoryBudget) -> None:
        self._budget = budget

    def on_transition(self, status: VersionStatus) -> None:
        self.held = max([self.held, *(device.held_bytes for device in self._budget.devices())])
        if status.state is VersionState.READY:
            self.costs[status.id.model] = status.memory_bytes

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        pass


@dataclass
class Running:
    """The parts that a test looks at."""

    router: Router
    told: Told
    peak: Peak
    limit: int


@asynccontextmanager
async def running(versions: Sequence[DesiredVersion], limit: int) -> AsyncIterator[Running]:
    clock, told, peak = LoopClock(), Told(), Peak()
    lazy = LazyModels(clock, observers=[told])
    budget = MemoryBudget(MemoryOptions(limits={"cpu": limit}), clock, lazy)
    peak.watch(budget)
    backend = OnnxRuntimeBackend()
    with ThreadPoolExecutor(1) as threads:
        parts = ManagerParts(
            backends={backend.name: backend},
            batcher_factory=Batchers(clock, threads, ()).make,
            clock=clock,
            warm_up=backend.counting(warm_up),
            observers=(budget, lazy, peak),
            budget=budget,
        )
        async with ModelManager(parts) as manager:
            cold = ColdStarts(Router(manager), lazy, clock)
            lazy.attach(manager, cold.changed)
            manager.apply("source", versions)
            yield Running(Router(manager, cold), told, peak, limit)


def files(directory: Path, count: int, nbytes: int) -> list[Artifact]:
    made = []
    for index in range(count):
        home = directory / str(index)
        home.mkdir()
        (home / "model.onnx").write_bytes(lazy_model(index, nbytes).SerializeToString())
        made.append(Artifact(home, home / "model.onnx", f"content {index}"))
    return made


async def ask(router: Router, index: int) -> float:
    row = np.ones((1, WIDTH), np.float32)
    response = await router.submit(infer_request(row, model=name_of(index)))
    return float(response.outputs[0].array[0, 0])


async def test_zipf_traffic_under_a_budget_is_served_as_by_a_textbook_cache(tmp_path: Path) -> None:
    """Every answer is right, the budget is held throughout, and a simulation of the trace hits as often."""
    artifacts = files(tmp_path, FILES, MODEL_BYTES)
    versions = [
        desired(1, artifacts[index % FILES], ModelSpec(name=name_of(index), lazy=True))
        for index in range(MODELS)
    ]
    trace = zipf_trace(MODELS, REQUESTS)
    async with running(versions, round(ROOM * MODEL_BYTES)) as served:
        for index in trace:
            assert abs(await ask(served.router, index) - WIDTH - index % FILES) < 0.1
    mean = sum(served.peak.costs.values()) // len(served.peak.costs)
    costs = {index: served.peak.costs.get(name_of(index), mean) for index in range(MODELS)}
    simulated = lru_hits(trace, costs, served.limit)
    assert all(loaded for _, _, loaded in served.told.cold_starts)
    assert served.peak.held <= served.limit
    hits = REQUESTS - len(served.told.cold_starts)
    assert abs(hits - simulated) <= 0.02 * REQUESTS
    assert 0.2 * REQUESTS < hits < 0.9 * REQUESTS
