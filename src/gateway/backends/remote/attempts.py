"""One attempt at one endpoint: its time limit, what its end says of the endpoint, its slot."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, TypeVar

from gateway.backends.remote.timing import TimeLimit
from gateway.core.errors import (
    BackendUnavailable,
    Cancelled,
    DeadlineExceeded,
    GatewayError,
    Unavailable,
)
from gateway.core.remote import AttemptError, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.backends.remote.members import ConnectionT
    from gateway.backends.remote.slots import Slot
    from gateway.core.clock import Clock

    Operation: TypeAlias = "Callable[[ConnectionT, float | None], Awaitable[T]]"
    """Takes a connection and how many seconds it may take; None: as long as it likes."""
    StreamOperation: TypeAlias = "Callable[[ConnectionT, float | None], AsyncIterator[T]]"
    Limits: TypeAlias = tuple[float | None, float | None]
    """Seconds that an operation is told it may take, and the monotonic time at which it is ended
    should it not end itself."""

T = TypeVar("T")


class End(enum.Enum):
    """What an attempt gives after its last item."""

    END = enum.auto()


END: Final = End.END


async def attempt(
    operation: Operation[ConnectionT, T], slot: Slot[ConnectionT], limits: Limits, clock: Clock
) -> T:
    """Run an operation; the slot is given back before this returns, however it does.

    Cancelling cancels the operation.

    Args:
        operation: what to do.
        slot: where.
        limits: how long it may take.
        clock: time.

    Raises:
        AttemptError: another endpoint may do better.
        GatewayError: the answer.
    """
    timeout_s, until_s = limits
    outcome = Outcome.CANCELLED
    try:
        result = await _limited(operation(slot.connection, timeout_s), clock, until_s)
        outcome = Outcome.OK
        return result
    except Exception as error:
        outcome = outcome_of(error)
        raise
    finally:
        slot.end(outcome)


class StreamAttempt(Generic[T]):
    """An attempt that gives any number of items; `aclose` gives its slot back if its end has not.

    Args:
        operation: what to do.
        slot: where.
        limits: how long it may take, from the first item to the last.
        clock: time.
    """

    def __init__(
        self,
        operation: StreamOperation[ConnectionT, T],
        slot: Slot[ConnectionT],
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._operation = operation
        self._items: AsyncIterator[T] | None = None
        self._timeout_s, self._until_s = limits
        self._slot = slot
        self._clock = clock

    async def next(self) -> T | Literal[End.END]:
        """Return the next item, or END; raises as `attempt`. Not to be called after the end."""
        try:
            if self._items is None:
                self._items = self._operation(self._slot.connection, self._timeout_s)
            return await _limited(anext(self._items), self._clock, self._until_s)
        except StopAsyncIteration:
            self._slot.end(Outcome.OK)
            return END
        except Exception as error:
            self._slot.end(outcome_of(error))
            raise

    async def aclose(self) -> None:
        """End the operation, should it still run."""
        try:
            if isinstance(self._items, AsyncGenerator):
                await self._items.aclose()
        finally:
            self._slot.abandon()


def outcome_of(error: Exception) -> Outcome:
    """Return what an error of an operation says about the endpoint."""
    match error:
        case AttemptError():
            return error.outcome
        case DeadlineExceeded():
            return Outcome.TIMED_OUT
        case Cancelled():
            return Outcome.CANCELLED
        case Unavailable():
            return Outcome.REFUSED
        case GatewayError() if not isinstance(error, BackendUnavailable):
            return Outcome.OK
        case _:
            return Outcome.FAILED


async def _limited(step: Awaitable[T], clock: Clock, until_s: float | None) -> T:
    limit = TimeLimit(clock, until_s)
    try:
        with limit:
            try:
                return await step
            except asyncio.CancelledError as error:
                if limit.ending():
                    raise
                # grpc.aio cancels what is under way on a channel that is closed.
                raise AttemptError("the connection was closed", Outcome.FAILED) from error
    except TimeoutError as error:
        raise AttemptError("no answer in time", Outcome.TIMED_OUT) from error
