"""A manager with lazy models, a memory budget and a router over fakes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.core.types import InferResponse
from gateway.models.lazy import LazyModels, LazyOptions
from gateway.models.memory import MemoryBudget, MemoryOptions
from gateway.routing.cold_starts import ColdStartOptions, ColdStarts
from gateway.routing.router import Router
from gateway.testing import FakeLoadedModel, infer_request, settle
from tests.models.stage import FakeBatcher, Stage, wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.core.interfaces import LoadedModel
    from gateway.core.options import LoadOptions, ModelSpec
    from gateway.core.pending import Pending
    from gateway.core.statistics import VersionStatistics
    from gateway.core.types import Artifact, VersionId
    from gateway.models.desired import DesiredVersion
    from gateway.models.manager import ModelManager

MB = 10**6


@dataclass
class Told:
    """A LazyObserver that keeps what it was told."""

    cold_starts: list[tuple[str, float, bool]] = field(default_factory=list)
    evictions: list[tuple[str, str]] = field(default_factory=list)

    def on_cold_start(self, model: str, seconds: float, *, loaded: bool) -> None:
        self.cold_starts.append((model, seconds, loaded))

    def on_evicted(self, model: str, why: str) -> None:
        self.evictions.append((model, why))


class CountingBatcher(FakeBatcher):
    """A FakeBatcher that keeps its version's statistics when it answers."""

    def __init__(self, version: VersionId, model: LoadedModel, statistics: VersionStatistics) -> None:
        super().__init__(version, model)
        self.statistics = statistics

    def answer(self, now_s: float) -> None:
        """Complete what it holds, as of a time in seconds of the wall clock."""
        for pending in self.pendings:
            if not pending.done:
                self.statistics.last_inference_ms = round(now_s * 1000)
                self.statistics.success.add(0)
                answer = InferResponse(model_name="m", model_version=str(self.version.number), outputs=())
                pending.complete(answer)


@dataclass
class LazyStage(Stage):
    """Everything a test of lazy loading may steer or look at; set the options before `running`.

    Attributes:
        sizes: artifact digest -> bytes that its model holds; 10 MB unless said.
        queues: the batchers made, in order.
    """

    queues: list[CountingBatcher] = field(default_factory=list)

    sizes: dict[str, int] = field(default_factory=dict)
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    lazy_options: LazyOptions = field(default_factory=LazyOptions)
    cold_options: ColdStartOptions = field(default_factory=ColdStartOptions)
    told: Told = field(default_factory=Told)

    def __post_init__(self) -> None:
        self.backend.make = self.model
        self.lazy = LazyModels(self.clock, self.lazy_options, [self.told], wall_s=self.clock.now_s)
        self.budget = MemoryBudget(self.memory, self.clock, self.lazy)

    def batcher(
        self, version: VersionId, model: LoadedModel, spec: ModelSpec, statistics: VersionStatistics
    ) -> CountingBatcher:
        del spec
        self.queues.append(CountingBatcher(version, model, statistics))
        return self.queues[-1]

    def model(self, artifact: Artifact, options: LoadOptions) -> FakeLoadedModel:
        del options
        return FakeLoadedModel(memory_bytes=self.sizes.get(artifact.digest, 10 * MB))

    @asynccontextmanager
    async def running(self, *versions: DesiredVersion) -> AsyncIterator[ModelManager]:
        observers = (self.observer, self.budget, self.lazy)
        async with self.manager(observers=observers, budget=self.budget) as manager:
            self.cold = ColdStarts(Router(manager), self.lazy, self.clock, self.cold_options)
            self.router = Router(manager, self.cold)
            self.lazy.attach(manager, self.cold.changed)
            manager.apply("source", versions)
            yield manager

    def ask(self, model: str, **fields: Any) -> Pending:
        """Submit a request of 16 bytes."""
        return self.router.submit(infer_request(np.zeros((4, 1), np.float32), model=model, **fields))

    async def until(self, happened: Callable[[], bool]) -> None:
        """Let the event loop run until something has happened."""
        while not happened():
            await settle(1)

    def answer(self) -> None:
        """Complete whatever the batchers hold, as their models' statistics would show it."""
        for queue in self.queues:
            queue.answer(self.clock.now_s())


def sleeper(model: str, number: int = 1, digest: str = "d", **spec: object) -> DesiredVersion:
    """Return a lazy version."""
    return wanted(model, number, digest, lazy=True, **spec)
