"""Counts the responses of a decoupled model, each by its place in the stream of its request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from gateway.core.statistics import ResponseStatistics

if TYPE_CHECKING:
    from gateway.core.clock import Clock
    from gateway.core.interfaces import LoadedModel
    from gateway.core.statistics import VersionStatistics
    from gateway.core.types import Batch, BatchResult, Device, ModelSignature

COUNTED_PLACES: Final = 1000
"""Places that are counted: a stream may go on for ever, and the counters must not grow with it."""


class CountedModel:
    """A decoupled LoadedModel whose responses are noted in `VersionStatistics.responses`.

    As in Triton, a stream of n responses counts as a success at each of the places 0 to n - 1 and as an empty
    response at place n, its end; one that fails or is given up counts as that at the place it did not reach.
    The time in which the reader keeps a response is nobody's.

    Args:
        model: runs the requests; closed by this one's `aclose`.
        statistics: written on the event loop only.
        clock: times the responses.
    """

    def __init__(self, model: LoadedModel, statistics: VersionStatistics, clock: Clock) -> None:
        self.signature: ModelSignature = model.signature
        self.device: Device = model.device
        self.memory_bytes: int = model.memory_bytes
        self.overlaps: bool = model.overlaps
        self._model = model
        self._responses = statistics.responses
        self._clock = clock

    @property
    def instances(self) -> int:
        """As the model's own."""
        return self._model.instances

    @property
    def remote(self) -> bool:
        """As the model's own."""
        return self._model.remote

    async def infer(self, batch: Batch) -> BatchResult:
        """As the model's own."""
        return await self._model.infer(batch)

    def let_run(self, most_s: float) -> None:
        """As the model's own."""
        self._model.let_run(most_s)

    async def stream(self, batch: Batch) -> AsyncGenerator[BatchResult, None]:
        """As the model's own; closing it closes the model's."""
        results = self._model.stream(batch)
        place, asked_s = 0, self._clock.now_s()
        try:
            async for result in results:
                self._made(place, self._ns_since(asked_s), result.compute_output_ns)
                place += 1
                try:
                    yield result
                finally:
                    asked_s = self._clock.now_s()
        except (asyncio.CancelledError, GeneratorExit):
            if isinstance(results, AsyncGenerator):
                await results.aclose()
            self._at(place).cancel.add(self._ns_since(asked_s))
            raise
        except Exception:
            self._failed(place, self._ns_since(asked_s))
            raise
        self._ended(place, self._ns_since(asked_s))

    async def aclose(self) -> None:
        """Close the model."""
        await self._model.aclose()

    def _made(self, place: int, ns: int, output_ns: int) -> None:
        times = self._at(place)
        times.compute_infer.add(max(0, ns - output_ns))
        times.compute_output.add(output_ns)
        times.success.add(ns)

    def _failed(self, place: int, ns: int) -> None:
        times = self._at(place)
        times.compute_infer.add(ns)
        times.fail.add(ns)

    def _ended(self, place: int, ns: int) -> None:
        times = self._at(place)
        times.compute_infer.add(ns)
        times.empty_response.add(ns)

    def _at(self, place: int) -> ResponseStatistics:
        """Return the counters of a place; beyond the last that is counted, some that are forgotten."""
        if place >= COUNTED_PLACES:
            return ResponseStatistics()
        return self._responses.setdefault(place, ResponseStatistics())

    def _ns_since(self, start_s: float) -> int:
        return round((self._clock.now_s() - start_s) * 1e9)
