"""Batchers as the composition root makes them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gateway.batchers import SLOTS_PER_ACCELERATOR, Batchers
from gateway.core.clock import LoopClock
from gateway.core.options import BatchingOptions, ModelSpec
from gateway.core.statistics import VersionStatistics
from gateway.core.types import Device, VersionId
from gateway.testing import FakeLoadedModel, infer_request, settle


@pytest.mark.parametrize("instances", [1, SLOTS_PER_ACCELERATOR + 3])
async def test_a_device_has_room_for_all_instances_of_a_model(instances: int) -> None:
    """A model that asks for more instances than a device has slots by default gets them."""
    model = FakeLoadedModel(held=True, instances=instances, device=Device("cuda", 0))
    spec = ModelSpec(name="fake", batching=BatchingOptions(enabled=False))
    with ThreadPoolExecutor(1) as threads:
        batchers = Batchers(LoopClock(), threads, ())
        batchers.make(
            VersionId("other", 1, ""), FakeLoadedModel(device=model.device), spec, VersionStatistics()
        )
        batcher = batchers.make(VersionId("fake", 1, ""), model, spec, VersionStatistics())
        ended = asyncio.Event()
        row = np.zeros((1, 1), np.float32)
        pendings = [batcher.submit(infer_request(row)) for _ in range(instances + 2)]
        pendings[-1].add_done_callback(lambda _: ended.set())
        await settle(10)
        assert model.running == instances
        model.release()
        await ended.wait()
        await batcher.aclose()
