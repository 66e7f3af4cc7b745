"""The async shell around the batch queue: admits requests, starts runs when there is room, answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.batching.alarm import Alarm
from gateway.batching.answers import Answers, Books, Run
from gateway.batching.assembly import Assembler
from gateway.batching.bisection import Bisection
from gateway.batching.execution import Execution, Executor, may_be_one_request
from gateway.batching.giving_way import GivingWay
from gateway.batching.grouping import Grouper
from gateway.batching.intake import Intake
from gateway.batching.queue import BatchQueue, most_rows
from gateway.batching.regather import Regather
from gateway.batching.scheduler import DeviceScheduler
from gateway.batching.splitting import Splitter
from gateway.batching.streaming import Streams, only
from gateway.batching.tickets import Job, Ticket
from gateway.core.clock import Clock
from gateway.core.errors import DeadlineExceeded, Draining, GatewayError, Overloaded, Unsupported
from gateway.core.events import CloseReason
from gateway.core.interfaces import BatchObserver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping

    from gateway.batching.queue import FormedBatch
    from gateway.core.interfaces import LoadedModel
    from gateway.core.options import ModelSpec
    from gateway.core.pending import Pending
    from gateway.core.statistics import VersionStatistics
    from gateway.core.types import InferRequest, InferResponse, ParameterValue, VersionId


@dataclass(frozen=True)
class BatcherContext:
    """What batchers share.

    Attributes:
        scheduler: of the device the model is loaded on.
        clock: time and timers.
        threads: where large inputs and outputs are copied; outlives the batchers.
        observers: told of every batch and every rejected request, in this order.
        on_closed: told of a batcher that has been closed.
    """

    scheduler: DeviceScheduler
    clock: Clock
    threads: futures.Executor
    observers: Sequence[BatchObserver] = ()
    on_closed: Callable[[Batcher], object] | None = None


class Batcher:
    """The batcher of one model version on one device; a `VersionBatcher`.

    Requests wait in a `BatchQueue`. A run is formed as late as possible: when the device has room and an
    instance of the model is free, one turn of the event loop after the request that made it possible, so
    that requests arriving together run together. Each run is one task owned by this object. Every request
    admitted is completed exactly once: with its rows of an output, with the error of its run, with
    DeadlineExceeded at its deadline however busy the model is, or by its own cancellation.

    Everything but `stream` and `aclose` is synchronous; all of it belongs to one event loop's thread.
    """

    def __init__(
        self,
        version: VersionId,
        model: LoadedModel,
        spec: ModelSpec,
        statistics: VersionStatistics,
        context: BatcherContext,
    ) -> None:
        """Make one that batches as `spec.batching` says; it does not own `model`."""
        options, signature = spec.batching, model.signature
        self._name = spec.name
        self._options = options
        self._model = model
        self._clock = context.clock
        self._single = signature.decoupled or not (options.enabled and signature.batchable)
        self._grouper = Grouper(spec.name, signature, options)
        splitter = Splitter(spec.name, signature, options)
        self._threads = context.threads
        self._executor = Executor(
            spec.name,
            model,
            assembler=Assembler(signature, options),
            splitter=splitter,
            clock=context.clock,
            threads=context.threads,
        )
        self._queue: BatchQueue[Job] = BatchQueue(spec.name, options, single=self._single)
        self._intake = Intake(spec.name, options, self._grouper, self._queue, single=self._single)
        self._books = Books(version, model.device, statistics, context.observers)
        self._answers = Answers(self._books, signature, splitter, context.clock, joins=options.split_large)
        self._bisection: Bisection[Job] = Bisection(options.bisect_budget)
        self._share = context.scheduler.join(self)
        self._regather = Regather()
        self._giving_way = None if model.overlaps else GivingWay(model)
        self._full_rows = 1 if self._single else most_rows(options)
        self._streams = Streams(str(version.number), model, self._executor, splitter, self._share)
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm = Alarm(context.clock, self._on_alarm)
        self._running = 0
        self._running_rows = 0
        self._closed = False
        self._on_closed = context.on_closed
        self._on_cancel = self._cancelled  # bound once, not once per request

    @property
    def queued_rows(self) -> int:
        """Rows waiting now; a request of no rows counts as one."""
        return self._queue.rows

    @property
    def queued_requests(self) -> int:
        """Requests waiting now, each part of a cut-up one by itself."""
        return self._queue.requests

    @property
    def running_rows(self) -> int:
        """Rows the backend is running now."""
        return self._running_rows

    # -- admission -----------------------------------------------------------------------------------------

    def submit(self, request: InferRequest) -> Pending:
        """Put a request, checked against the signature, in the queue; answered after this has returned.

        Cancelling takes it out of the queue at once, or lets its run finish unseen. Its outputs are views
        over the run's, or small copies; never written to.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: its deadline has passed already.
            InvalidRequest: more rows than a run may have, inputs that disagree about the rows, an axis
                longer than its largest bucket, a priority that is not offered.
            Unsupported: the model is decoupled.
            Draining: the batcher has been closed.
        """
        if self._model.signature.decoupled:
            error = Unsupported(
                f"model '{self._name}' answers with any number of responses: expected a streaming call"
            )
            self._books.refused(request, error)
            raise error
        return self._admit(request)

    def _admit(self, request: InferRequest) -> Ticket:
        now_s = self._clock.now_s()
        try:
            if self._closed:
                raise Draining(f"model '{self._name}' is being unloaded")
            ticket = self._intake.ticket(request, now_s, self._on_cancel)
        except GatewayError as error:
            self._books.refused(request, error)
            if self._giving_way is not None and self._running and isinstance(error, Overloaded):
                self._giving_way.refused()
            raise
        for job in ticket.jobs:
            self._queue.push(job, now_s)
        if (deadline_s := ticket.jobs[0].deadline_s) is not None:
            self._alarm.no_later(deadline_s, now_s)
        self._share.wake()
        return ticket

    # -- leaving the queue without a run -------------------------------------------------------------------

    def _cancelled(self, pending: Pending) -> None:
        assert isinstance(pending, Ticket)
        if self._withdraw(pending):
            self._books.failed(pending, self._clock.now_s())

    def _withdraw(self, ticket: Ticket) -> bool:
        """Take whatever part of a ticket still waits out of the queue; False if none did."""
        removed = [self._queue.remove(job) for job in ticket.jobs]
        return any(removed)

    def _expire(self, now_s: float) -> None:
        expired = self._queue.expire(now_s)
        if self._bisection:
            expired += self._unrun(self._bisection.withdraw(_due_by(now_s), now_s))
        for job in expired:
            waited_s = now_s - job.enqueued_s
            self._give_up(
                job.ticket,
                DeadlineExceeded(
                    f"request for model '{self._name}' reached its deadline after {waited_s:.3f} s in queue"
                ),
                now_s,
            )

    def _give_up(self, ticket: Ticket, error: GatewayError, now_s: float) -> None:
        ticket.fail(error)
        self._withdraw(ticket)
        self._books.failed(ticket, now_s)

    def _unrun(self, jobs: list[Job]) -> list[Job]:
        """Return jobs of a failed batch that will not be run again: no later batch tells of them."""
        for job in jobs:
            job.ticket.formed = not job.whole
        return jobs

    def _next_expiry_s(self) -> float | None:
        """Return the earliest deadline of what waits, be it in the queue or as part of a failed batch."""
        expiry_s = self._queue.next_expiry_s()
        if not self._bisection:
            return expiry_s
        deadlines_s = [job.deadline_s for job in self._bisection.waiting() if job.deadline_s is not None]
        return min(deadlines_s if expiry_s is None else [expiry_s, *deadlines_s], default=None)

    def _on_alarm(self) -> None:
        now_s = self._clock.now_s()
        self._expire(now_s)
        self._alarm.no_later(self._next_expiry_s(), now_s)
        if self._queue.requests:
            self._share.wake()

    # -- runs ----------------------------------------------------------------------------------------------

    def start_run(self) -> bool:
        """Start the next run, for the scheduler; False when no instance is free or nothing is due."""
        if self._streams.resume_next():
            return True
        if self._running >= self._model.instances or self._closed:
            return False
        now_s = self._clock.now_s()
        self._expire(now_s)
        if (part := self._bisection.take()) is not None:
            rows = sum([job.rows for job in part.members])
            return self._launch(Run(part.members, rows, CloseReason.FULL, now_s, part))
        while (formed := self._queue.take(now_s)) is not None:
            if self._launch(self._run_of(formed, now_s)):
                return True
        self._alarm.no_later(self._queue.next_event_s(), now_s)
        return False

    def _run_of(self, formed: FormedBatch[Job], now_s: float) -> Run:
        for job in formed.items:
            job.queue_ns = int((now_s - job.enqueued_s) * 1e9)
            job.ticket.formed = True
        return Run(formed.items, formed.rows, formed.reason, now_s)

    def _launch(self, run: Run) -> bool:
        """Occupy an instance and start the task; False for a stream whose reader has gone."""
        if self._model.signature.decoupled:
            if not self._streams.grant(run):
                return False
        else:
            self._begin(self._execute(run))
        self._running += 1
        self._running_rows += run.rows
        return True

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _execute(self, run: Run) -> None:
        execution = Execution()
        try:
            if all(job.ticket.done for job in run.jobs):
                execution.error = run.jobs[0].ticket.error  # all were cancelled: nothing to run
            else:
                execution = await self._executor.run(run.jobs, self._parameters(run))
        except asyncio.CancelledError:
            execution.error = Draining(f"model '{self._name}' was stopped before it had answered")
            raise
        finally:
            self._finish(run, execution)

    def _parameters(self, run: Run) -> Mapping[str, ParameterValue]:
        request = run.jobs[0].ticket.request
        return request.parameters if self._single else self._grouper.shared_parameters(request)

    def _finish(self, run: Run, execution: Execution) -> None:
        """Make room for the next run and answer; the first first where both can go on at once.

        A model with processors of its own goes on while the loop answers; otherwise see `Regather`.
        """
        now_s = self._clock.now_s()
        self._note_run(run, execution, now_s)
        divided = self._divide(run, execution, now_s)
        if run.part is not None:
            self._bisection.finished(run.part, execution.seconds, now_s)
        if self._model.overlaps or self._closed or divided or execution.error is not None:
            self._release(run, execution.seconds)
            self._answer(run, execution, divided=divided)
            return
        answered = False
        try:
            answered = self._answer(run, execution, divided=divided)
        finally:
            if answered:
                self._regather.begin(run.rows, self._queue.rows, execution.seconds, self._clock.now_s())
                asyncio.get_running_loop().call_soon(self._release_gathered, run, execution.seconds)
            else:
                self._release(run, execution.seconds)

    def _answer(self, run: Run, execution: Execution, *, divided: bool) -> bool:
        """Answer; False if that goes on in a thread."""
        if divided:
            self._answers.later(run, execution)
        elif execution.error is not None:
            self._answers.badly(run, execution, execution.error)
        elif self._answers.heavy(run, execution):
            self._begin(self._answer_aside(run, execution))
            return False
        else:
            self._answers.well(run, execution)
        self._take_back(run)
        return True

    def _release_gathered(self, run: Run, seconds: float) -> None:
        over = self._regather.over(self._queue.rows, self._full_rows, self._clock.now_s())
        if over or self._closed or self._share.contended:
            self._release(run, seconds)
        else:
            asyncio.get_running_loop().call_soon(self._release_gathered, run, seconds)

    async def _answer_aside(self, run: Run, execution: Execution) -> None:
        try:
            await self._answers.well_aside(run, execution, self._threads)
        finally:
            self._take_back(run)

    def _take_back(self, run: Run) -> None:
        """Take what waits of requests that have failed in part out of the queue."""
        if not self._options.split_large:
            return
        for job in run.jobs:
            if not job.whole and job.ticket.error is not None:
                self._withdraw(job.ticket)

    def _note_run(self, run: Run, execution: Execution, now_s: float) -> None:
        if run.part is None:
            self._bisection.ran(execution.seconds, now_s)
        if execution.error is None and execution.assembly is not None:
            self._queue.served(run.rows, execution.seconds / self._model.instances)

    def _divide(self, run: Run, execution: Execution, now_s: float) -> bool:
        """Have a failed run's members run again in parts, if that may help and is allowed."""
        error = execution.error
        if error is None or not execution.divisible or not may_be_one_request(error):
            return False
        if len(run.jobs) == 1 or self._closed or not self._options.bisect_failures:
            return False
        if run.part is None and self._bisection:
            return False
        live = [job for job in run.jobs if not job.ticket.done]
        expected_s = max(execution.seconds, self._share.cost_s)
        if not live or not self._bisection.divide(live, expected_s, now_s):
            return False
        self._alarm.no_later(self._next_expiry_s(), now_s)
        return True

    def _release(self, run: Run, seconds: float) -> None:
        self._running -= 1
        self._running_rows -= run.rows
        if self._queue.requests or self._bisection:
            self._share.wake()
        if not run.paused:
            self._share.release(seconds - run.settled_s)

    # -- streams -------------------------------------------------------------------------------------------

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Answer with the model's responses; a model that is not decoupled gives its one.

        A decoupled model's responses come as it makes them, and an empty one with `final` set ends them: that
        it was the last is known only afterwards. The instance stays occupied until the iterator is
        exhausted or closed; close it (`contextlib.aclosing`) if it is given up. Between two responses the
        device is free for others, and the next response waits for room on it.

        Raises:
            GatewayError: as `submit`, or the failure of the run, from any step of the iteration.
        """
        if not self._model.signature.decoupled:
            return only(self.submit, request)
        return self._streams.of(self, request)

    async def turn(self, request: InferRequest) -> Run:
        """Wait for an instance to stream from; on cancellation leave the queue, or give the instance back."""
        ticket = self._admit(request)
        turn = self._streams.enrol(ticket)
        try:
            return await turn
        except asyncio.CancelledError:
            ticket.cancel()
            if (run := self._streams.granted(turn)) is not None:
                self.stream_over(run, Execution())
            raise

    def stream_over(self, run: Run, execution: Execution) -> None:
        """Give the instance of a stream back, and count it."""
        self._note_run(run, execution, self._clock.now_s())
        self._release(run, execution.seconds)
        self._answers.streamed(run, execution)

    # -- the end -------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Stop: whatever waits fails with Draining, runs under way are waited for. The model stays loaded."""
        self._closed = True
        self._alarm.close()
        now_s = self._clock.now_s()
        for job in [*self._queue.drain(), *self._unrun(self._bisection.drain(now_s))]:
            self._give_up(job.ticket, Draining(f"model '{self._name}' is being unloaded"), now_s)
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._on_closed is not None:
            self._on_closed(self)


def _due_by(now_s: float) -> Callable[[Job], bool]:
    """Return whether a job's deadline has come."""
    return lambda job: job.deadline_s is not None and job.deadline_s <= now_s
