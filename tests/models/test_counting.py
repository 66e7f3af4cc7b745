"""Responses of decoupled models, counted by their place in the stream."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import aclosing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gateway.core.errors import BackendError
from gateway.core.statistics import DurationCount, ResponseStatistics, VersionStatistics
from gateway.core.types import Batch, BatchResult
from gateway.models.counting import COUNTED_PLACES, CountedModel
from gateway.testing import FakeLoadedModel, VirtualClock, identity_signature, settle
from tests.models.stage import wanted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.models.stage import Stage

BATCH = Batch({"x": np.zeros((1, 4), "f4")}, 1, ("y",))
MS = 1_000_000


class Talker(FakeLoadedModel):
    """Response n takes n + 1 ms, one of them for its outputs, the end 100 ms, and letting go 5."""

    def __init__(self, clock: VirtualClock, responses: int, error: Exception | None = None) -> None:
        super().__init__(identity_signature())
        self.clock = clock
        self.responses = responses
        self.error = error
        self.gate: asyncio.Event | None = None

    async def stream(self, batch: Batch) -> AsyncGenerator[BatchResult, None]:
        try:
            for place in range(self.responses):
                self.clock.advance((place + 1) / 1e3)
                yield BatchResult(batch.inputs, compute_output_ns=MS)
            self.clock.advance(0.1)
            if self.gate is not None:
                await self.gate.wait()
            if self.error is not None:
                raise self.error
        except (GeneratorExit, asyncio.CancelledError):
            self.clock.advance(0.005)
            raise


class Bench:
    """A counted model on a virtual clock, and readers of its streams."""

    def __init__(self, responses: int, error: Exception | None = None) -> None:
        self.clock = VirtualClock()
        self.statistics = VersionStatistics()
        self.model = Talker(self.clock, responses, error)
        self.counted = CountedModel(self.model, self.statistics, self.clock)

    async def read(self, most: int | None = None) -> int:
        """Read at most so many responses, taking a second over each; return how many there were."""
        read = 0
        async with aclosing(self.counted.stream(BATCH)) as results:
            async for _ in results:
                self.clock.advance(1)
                read += 1
                if read == most:
                    break
        return read


def made(count: int, ms: int) -> ResponseStatistics:
    """Return the counters of a place where `count` responses took `ms` each, one of them for outputs."""
    return ResponseStatistics(
        compute_infer=DurationCount(count, count * (ms - 1) * MS),
        compute_output=DurationCount(count, count * MS),
        success=DurationCount(count, count * ms * MS),
    )


async def test_responses_and_the_end_after_them() -> None:
    """Each response is a success at its place, the end an empty response; readers' time is not in."""
    bench = Bench(2)
    assert await bench.read() == await bench.read() == 2
    end = ResponseStatistics(
        compute_infer=DurationCount(2, 200 * MS), empty_response=DurationCount(2, 200 * MS)
    )
    assert bench.statistics.responses == {0: made(2, 1), 1: made(2, 2), 2: end}


def test_it_lets_the_models_runs_run() -> None:
    """Counting adds nothing to it."""
    bench = Bench(1)
    bench.counted.let_run(0.25)
    assert bench.model.let_run_s == [0.25]


async def test_failure_in_place_of_a_response() -> None:
    """A model that fails after one response has failed at the second place, and the error goes on."""
    bench = Bench(1, BackendError("broken"))
    with pytest.raises(BackendError, match="broken"):
        await bench.read()
    failed = ResponseStatistics(compute_infer=DurationCount(1, 100 * MS), fail=DurationCount(1, 100 * MS))
    assert bench.statistics.responses == {0: made(1, 1), 1: failed}


async def test_reader_that_closes_the_stream() -> None:
    """A stream closed between responses is a cancellation at the next place; letting go takes time."""
    bench = Bench(3)
    assert await bench.read(1) == 1
    closed = ResponseStatistics(cancel=DurationCount(1, 5 * MS))
    assert bench.statistics.responses == {0: made(1, 1), 1: closed}


async def test_reader_that_is_cancelled() -> None:
    """A cancellation while the model works on a response counts the time spent on it."""
    bench = Bench(1)
    bench.model.gate = asyncio.Event()
    reading = asyncio.ensure_future(bench.read())
    await settle()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    cancelled = ResponseStatistics(cancel=DurationCount(1, 105 * MS))
    assert bench.statistics.responses == {0: made(1, 1), 1: cancelled}


async def test_endless_stream_takes_bounded_memory() -> None:
    """Responses far into a stream are given and not counted."""
    bench = Bench(COUNTED_PLACES + 10)
    assert await bench.read() == COUNTED_PLACES + 10
    assert list(bench.statistics.responses) == list(range(COUNTED_PLACES))


async def test_served_decoupled_model_is_counted(stage: Stage) -> None:
    """What the manager gives a batcher of a decoupled model counts in the statistics of the version."""
    stage.backend.signature = dataclasses.replace(identity_signature(), decoupled=True)
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        results = stage.batchers[0].model.stream(Batch({"x": np.zeros((3, 1), "f4")}, 3, ("y",)))
        assert len([result async for result in results]) == 3
        responses = manager.get("m").statistics.responses
        assert [responses[place].success.count for place in range(4)] == [1, 1, 1, 0]
        assert responses[3].empty_response.count == 1
