"""A batcher with everything around it faked, for the tests of this folder."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.batching import Batcher, BatcherContext, DeviceScheduler
from gateway.core.options import BatchingOptions, ModelSpec
from gateway.core.statistics import VersionStatistics
from gateway.core.types import CPU, Array, InferRequest, InferResponse, VersionId
from gateway.testing import FakeLoadedModel, RecordingObserver, VirtualClock, infer_request

if TYPE_CHECKING:
    from gateway.core.interfaces import BatchObserver


class CountingThreads(ThreadPoolExecutor):
    """Threads that know how much work they were given."""

    calls = 0

    def submit(self, *call: Any, **named: Any) -> Future[Any]:
        self.calls += 1
        return super().submit(*call, **named)


VERSION = VersionId("fake", 3, "digest")


@dataclass
class Harness:
    """The parts around one batcher; `batcher` is made on first use."""

    model: FakeLoadedModel = field(default_factory=FakeLoadedModel)
    options: BatchingOptions = field(default_factory=BatchingOptions)
    clock: VirtualClock = field(default_factory=VirtualClock)
    statistics: VersionStatistics = field(default_factory=VersionStatistics)
    observer: RecordingObserver = field(default_factory=RecordingObserver)
    scheduler: DeviceScheduler = field(default_factory=lambda: DeviceScheduler(CPU, 8))
    observers: tuple[BatchObserver, ...] = ()
    threads: CountingThreads = field(default_factory=lambda: CountingThreads(1))

    def __post_init__(self) -> None:
        context = BatcherContext(self.scheduler, self.clock, self.threads, (*self.observers, self.observer))
        spec = ModelSpec(name="fake", batching=self.options)
        self.batcher = Batcher(VERSION, self.model, spec, self.statistics, context)

    def batch_rows(self) -> list[int]:
        """Rows of each batch the model was given."""
        return [batch.rows for batch in self.model.batches]


def rows(*tags: float) -> Array:
    """An input of one feature with a row for each tag."""
    return np.array(tags, np.float32).reshape(-1, 1)


def request(*tags: float, **fields: Any) -> InferRequest:
    """A request with a row for each tag."""
    return infer_request(rows(*tags), **fields)


def tags_of(response: InferResponse) -> list[float]:
    """The tags that came back in a response."""
    tags: list[float] = response.outputs[0].array.ravel().tolist()
    return tags
