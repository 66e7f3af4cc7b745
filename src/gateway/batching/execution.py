"""Runs one batch on the model: assembly, the run itself, and its failures as errors of the gateway."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from gateway.core.errors import BackendError, BackendUnavailable, GatewayError, InvalidRequest
from gateway.core.types import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent import futures

    from gateway.batching.assembly import Assembler, Assembly
    from gateway.batching.splitting import Splitter
    from gateway.batching.tickets import Job
    from gateway.core.clock import Clock
    from gateway.core.interfaces import LoadedModel
    from gateway.core.types import Array, BatchResult, ParameterValue

_log = logging.getLogger(__name__)

OFF_LOOP_BYTES: Final = 2 << 20
"""Tensors from this size on are copied in a thread: 2 MiB take about 1 ms, the hop there and back 0.1."""


class Execution:
    """What came of one run.

    Attributes:
        assembly: the inputs, or None when they could not be assembled.
        outputs: name -> array, checked; empty when the run failed.
        error: why it failed, or None.
        divisible: whether running parts of the batch may find a single request at fault.
        seconds: time from the start of assembly to the result: what the device is charged.
        compute_input_ns: assembling and handing to the device.
        compute_infer_ns: the run.
        compute_output_ns: fetching outputs; splitting is added by whoever splits.
    """

    __slots__ = (
        "assembly",
        "compute_infer_ns",
        "compute_input_ns",
        "compute_output_ns",
        "divisible",
        "error",
        "outputs",
        "seconds",
    )

    def __init__(
        self,
        assembly: Assembly | None = None,
        outputs: Mapping[str, Array] | None = None,
        error: GatewayError | None = None,
        divisible: bool = False,
        seconds: float = 0.0,
        compute_input_ns: int = 0,
        compute_infer_ns: int = 0,
        compute_output_ns: int = 0,
    ) -> None:
        self.assembly = assembly
        self.outputs = outputs
        self.error = error
        self.divisible = divisible
        self.seconds = seconds
        self.compute_input_ns = compute_input_ns
        self.compute_infer_ns = compute_infer_ns
        self.compute_output_ns = compute_output_ns


class Executor:
    """Runs batches on one loaded model."""

    def __init__(
        self,
        name: str,
        model: LoadedModel,
        *,
        assembler: Assembler,
        splitter: Splitter,
        clock: Clock,
        threads: futures.Executor,
    ) -> None:
        self._name = name
        self._threads = threads
        self._model = model
        self._remote = model.remote
        self._assembler = assembler
        self._splitter = splitter
        self.clock = clock

    async def run(self, jobs: Sequence[Job], parameters: Mapping[str, ParameterValue]) -> Execution:
        """Run the rows of `jobs` together; never raises but for cancellation."""
        execution = Execution()
        started_s = self.clock.now_s()
        try:
            batch = await self.assemble(jobs, parameters, execution)
            result = await self._model.infer(batch)
            self._accept(execution, batch, result)
        except Exception as exc:  # noqa: BLE001 - whatever a backend raises, its requests must be answered
            execution.outputs = None
            execution.error = self.failure(exc)
        execution.seconds = self.clock.now_s() - started_s
        return execution

    async def assemble(
        self, jobs: Sequence[Job], parameters: Mapping[str, ParameterValue], execution: Execution
    ) -> Batch:
        """Return the batch of `jobs`, and note it in `execution`; large ones are written in a thread."""
        started_s = self.clock.now_s()
        shared_bytes = jobs[0].ticket.layout.shared_bytes
        if shared_bytes + sum([job.rows * job.row_bytes for job in jobs]) >= OFF_LOOP_BYTES:
            loop = asyncio.get_running_loop()
            assembly = await loop.run_in_executor(self._threads, self._assembler.assemble, jobs)
        else:
            assembly = self._assembler.assemble(jobs)
        execution.compute_input_ns = int((self.clock.now_s() - started_s) * 1e9)
        execution.assembly = assembly
        execution.divisible = True
        names = self._splitter.wanted([job.ticket.request for job in jobs])
        batch = Batch(assembly.inputs, assembly.padded_rows, names, parameters)
        if self._remote:
            _describe(batch, jobs)
        return batch

    def failure(self, exc: Exception) -> GatewayError:
        """Return the error that the requests of a failed run are answered with."""
        if isinstance(exc, GatewayError):
            return exc
        _log.error("model %r failed in an unforeseen way", self._name, exc_info=exc)
        error = BackendError(f"model '{self._name}' failed: {type(exc).__name__}")
        error.__cause__ = exc
        return error

    def _accept(self, execution: Execution, batch: Batch, result: BatchResult) -> None:
        """Take a result over if it is what was asked for; running parts would not make it so."""
        execution.divisible = False
        self._splitter.check(result.outputs, batch.output_names, batch.rows)
        execution.outputs = result.outputs
        execution.compute_input_ns += result.compute_input_ns
        execution.compute_infer_ns = result.compute_infer_ns
        execution.compute_output_ns = result.compute_output_ns


def _describe(batch: Batch, jobs: Sequence[Job]) -> None:
    """Write into a batch what another server is told of its requests."""
    requests = [job.ticket.request for job in jobs]
    deadlines_s = [request.deadline_s for request in requests if request.deadline_s is not None]
    if len(deadlines_s) == len(requests):
        batch.deadline_s = max(deadlines_s)
    batch.priority = min([request.priority for request in requests])
    if len(requests) == 1:
        batch.request_id = requests[0].request_id
        batch.trace = requests[0].trace


def may_be_one_request(error: GatewayError) -> bool:
    """Return whether an error may be the fault of a single request's data, not of the backend as a whole."""
    return isinstance(error, BackendError | InvalidRequest) and not isinstance(error, BackendUnavailable)
