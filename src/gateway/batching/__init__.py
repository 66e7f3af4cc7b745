"""Dynamic batching: a pure queue that decides, and an async shell that runs what it decided."""

from gateway.batching.batcher import Batcher, BatcherContext
from gateway.batching.scheduler import DeviceScheduler

__all__ = ["Batcher", "BatcherContext", "DeviceScheduler"]
