"""Answers the members of a finished run, each exactly once, and keeps the books about it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from gateway.batching.execution import OFF_LOOP_BYTES
from gateway.batching.tickets import join, respond
from gateway.core.errors import BackendError, Cancelled, Draining, GatewayError
from gateway.core.events import BatchMember, CloseReason, CompletedBatch
from gateway.core.statistics import BatchSizeStatistics
from gateway.core.types import RequestTiming

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent import futures
    from typing import TypeAlias

    from gateway.batching.bisection import Part
    from gateway.batching.execution import Execution
    from gateway.batching.splitting import Splitter
    from gateway.batching.tickets import Job, Ticket
    from gateway.core.clock import Clock
    from gateway.core.interfaces import BatchObserver
    from gateway.core.statistics import VersionStatistics
    from gateway.core.types import Device, InferRequest, ModelSignature, Tensor, VersionId

    Outputs: TypeAlias = tuple[Tensor, ...]

_log = logging.getLogger(__name__)


class Run:
    """One batch on its way through the model.

    Attributes:
        jobs: its members, in row order.
        rows: what they count for; a request of no rows counts as one.
        reason: why the batch was closed.
        started_s: when it was formed, monotonic.
        part: set when it is a part of a failed batch.
        paused: a stream that has given its room on the device back while its reader takes its time.
        settled_s: seconds of the device charged already.
    """

    __slots__ = (
        "jobs",
        "part",
        "paused",
        "reason",
        "rows",
        "settled_s",
        "started_s",
    )

    def __init__(
        self,
        jobs: list[Job],
        rows: int,
        reason: CloseReason,
        started_s: float,
        part: Part[Job] | None = None,
        paused: bool = False,
        settled_s: float = 0.0,
    ) -> None:
        self.jobs = jobs
        self.rows = rows
        self.reason = reason
        self.started_s = started_s
        self.part = part
        self.paused = paused
        self.settled_s = settled_s


class Books:
    """The counters of one version and those who are told of its batches.

    A ticket is counted once, as success or as failure, whatever happens to its parts.
    """

    def __init__(
        self,
        version: VersionId,
        device: Device,
        statistics: VersionStatistics,
        observers: Sequence[BatchObserver],
    ) -> None:
        self.version = version
        self._device = device
        self._statistics = statistics
        self._observers = observers

    def refused(self, request: InferRequest, error: GatewayError) -> None:
        """Note a request that was refused at once."""
        self._statistics.fail.add(0)
        self._rejected(request, error)

    def failed(self, ticket: Ticket, now_s: float) -> None:
        """Note a ticket that failed or was cancelled; once, however often it is told."""
        if ticket.counted or ticket.error is None:
            return
        ticket.counted = True
        self._statistics.fail.add(int((now_s - ticket.enqueued_s) * 1e9))
        if not ticket.formed:
            self._rejected(ticket.request, ticket.error)

    def succeeded(self, jobs: Sequence[Job], execution: Execution, now_s: float) -> None:
        """Note the tickets that were completed well by these jobs, their last."""
        statistics, count = self._statistics, len(jobs)
        statistics.success.add(int(sum([now_s - job.ticket.enqueued_s for job in jobs]) * 1e9), count)
        statistics.queue.add(sum([job.queue_ns for job in jobs]), count)
        statistics.compute_input.add(execution.compute_input_ns * count, count)
        statistics.compute_infer.add(execution.compute_infer_ns * count, count)
        statistics.compute_output.add(execution.compute_output_ns * count, count)
        statistics.inference_count += sum([job.ticket.layout.rows for job in jobs])

    def closed(self, run: Run, execution: Execution, members: list[BatchMember]) -> None:
        """Note a run that is over, its members answered."""
        batch = self._completed(run, execution, members)
        statistics = self._statistics
        statistics.last_inference_ms = time.time_ns() // 1_000_000
        if execution.assembly is not None:
            if run.part is None:
                reason = run.reason.value
                statistics.close_reasons[reason] = statistics.close_reasons.get(reason, 0) + 1
            statistics.execution_count += 1
            statistics.elements += batch.elements
            statistics.pad_elements += batch.pad_elements
        if execution.error is None:
            self._count_size(batch)
        for observer in self._observers:
            try:
                observer.on_batch(batch)
            except Exception:  # noqa: BLE001 - logged: it must not keep the others, or a request, from their due
                _log.exception("an observer of batches failed for model %r", self.version.model)

    def _count_size(self, batch: CompletedBatch) -> None:
        sizes = self._statistics.batch_sizes.get(batch.rows)
        if sizes is None:
            self._statistics.batch_sizes[batch.rows] = sizes = BatchSizeStatistics()
        sizes.compute_input.add(batch.compute_input_ns)
        sizes.compute_infer.add(batch.compute_infer_ns)
        sizes.compute_output.add(batch.compute_output_ns)

    def _completed(self, run: Run, execution: Execution, members: list[BatchMember]) -> CompletedBatch:
        assembly = execution.assembly
        return CompletedBatch(
            version=self.version,
            device=self._device,
            members=members,
            rows=run.rows if assembly is None else assembly.rows,
            padded_rows=run.rows if assembly is None else assembly.padded_rows,
            inputs=None if assembly is None else assembly.inputs,
            outputs=execution.outputs,
            close_reason=run.reason,
            started_s=run.started_s,
            compute_input_ns=execution.compute_input_ns,
            compute_infer_ns=execution.compute_infer_ns,
            compute_output_ns=execution.compute_output_ns,
            pad_elements=0 if assembly is None else assembly.pad_elements,
            elements=0 if assembly is None else assembly.elements,
            error=execution.error,
            bisection=run.part is not None,
        )

    def _rejected(self, request: InferRequest, error: GatewayError) -> None:
        name = type(error).__name__
        self._statistics.rejected[name] = self._statistics.rejected.get(name, 0) + 1
        for observer in self._observers:
            try:
                observer.on_rejected(self.version, request, error)
            except Exception:  # noqa: BLE001 - likewise
                _log.exception("an observer of refusals failed for model %r", self.version.model)


class Answers:
    """Completes the tickets of finished runs."""

    def __init__(
        self, books: Books, signature: ModelSignature, splitter: Splitter, clock: Clock, *, joins: bool
    ) -> None:
        """Prepare; `joins` says whether requests may be cut up."""
        self._books = books
        self._joins = joins
        self._model = books.version.model
        self._number = str(books.version.number)
        self._axes = {spec.name: spec.batch_axis for spec in signature.outputs}
        self._splitter = splitter
        self._clock = clock

    def heavy(self, run: Run, execution: Execution) -> bool:
        """Return whether answering a run that went well copies so much that `well_aside` must do it."""
        assert execution.assembly is not None
        assert execution.outputs is not None
        nbytes = sum([array.nbytes for array in execution.outputs.values()])
        if nbytes >= OFF_LOOP_BYTES:
            shared = len(run.jobs) > 1 or execution.assembly.padded_rows != execution.assembly.rows
            return shared or self._splitter.cuts or not run.jobs[0].whole
        return self._joins and any(
            not job.whole and nbytes * job.ticket.layout.rows >= OFF_LOOP_BYTES * run.rows for job in run.jobs
        )

    def well(self, run: Run, execution: Execution) -> None:
        """Answer the members of a run that went well with their rows of its outputs."""
        started_s = self._clock.now_s()
        try:
            pieces = self._split(run, execution)
            joined = self._join(self._put_by(run, pieces)) if self._joins else {}
        except Exception as exc:  # noqa: BLE001 - an output of an unforeseen shape must not lose its requests
            self._unfit(run, execution, exc)
            return
        self._hand_out(run, execution, started_s, pieces, joined)

    async def well_aside(self, run: Run, execution: Execution, threads: futures.Executor) -> None:
        """As `well`, copying in `threads`; when cancelled, the members fail with Draining."""
        started_s, loop = self._clock.now_s(), asyncio.get_running_loop()
        joined: Mapping[Job, Outputs | BackendError] = {}
        try:
            pieces = await loop.run_in_executor(threads, self._split, run, execution)
            if last := self._put_by(run, pieces):
                joined = await loop.run_in_executor(threads, self._join, last)
        except asyncio.CancelledError:
            self.badly(run, execution, Draining(f"model '{self._model}' was stopped before it had answered"))
            raise
        except Exception as exc:  # noqa: BLE001 - as above
            self._unfit(run, execution, exc)
            return
        self._hand_out(run, execution, started_s, pieces, joined)

    def badly(self, run: Run, execution: Execution, error: GatewayError) -> None:
        """Fail the members of a run."""
        for job in run.jobs:
            job.ticket.fail(error)
        self._close(run, execution, self._clock.now_s())

    def later(self, run: Run, execution: Execution) -> None:
        """Close a failed run whose members are run again in parts; only those cancelled are done with it."""
        now_s = self._clock.now_s()
        self._close(run, execution, now_s, only_done=True)

    def streamed(self, run: Run, execution: Execution) -> None:
        """Close the run of one decoupled request, whose responses have gone to its reader already."""
        now_s = self._clock.now_s()
        ticket = run.jobs[0].ticket
        if execution.error is not None:
            ticket.fail(execution.error)
        elif not ticket.done:
            ticket.counted = True
            self._books.succeeded(run.jobs, execution, now_s)
        execution.error = ticket.error
        self._close(run, execution, now_s)

    def _unfit(self, run: Run, execution: Execution, exc: Exception) -> None:
        error = BackendError(f"outputs of model '{self._model}' cannot be split: {type(exc).__name__}")
        error.__cause__ = exc
        execution.error, execution.outputs = error, None
        self.badly(run, execution, error)

    def _hand_out(
        self,
        run: Run,
        execution: Execution,
        started_s: float,
        pieces: Sequence[Outputs],
        joined: Mapping[Job, Outputs | BackendError],
    ) -> None:
        now_s = self._clock.now_s()
        execution.compute_output_ns += int((now_s - started_s) * 1e9)
        compute = (
            execution.compute_input_ns,
            execution.compute_infer_ns,
            execution.compute_output_ns,
            run.rows,
        )
        answered = [
            job
            for job, outputs in zip(run.jobs, pieces, strict=True)
            if self._deliver(job, outputs if job.whole else joined.get(job), compute)
        ]
        self._books.succeeded(answered, execution, now_s)
        self._close(run, execution, now_s)

    def _put_by(self, run: Run, pieces: Sequence[Outputs]) -> list[Job]:
        """Keep the outputs of parts with their tickets; return those that were the last of theirs."""
        last: list[Job] = []
        for job, outputs in zip(run.jobs, pieces, strict=True):
            ticket = job.ticket
            if ticket.answers is not None and not ticket.done:
                ticket.answers[job.start] = outputs
                if len(ticket.answers) == len(ticket.jobs):
                    last.append(job)
        return last

    def _join(self, last: Sequence[Job]) -> dict[Job, Outputs | BackendError]:
        """Return the whole outputs of the tickets that these parts were the last of; safe off the loop."""
        joined: dict[Job, Outputs | BackendError] = {}
        for job in last:
            try:
                joined[job] = join(job.ticket, self._axes)
            except BackendError as error:
                joined[job] = error
        return joined

    def _split(self, run: Run, execution: Execution) -> list[Outputs]:
        assert execution.assembly is not None
        assert execution.outputs is not None
        return self._splitter.split_all(execution.outputs, execution.assembly.inputs, run.jobs)

    def _deliver(
        self, job: Job, outputs: Outputs | BackendError | None, compute: tuple[int, int, int, int]
    ) -> bool:
        """Hand whole outputs to a job's ticket; True if that completed it. None: parts are missing.

        Args:
            job: the ticket's last part.
            outputs: the ticket's, or why there are none.
            compute: all of `RequestTiming` but the time in queue.
        """
        ticket = job.ticket
        if ticket.done or outputs is None:
            return False
        if isinstance(outputs, BackendError):
            ticket.fail(outputs)
            return False
        ticket.counted = True
        timing = RequestTiming(job.queue_ns, *compute)
        completed = ticket.complete(respond(ticket.request, self._number, outputs, timing))
        ticket.jobs = ()  # none waits any more, and they refer to each other
        return completed

    def _close(self, run: Run, execution: Execution, now_s: float, *, only_done: bool = False) -> None:
        members: list[BatchMember] = []
        start = 0
        for job in run.jobs:
            error, told = job.ticket.error, job.ticket.counted
            if error is not None:
                self._books.failed(job.ticket, now_s)
            if not only_done or (error is not None and not told):
                cancelled = isinstance(error, Cancelled)
                request = job.ticket.request
                members.append(
                    BatchMember(request, start, job.size, job.queue_ns, error, cancelled, job.start)
                )
            start += job.size
        self._books.closed(run, execution, members)
