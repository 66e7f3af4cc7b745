"""Tensors through shared memory, with a fake Triton that maps it."""

from __future__ import annotations

import asyncio
import mmap
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from gateway.backends.triton.segments import PREFIX
from gateway.core.errors import BackendError, BackendUnavailable, DeadlineExceeded
from gateway.core.types import Batch
from tests.backends.triton.fake import Failure, FakeTriton, model
from tests.backends.triton.fleets import fleet_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway._proto import open_inference_pb2 as pb
    from gateway.backends.triton.model import TritonModel
    from gateway.backends.triton.shared_memory import Regions

COLUMNS = 80_000


def batch(rows: int = 1, start: float = 0.0, **fields: Any) -> Batch:
    x = np.arange(COLUMNS * rows, dtype=np.float32).reshape(rows, COLUMNS) + np.float32(start)
    return Batch({"x": x}, rows, ("y",), **fields)


def segments() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob(f"{PREFIX}*")}


def through_memory(fake: FakeTriton) -> list[bool]:
    return ["shared_memory_region" in seen.request.inputs[0].parameters for seen in fake.seen]


def region_of(request: pb.ModelInferRequest) -> str:
    return request.inputs[0].parameters["shared_memory_region"].string_param


class Shared:
    def __init__(self, fake: FakeTriton, model: TritonModel, regions: Regions) -> None:
        self.fake = fake
        self.model = model
        self.regions = regions


@asynccontextmanager
async def shared(dims: int = COLUMNS, *, allowed: bool = True, **options: Any) -> AsyncIterator[Shared]:
    before = segments()
    async with FakeTriton({"m": model(1, dims=(dims,), max_batch_size=64)}, shares_memory=allowed) as fake:
        async with fleet_of(fake.address, **options) as scene:
            regions = scene.fleet.fleet.connection(fake.address).regions
            assert regions is not None
            yield Shared(fake, await scene.load(), regions)
        assert not fake.regions, "regions were left registered"
    assert segments() <= before, "segments were left behind"


async def test_large_tensors_travel_in_shared_memory_both_ways() -> None:
    """In one region, which is used again; results are copies."""
    async with shared() as scene:
        results = [await scene.model.infer(batch(start=start)) for start in range(4)]
        for start, result in enumerate(results):
            np.testing.assert_array_equal(result.outputs["y"], batch(start=start).inputs["x"])
            assert not result.outputs["y"].flags.writeable
        assert through_memory(scene.fake) == [True] * 4
        assert [list(seen.request.raw_input_contents) for seen in scene.fake.seen] == [[]] * 4
        assert len(scene.fake.regions) == 1


async def test_outputs_of_unknown_size_come_over_grpc() -> None:
    """Their size is known only when they are there."""
    async with shared(-1) as scene:
        result = await scene.model.infer(batch())
        np.testing.assert_array_equal(result.outputs["y"], batch().inputs["x"])
        assert not scene.fake.seen[0].request.outputs[0].parameters


async def test_megabytes_are_copied_off_the_event_loop() -> None:
    """With the same result."""
    async with shared() as scene:
        given = batch(40)
        np.testing.assert_array_equal((await scene.model.infer(given)).outputs["y"], given.inputs["x"])


async def test_small_tensors_go_over_grpc() -> None:
    """There is nothing to be gained."""
    async with shared(2) as scene:
        x = np.zeros((1, 2), np.float32)
        await scene.model.infer(Batch({"x": x}, 1, ("y",)))
        assert through_memory(scene.fake) == [False]
        assert "SystemSharedMemoryRegister" not in scene.fake.asked


async def test_requests_at_once_have_a_region_each() -> None:
    """What finds none goes over gRPC, with the same answer."""
    async with shared() as scene:
        results = await asyncio.gather(*(scene.model.infer(batch(start=n)) for n in range(24)))
        for n, result in enumerate(results):
            np.testing.assert_array_equal(result.outputs["y"], batch(start=n).inputs["x"])
        assert len(scene.fake.regions) <= 16


async def test_a_refusal_is_for_good() -> None:
    """An endpoint that allows no shared memory is asked once."""
    async with shared(allowed=False) as scene:
        for start in range(3):
            result = await scene.model.infer(batch(start=start))
            np.testing.assert_array_equal(result.outputs["y"], batch(start=start).inputs["x"])
        assert scene.fake.asked.count("SystemSharedMemoryRegister") == 1
        assert "disabled" in scene.regions.off


async def test_it_can_be_turned_off() -> None:
    """By the model's options."""
    async with FakeTriton({"m": model(1, dims=(COLUMNS,))}, shares_memory=True) as fake:
        async with fleet_of(fake.address) as scene:
            await (await scene.load(shared_memory="off")).infer(batch())
        assert through_memory(fake) == [False]


async def test_after_a_restart_regions_are_registered_anew() -> None:
    """The request that found out is answered over gRPC."""
    async with shared() as scene:
        await asyncio.gather(*(scene.model.infer(batch(start=start)) for start in range(8)))
        registered = len(scene.fake.regions)
        for _ in range(8):
            if registered > 1:
                break
            await asyncio.gather(*(scene.model.infer(batch(start=start)) for start in range(8)))
            registered = len(scene.fake.regions)
        assert registered > 1
        scene.fake.regions.clear()
        scene.fake.seen.clear()
        for start in range(3):
            result = await scene.model.infer(batch(start=start))
            np.testing.assert_array_equal(result.outputs["y"], batch(start=start).inputs["x"])
        assert through_memory(scene.fake) == [True, False, True, True]
        assert not scene.regions.off


async def test_memory_that_is_not_the_same_is_found_out() -> None:
    """Where a result is expected a mark has to be gone."""

    def elsewhere(request: pb.ModelInferRequest) -> None:
        key, _ = next(iter(scene.fake.regions.values()))
        for name in scene.fake.regions:
            scene.fake.regions[name] = (key, mmap.mmap(-1, 1 << 21))

    async with shared() as scene:
        scene.fake.models["m"].behave = elsewhere
        result = await scene.model.infer(batch())
        np.testing.assert_array_equal(result.outputs["y"], batch().inputs["x"])
        assert "not in the shared memory" in scene.regions.off
        assert through_memory(scene.fake) == [True, False]


async def test_a_region_is_free_only_when_its_call_has_ended() -> None:
    """A caller that goes away, or is late, does not end it."""
    async with shared(deadline_margin_s=2.0) as scene:
        await scene.model.infer(batch())
        release, begun = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            begun.set()
            await release.wait()

        scene.fake.models["m"].behave = lambda _: wait()
        gone = asyncio.ensure_future(scene.model.infer(batch(start=1)))
        await begun.wait()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        with pytest.raises(DeadlineExceeded):
            await scene.model.infer(batch(start=2, deadline_s=time.monotonic() + 2.2))
        scene.fake.models["m"].behave = None
        np.testing.assert_array_equal(
            (await scene.model.infer(batch(start=3))).outputs["y"], batch(start=3).inputs["x"]
        )
        used = [
            seen.request.inputs[0].parameters["shared_memory_region"].string_param for seen in scene.fake.seen
        ]
        assert len(set(used[1:])) == 3, "a region was used again while its call ran"
        assert not any(seen.cancelled.is_set() for seen in scene.fake.seen)
        release.set()
        await scene.regions.ended()
        await scene.model.infer(batch(start=4))
        assert len(scene.fake.regions) == 3


async def test_a_region_of_a_lost_call_is_never_used_again() -> None:
    """Nobody knows what still writes to it."""
    lost = Failure(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    async with shared() as scene:
        scene.fake.failures["ModelInfer"] = lost
        with pytest.raises(BackendUnavailable):
            await scene.model.infer(batch())
        names = set(scene.fake.regions)
        del scene.fake.failures["ModelInfer"]
        await scene.model.infer(batch())
        assert region_of(scene.fake.seen[-1].request) not in names
        for name in names:
            del scene.fake.regions[name]  # which the endpoint keeps until its end


async def test_too_many_lost_regions_end_it() -> None:
    """What they take at the endpoint is bounded."""
    async with shared() as scene:
        scene.fake.models["m"].behave = lambda _: lost()

        async def lost() -> None:
            raise Failure(grpc.StatusCode.UNAVAILABLE, "Socket closed")

        for _ in range(200):
            with pytest.raises(BackendUnavailable):
                await scene.model.infer(batch(40))
            if scene.regions.off:
                break
        assert "too many calls were lost" in scene.regions.off
        assert len(scene.fake.regions) < 200
        scene.fake.regions.clear()


async def test_a_model_that_fails_leaves_its_region_usable() -> None:
    """That was an answer."""
    async with shared() as scene:
        scene.fake.failures["ModelInfer"] = Failure(grpc.StatusCode.INTERNAL, "division by zero")
        with pytest.raises(BackendError, match="division by zero"):
            await scene.model.infer(batch())
        del scene.fake.failures["ModelInfer"]
        await scene.model.infer(batch())
        assert len(scene.fake.regions) == 1
