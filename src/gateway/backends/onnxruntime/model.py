"""A model version loaded into an ONNX Runtime session, run from threads of its own."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.backends.onnxruntime.failures import run_error
from gateway.backends.onnxruntime.memory import return_freed
from gateway.backends.onnxruntime.run_times import RunTimes
from gateway.core.errors import BackendError, GatewayError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from gateway.backends.onnxruntime.runner import Runner
    from gateway.core.types import Artifact, Batch, BatchResult, Device, ModelSignature


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What loading found out.

    Attributes:
        name: the model's public name, for messages.
        artifact: what was loaded.
        signature: what it takes and gives.
        device: where it runs.
        providers: execution providers in use, in order.
        threads: intra-op and inter-op threads of the session.
        instances: runs allowed at once.
        memory_bytes: measured where no other load ran beside it, and no less than the files that were read.
        inline: runs may be made on the event loop when they are short.
        overlaps: runs leave a processor to the event loop.
        warnings: sentences for the operator.
    """

    name: str
    artifact: Artifact
    signature: ModelSignature
    device: Device
    providers: tuple[str, ...]
    threads: tuple[int, int]
    instances: int
    memory_bytes: int
    inline: bool = False
    overlaps: bool = True
    warnings: tuple[str, ...] = ()


class OnnxRuntimeModel:
    """A `LoadedModel`: one session, shared by `instances` threads, so that weights are held once.

    Attributes:
        signature: what it takes and gives.
        device: where it runs.
        instances: how many `infer` calls run at once; more of them wait their turn.
        memory_bytes: measured where no other load ran beside it, and no less than the files that were read.
        overlaps: runs leave a processor to the event loop.
        remote: False: it runs in this process.
        loaded: everything else that loading found out.
    """

    def __init__(self, runner: Runner, loaded: Loaded) -> None:
        """Take over the runner; `aclose` destroys it."""
        self.signature: ModelSignature = loaded.signature
        self.device: Device = loaded.device
        self.instances: int = loaded.instances
        self.memory_bytes: int = loaded.memory_bytes
        self.overlaps: bool = loaded.overlaps
        self.remote: bool = False
        self.loaded = loaded
        self._runner = runner
        self._hidden: Sequence[str] = hidden_paths(loaded.artifact)
        self._times = RunTimes()
        self._under_way: set[Future[Any]] = set()
        self._threads = ThreadPoolExecutor(loaded.instances, f"onnxruntime-{loaded.name}")
        for _ in range(loaded.instances):
            # A thread is waited for until it runs, 14 ms on busy processors: here, not on the event loop.
            self._threads.submit(int)

    async def infer(self, batch: Batch) -> BatchResult:
        """Run one batch in one of the model's threads, or here if it is short and `Loaded.inline` allows it.

        The outputs are fresh memory and the caller's. Cancelling the caller drops a run that has not begun
        and abandons one that has: it goes on, holding the arrays of `batch`, until it returns.

        Raises:
            InvalidRequest: a BYTES element is not UTF-8.
            BackendError: ONNX Runtime refused the data.
            BackendUnavailable: out of memory, or the device is lost.
        """
        if not self.loaded.inline:
            return await self._in_thread(self._run, batch)
        nbytes = sum([array.nbytes for array in batch.inputs.values()])
        if self._times.are_short(nbytes):
            outcome, run_ns = self._timed_run(batch)
        else:
            outcome, run_ns = await self._in_thread(self._timed_run, batch)
        self._times.note(nbytes, run_ns)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def let_run(self, most_s: float) -> None:
        """Wait for a run in a thread; where one runs on the event loop there is nothing to wait for."""
        if self._under_way:
            wait(self._under_way, most_s, FIRST_COMPLETED)

    async def stream(self, batch: Batch) -> AsyncIterator[BatchResult]:
        """Give the one result of `infer`."""
        yield await self.infer(batch)

    async def aclose(self) -> None:
        """Wait for abandoned runs, then destroy the session, both in another thread.

        Cancelling the caller does not stop it.
        """
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._threads.shutdown(wait=True)
        self._runner.close()
        return_freed()

    async def _in_thread(self, run: Callable[[Batch], T], batch: Batch) -> T:
        job = self._threads.submit(run, batch)
        self._under_way.add(job)
        try:
            return await asyncio.wrap_future(job)
        finally:
            self._under_way.discard(job)

    def _timed_run(self, batch: Batch) -> tuple[BatchResult | Exception, int]:
        """Return what came of a run, and how many nanoseconds it took."""
        started_ns, cpu_started_ns = time.perf_counter_ns(), time.thread_time_ns()
        outcome: BatchResult | Exception
        try:
            outcome = self._run(batch)
        except GatewayError as error:
            outcome = error
        # Other threads' share of the work is not in this thread's CPU time.
        if self.loaded.threads != (1, 1):
            return outcome, time.perf_counter_ns() - started_ns
        return outcome, time.thread_time_ns() - cpu_started_ns

    def _run(self, batch: Batch) -> BatchResult:
        try:
            return self._runner.run(batch.inputs, batch.output_names)
        except (BackendError, InvalidRequest) as error:
            raise type(error)(f"model '{self.loaded.name}': {error}") from error
        except Exception as error:
            raise run_error(error, self.loaded.name, self._hidden) from error


def hidden_paths(artifact: Artifact) -> tuple[str, ...]:
    """Return the paths of this server that messages about the artifact must not show."""
    return (str(artifact.model_file), str(artifact.directory))
