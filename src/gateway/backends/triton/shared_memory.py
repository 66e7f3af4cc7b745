"""Tensors to an endpoint on this host through shared memory, as long as that works; then over gRPC again.

A region is trusted because the endpoint could open a segment that was made a moment before under a name of
128 random bits, and because results appear in it: where an output is expected a random mark is left, which
has to be gone when the answer comes. Triton's own unmapping is not relied on: a region whose call may still
be running there is never used again (versions before 2025-09 unmap regions under running calls).
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np

from gateway.backends.triton.codec import OFF_LOOP_BYTES, WrongAnswer
from gateway.backends.triton.segments import Owner, sweep
from gateway.core.errors import GatewayError
from gateway.core.remote import AttemptError, Outcome
from gateway.core.threads import outlast
from gateway.core.types import Datatype

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from gateway.backends.triton.segments import Segment
    from gateway.core.types import Array, Batch, ModelSignature, TensorSpec

LEAST_BYTES: Final = 256 << 10
"""Batches whose inputs and outputs together are smaller go over gRPC. Measured with as much each way, median
of a call: 64 KiB 1.4 ms in either way, 256 KiB 1.6 instead of 2.0, 1 MiB 2.5 instead of 3.9, 4 MiB 5 instead
of 15; a third to two thirds less processor time from 1 MiB on."""
_LEAST_TENSOR: Final = 4096
_ALIGNMENT: Final = 64
_SMALLEST: Final = 256 << 10
_MOST_SEGMENTS: Final = 16
_MOST_BYTES: Final = 512 << 20
_MARK: Final = 16
_TIMEOUT_S: Final = 2.0

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class Placed(NamedTuple):
    """What of a batch lies in shared memory.

    Attributes:
        region: as the endpoint knows it.
        inputs: name -> offset and size in bytes.
        outputs: likewise, where results are to be put.
    """

    region: str
    inputs: Mapping[str, tuple[int, int]]
    outputs: Mapping[str, tuple[int, int]]


class _Plan(NamedTuple):
    inputs: dict[str, tuple[int, int]]
    outputs: dict[str, tuple[int, int]]
    nbytes: int


class Lease:
    """A region for one call.

    Attributes:
        placed: what lies where.
    """

    def __init__(self, segment: Segment, plan: _Plan) -> None:
        self.placed = Placed(segment.name, plan.inputs, plan.outputs)
        self.segment = segment
        self._mark = np.frombuffer(os.urandom(_MARK), np.uint8)

    def write(self, batch: Batch) -> None:
        """Copy the inputs, and mark where outputs are expected; any thread."""
        memory = self.segment.memory
        for name, (offset, nbytes) in self.placed.inputs.items():
            array = np.ascontiguousarray(batch.inputs[name])
            memory[offset : offset + nbytes] = array.reshape(-1).view(np.uint8)
        for offset, _ in self.placed.outputs.values():
            memory[offset : offset + _MARK] = self._mark

    def read(self, shapes: Mapping[str, tuple[int, ...]], signature: ModelSignature) -> dict[str, Array]:
        """Return copies of the outputs; any thread.

        Args:
            shapes: of the outputs that the endpoint says it put there.
            signature: the model's.

        Raises:
            WrongAnswer: it did not, or they have not the size that was asked for.
        """
        specs = {spec.name: spec for spec in signature.outputs}
        found = {}
        for name, shape in shapes.items():
            offset, nbytes = self.placed.outputs.get(name, (0, -1))
            count = 1
            for size in shape:
                count *= size
            if count * specs[name].datatype.itemsize != nbytes:
                raise WrongAnswer(f"output '{name}' of shape {list(shape)} in shared memory")
            memory = self.segment.memory[offset : offset + nbytes]
            if np.array_equal(memory[:_MARK], self._mark):
                raise WrongAnswer(f"output '{name}' is not in the shared memory")
            array = memory.copy().view(specs[name].datatype.dtype).reshape(shape)
            array.flags.writeable = False
            found[name] = array
        return found


class Regions:
    """The regions of one endpoint: at most 16 of them and 512 MiB. Event loop only.

    Once an endpoint refuses one it gets none any more. One that does not know a region any more has been
    started anew, and gets all of them again.

    Args:
        register: has the endpoint map a segment; region, key, bytes, seconds.
        unregister: has it unmap one; region, seconds.
        registered: says what it has mapped, region -> (key, bytes); seconds.
    """

    def __init__(
        self,
        register: Callable[[str, str, int, float], Awaitable[None]],
        unregister: Callable[[str, float], Awaitable[None]],
        registered: Callable[[float], Awaitable[Mapping[str, tuple[str, int]]]],
    ) -> None:
        self._register = register
        self._unregister = unregister
        self._registered = registered
        self._owner: Owner | None = None
        self._closed = False
        self._free: list[Segment] = []
        self._bytes = 0
        self._count = 0
        self._making = False
        self._ended: list[str] = []
        """Regions that are registered still, though not used any more and not in use there."""
        self._lost_bytes = 0
        """Of regions that may be in use there, and stay mapped until the endpoint ends."""
        self._calls: set[asyncio.Task[Any]] = set()
        self.off = ""
        """Why the endpoint gets no regions (any more); empty: it does."""

    async def lease(self, batch: Batch, signature: ModelSignature) -> Lease | None:
        """Return a region with the batch's inputs in it; None: it is to go over gRPC."""
        if self.off:
            return None
        plan = _planned(batch, signature)
        if plan is None:
            return None
        segment = self._taken(plan.nbytes) or await self._made(plan.nbytes)
        if segment is None:
            return None
        lease = Lease(segment, plan)
        try:
            if plan.nbytes >= OFF_LOOP_BYTES:
                await _to_end(asyncio.to_thread(lease.write, batch))
            else:
                lease.write(batch)
        except BaseException:
            self._free.append(segment)
            raise
        return lease

    def give_back(self, lease: Lease, *, reusable: bool) -> None:
        """Take a region back.

        Args:
            lease: of an ended call.
            reusable: the endpoint has surely done with it; otherwise it is dropped.
        """
        segment = lease.segment
        if reusable and not self.off:
            self._free.append(segment)
            return
        if reusable:
            self._ended.append(segment.name)
        else:
            self._lost_bytes += segment.nbytes
        self._drop(segment)
        if self._lost_bytes > _MOST_BYTES:
            self.stop("too many calls were lost with their regions")

    def own(self, call: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run a call that has a region to its end, whoever still waits for it."""
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._over)
        return task

    async def ended(self) -> None:
        """Wait for every call to have ended."""
        await asyncio.gather(*self._calls, return_exceptions=True)

    def forget(self) -> None:
        """Take note that the endpoint knows no region: it was started anew."""
        self._lost_bytes = 0
        self._drop_free()

    def stop(self, reason: str) -> None:
        """Use no shared memory with this endpoint any more."""
        if not self.off:
            self.off = reason
            _log.info("shared memory is no longer used with an endpoint: %s", reason)
            self._ended += [segment.name for segment in self._free]
            self._drop_free()

    async def aclose(self) -> None:
        """Unregister what is not in use, as far as the endpoint answers, and close every free segment."""
        self.stop("closed")
        self._closed = True
        self._let_go()
        ended, self._ended = self._ended, []
        try:
            for region in ended:
                await self._unregister(region, _TIMEOUT_S)
        except GatewayError as error:
            _log.info("regions were not unregistered: %s", error)

    def _drop_free(self) -> None:
        free, self._free = self._free, []
        for segment in free:
            self._drop(segment)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has been told; nobody may be left

    def _taken(self, nbytes: int) -> Segment | None:
        """Take the smallest free segment that is large enough."""
        fitting = [segment for segment in self._free if segment.nbytes >= nbytes]
        if not fitting:
            return None
        best = min(fitting, key=lambda segment: segment.nbytes)
        self._free.remove(best)
        return best

    async def _made(self, nbytes: int) -> Segment | None:
        """Return a new segment, registered; None where there is no room, or none can be had."""
        size = max(_SMALLEST, 1 << (nbytes - 1).bit_length())
        if self._making:
            return None
        self._making = True
        segment = None
        try:
            if await self._has_room(size):
                segment = await _to_end(asyncio.to_thread(self._new, size))
                self._count += 1
                self._bytes += size
                await self._introduce(segment)
        except OSError as error:
            self.stop(f"no shared memory here: {error.strerror or error}")
        except GatewayError as error:
            if _is_refusal(error):
                self.stop(str(error))
            self._drop_made(segment)
            return None
        except BaseException:
            self._drop_made(segment)
            raise
        finally:
            self._making = False
        if self.off and segment is not None:
            self._ended.append(segment.name)
            self._drop(segment)
            return None
        return segment

    def _new(self, size: int) -> Segment:
        if self._owner is None:
            sweep()
            self._owner = Owner()
        return self._owner.segment(size)

    async def _introduce(self, segment: Segment) -> None:
        await self._register(segment.name, segment.key, segment.nbytes, _TIMEOUT_S)
        known = await self._registered(_TIMEOUT_S)
        if known.get(segment.name) != (segment.key, segment.nbytes):
            self.stop("it does not say that it has mapped a region")

    def _drop_made(self, segment: Segment | None) -> None:
        if segment is not None:
            self._drop(segment)

    async def _has_room(self, nbytes: int) -> bool:
        """Make room by unregistering a segment that is free and too small."""
        if self._fits(nbytes):
            return True
        if not self._free:
            return False
        small = min(self._free, key=lambda segment: segment.nbytes)
        self._free.remove(small)
        try:
            await self._unregister(small.name, _TIMEOUT_S)
        except GatewayError as error:
            self.stop(f"a region could not be unregistered: {error}")
        finally:
            self._drop(small)
        return self._fits(nbytes) and not self.off

    def _fits(self, nbytes: int) -> bool:
        return self._count < _MOST_SEGMENTS and self._bytes + nbytes <= _MOST_BYTES

    def _drop(self, segment: Segment) -> None:
        self._count -= 1
        self._bytes -= segment.nbytes
        segment.close()
        self._let_go()

    def _let_go(self) -> None:
        """Own nothing any more once nothing is in use."""
        if self._closed and not self._count and self._owner is not None:
            self._owner.close()


def _is_refusal(error: GatewayError) -> bool:
    """Whether it says something of shared memory; a connection that is lost, or slow, says nothing."""
    return not isinstance(error, AttemptError) or (error.sent and error.outcome is Outcome.FAILED)


def _planned(batch: Batch, signature: ModelSignature) -> _Plan | None:
    """Lay out what of a batch is worth being in shared memory; None: nothing is."""
    inputs, outputs, end, worth = dict[str, tuple[int, int]](), dict[str, tuple[int, int]](), 0, 0
    for name, array in batch.inputs.items():
        if array.dtype.kind != "O" and array.nbytes >= _LEAST_TENSOR:
            inputs[name] = (end, array.nbytes)
            end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
            worth += array.nbytes
    specs = {spec.name: spec for spec in signature.outputs}
    for name in batch.output_names:
        nbytes = _known_bytes(specs[name], batch.rows)
        if nbytes >= _LEAST_TENSOR:
            outputs[name] = (end, nbytes)
            end += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
            worth += nbytes
    return _Plan(inputs, outputs, end) if worth >= LEAST_BYTES else None


def _known_bytes(spec: TensorSpec, rows: int) -> int:
    """Return the size of an output; 0 where it is known only when it is there."""
    nbytes = 0 if spec.datatype is Datatype.BYTES else spec.datatype.itemsize
    for axis, size in enumerate(spec.shape):
        nbytes *= rows if axis == spec.batch_axis else max(0, size)
    return nbytes


async def _to_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Await work in a thread; when cancelled, wait until it has ended."""
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await outlast(future)
        raise
