"""Requests of decoupled models: their turn in the queue, and their responses as the model makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from gateway.batching.tickets import respond
from gateway.core.errors import Cancelled
from gateway.core.types import RequestTiming

if TYPE_CHECKING:
    from gateway.batching.answers import Run
    from gateway.batching.execution import Execution, Executor
    from gateway.batching.splitting import Splitter
    from gateway.batching.tickets import Ticket
    from gateway.core.interfaces import LoadedModel
    from gateway.core.pending import Pending
    from gateway.core.types import InferResponse


class Streams:
    """The streaming requests of one batcher. A run is granted to the reader, in whose task it then runs."""

    def __init__(self, number: str, model: LoadedModel, executor: Executor, splitter: Splitter) -> None:
        self._number = number
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

    async def responses(self, run: Run, execution: Execution) -> AsyncGenerator[InferResponse, None]:
        """Give the model's responses, none of them final; note times and failure in `execution`.

        Raises:
            GatewayError: the model failed.
        """
        request = run.jobs[0].ticket.request
        clock = self._executor.clock
        started_s = clock.now_s()
        execution.error = Cancelled(f"stream of model '{request.model_name}' was closed by its reader")
        try:
            batch = await self._executor.assemble(run.jobs, request.parameters, execution)
            async with AsyncExitStack() as stack:
                results = self._model.stream(batch)
                if isinstance(results, AsyncGenerator):
                    stack.push_async_callback(results.aclose)
                async for result in results:
                    outputs = self._splitter.present(result.outputs, request)
                    timing = self._timing(run, execution, clock.now_s() - started_s)
                    yield respond(request, self._number, outputs, timing, final=False)
            execution.error = None
        except Exception as exc:
            execution.error = self._executor.failure(exc)
            raise execution.error from exc
        finally:
            execution.seconds = clock.now_s() - started_s
            execution.compute_infer_ns = int(execution.seconds * 1e9)

    def final(self, run: Run, execution: Execution) -> InferResponse:
        """Return the empty response that ends a stream."""
        timing = self._timing(run, execution, execution.seconds)
        return respond(run.jobs[0].ticket.request, self._number, (), timing)

    def _timing(self, run: Run, execution: Execution, seconds: float) -> RequestTiming:
        return RequestTiming(
            run.jobs[0].queue_ns, execution.compute_input_ns, int(seconds * 1e9), 0, run.rows
        )

    def _lost(self, ticket: Pending) -> None:
        turn = self._turns.pop(ticket, None)
        if turn is not None and not turn.done() and ticket.error is not None:
            turn.set_exception(ticket.error)
