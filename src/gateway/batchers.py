"""The batchers of a running gateway: one scheduler per device, and who looks at their queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.backends.onnxruntime.cpus import usable_cpus
from gateway.batching.batcher import Batcher, BatcherContext
from gateway.batching.scheduler import DeviceScheduler
from gateway.telemetry.server_metrics import QueueView

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Executor

    from gateway.core.clock import LoopClock
    from gateway.core.interfaces import BatchObserver, LoadedModel
    from gateway.core.options import ModelSpec
    from gateway.core.statistics import VersionStatistics
    from gateway.core.types import Device, VersionId

SLOTS_OF_FLEETS: Final = 1 << 30
SLOTS_PER_ACCELERATOR: Final = 2
"""Runs under way at once on one accelerator: one computes while the next one's inputs are copied."""


class Batchers:
    """Makes batchers, one scheduler per device, remembers those open for whoever looks at queues."""

    def __init__(self, clock: LoopClock, threads: Executor, observers: Sequence[BatchObserver]) -> None:
        self._clock = clock
        self._threads = threads
        self._observers = observers
        self._schedulers: dict[Device, DeviceScheduler] = {}
        self._live: dict[Batcher, tuple[VersionId, Device]] = {}

    def make(
        self, version: VersionId, model: LoadedModel, spec: ModelSpec, statistics: VersionStatistics
    ) -> Batcher:
        """Make a batcher; a `BatcherFactory`."""
        scheduler = self._scheduler(model)
        context = BatcherContext(scheduler, self._clock, self._threads, self._observers, self._closed)
        batcher = Batcher(version, model, spec, statistics, context)
        self._live[batcher] = (version, model.device)
        return batcher

    def slots_of(self, device: Device) -> DeviceScheduler | None:
        """Return a device's scheduler; None while nothing runs there."""
        return self._schedulers.get(device)

    def _closed(self, batcher: Batcher) -> None:
        self._live.pop(batcher, None)

    def queues(self) -> Iterator[QueueView]:
        """Give every batcher that is not closed, with what it serves."""
        for batcher, (version, device) in list(self._live.items()):
            yield QueueView(version, device, batcher)

    def _scheduler(self, model: LoadedModel) -> DeviceScheduler:
        """Return the scheduler of a model's device, with room for all the instances that it asks for.

        A fleet limits and shares out what is under way there itself: nothing waits for its turn here.
        """
        device = model.device
        if device not in self._schedulers:
            slots = usable_cpus() if device.kind == "cpu" else SLOTS_PER_ACCELERATOR
            self._schedulers[device] = DeviceScheduler(device, SLOTS_OF_FLEETS if model.remote else slots)
        scheduler = self._schedulers[device]
        scheduler.slots = max(scheduler.slots, model.instances)
        return scheduler
