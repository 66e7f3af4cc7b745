"""Requests of decoupled models: their turn in the queue, and their responses as the model makes them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Protocol

from gateway.batching.execution import Execution
from gateway.batching.tickets import respond
from gateway.core.errors import Cancelled
from gateway.core.types import RequestTiming

if TYPE_CHECKING:
    from gateway.batching.answers import Run
    from gateway.batching.execution import Executor
    from gateway.batching.scheduler import Share
    from gateway.batching.splitting import Splitter
    from gateway.batching.tickets import Ticket
    from gateway.core.interfaces import LoadedModel
    from gateway.core.pending import Pending
    from gateway.core.types import InferRequest, InferResponse


class Streaming(Protocol):
    """The batcher of a decoupled model, as its streams see it."""

    async def turn(self, request: InferRequest) -> Run:
        """Wait for an instance; the run then belongs to the caller, until `stream_over`."""

    def stream_over(self, run: Run, execution: Execution) -> None:
        """Take the instance back, and count the stream."""


async def only(
    submit: Callable[[InferRequest], Pending], request: InferRequest
) -> AsyncIterator[InferResponse]:
    """Give the one response to a request, submitted at the first step."""
    yield await submit(request)


class Streams:
    """The streaming requests of one batcher. A run is granted to the reader, in whose task it then runs.

    While a reader has a response and does not ask for the next, its run gives its room on the device back: an
    instance of its own model is all that a slow reader occupies.
    """

    def __init__(
        self, number: str, model: LoadedModel, executor: Executor, splitter: Splitter, share: Share
    ) -> None:
        self._number = number
        self._share = share
        self._paused: deque[tuple[Run, asyncio.Future[None]]] = deque()
        self._model = model
        self._executor = executor
        self._splitter = splitter
        self._turns: dict[Pending, asyncio.Future[Run]] = {}

    def enrol(self, ticket: Ticket) -> asyncio.Future[Run]:
        """Return the future of a queued ticket's run; it fails with the ticket if that never comes."""
        turn: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self._turns[ticket] = turn
        ticket.add_done_callback(self._lost)
        return turn

    def grant(self, run: Run) -> bool:
        """Hand a run to the reader of its one request; False if the reader has gone."""
        turn = self._turns.pop(run.jobs[0].ticket)
        if turn.cancelled():
            return False
        turn.set_result(run)
        return True

    def granted(self, turn: asyncio.Future[Run]) -> Run | None:
        """Return the run that was granted to a reader cancelled in the same turn of the loop."""
        return turn.result() if turn.done() and not turn.cancelled() and turn.exception() is None else None

    def resume_next(self) -> bool:
        """Let the next run whose reader has come back go on; False if there is none."""
        while self._paused:
            run, turn = self._paused.popleft()
            if not turn.done():
                run.paused = False
                turn.set_result(None)
                return True
        return False

    async def of(self, batcher: Streaming, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Give the responses of a request once it has its turn, and the empty one that ends them."""
        run = await batcher.turn(request)
        execution = Execution()
        try:
            async with aclosing(self.responses(run, execution)) as responses:
                async for response in responses:
                    yield response
        finally:
            batcher.stream_over(run, execution)
        yield self.final(run, execution)

    async def responses(self, run: Run, execution: Execution) -> AsyncGenerator[InferResponse, None]:
        """Give the model's responses, none of them final; note times and failure in `execution`.

        Raises:
            GatewayError: the model failed.
        """
        request = run.jobs[0].ticket.request
        clock = self._executor.clock
        resumed_s = clock.now_s()
        execution.error = Cancelled(f"stream of model '{request.model_name}' was closed by its reader")
        try:
            batch = await self._executor.assemble(run.jobs, request.parameters, execution)
            async with AsyncExitStack() as stack:
                results = self._model.stream(batch)
                if isinstance(results, AsyncGenerator):
                    stack.push_async_callback(results.aclose)
                async for result in results:
                    outputs = self._splitter.present(result.outputs, request)
                    execution.seconds += clock.now_s() - resumed_s
                    timing = self._timing(run, execution)
                    self._pause(run, execution)
                    yield respond(request, self._number, outputs, timing, final=False)
                    await self._resume(run)
                    resumed_s = clock.now_s()
            execution.error = None
        except Exception as exc:
            execution.error = self._executor.failure(exc)
            raise execution.error from exc
        finally:
            if not run.paused:
                execution.seconds += clock.now_s() - resumed_s
            execution.compute_infer_ns = int(execution.seconds * 1e9)

    def final(self, run: Run, execution: Execution) -> InferResponse:
        """Return the empty response that ends a stream."""
        timing = self._timing(run, execution)
        return respond(run.jobs[0].ticket.request, self._number, (), timing)

    def _pause(self, run: Run, execution: Execution) -> None:
        run.paused = True
        seconds, run.settled_s = execution.seconds - run.settled_s, execution.seconds
        self._share.release(seconds)

    async def _resume(self, run: Run) -> None:
        """Wait for room on the device; when cancelled the run stays paused."""
        if self._share.retake():
            run.paused = False
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._paused.append((run, turn))
        self._share.wake()
        try:
            await turn
        except asyncio.CancelledError:
            if not run.paused:  # the room was given in the very moment of the cancellation
                run.paused = True
                self._share.release(0.0)
            raise

    def _timing(self, run: Run, execution: Execution) -> RequestTiming:
        infer_ns = int(execution.seconds * 1e9)
        return RequestTiming(run.jobs[0].queue_ns, execution.compute_input_ns, infer_ns, 0, run.rows)

    def _lost(self, ticket: Pending) -> None:
        turn = self._turns.pop(ticket, None)
        if turn is not None and not turn.done() and ticket.error is not None:
            turn.set_exception(ticket.error)
