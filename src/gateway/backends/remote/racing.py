"""Attempts beside each other: the first that decides a request ends the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from gateway.core.remote import AttemptError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.backends.remote.members import ConnectionT
    from gateway.backends.remote.slots import Slot

T = TypeVar("T")


class Race(Generic[T]):
    """Runs attempts as tasks of a group; over when one gave an answer, or when none is left that may.

    An answer is a result, or an error that another attempt would not mend.

    Attributes:
        over: set when there is nothing more to wait for.
    """

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.over = asyncio.Event()
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []
        self._running = 0
        self._winner = -1
        self._results: list[T] = []
        self._error: Exception | None = None

    @property
    def winner(self) -> int:
        """Which attempt gave a result, 0 the first; -1: none did."""
        return self._winner

    def start(self, attempt: Callable[[], Coroutine[None, None, T]], slot: Slot[ConnectionT]) -> None:
        """Begin an attempt that gives back `slot`."""
        self._running += 1
        task = self._group.create_task(self._run(len(self._tasks), attempt))
        task.add_done_callback(lambda _: slot.abandon())  # one cancelled before its first step never ran
        self._tasks.append(task)

    def stop(self) -> None:
        """Cancel what still runs; the group waits for it."""
        for task in self._tasks:
            task.cancel()

    def answer(self) -> T:
        """Return the result.

        Raises:
            AttemptError: every attempt failed; that of the last.
            Exception: the answer is an error.
        """
        if self._winner < 0:
            assert self._error is not None, "the race is not over"
            raise self._error
        return self._results[0]

    async def _run(self, number: int, attempt: Callable[[], Coroutine[None, None, T]]) -> None:
        try:
            result = await attempt()
        except Exception as error:  # noqa: BLE001 - raised by `answer`
            self._failed(error)
        else:
            if not self.over.is_set():
                self._results.append(result)
                self._winner = number
                self.over.set()

    def _failed(self, error: Exception) -> None:
        self._running -= 1
        if self.over.is_set():
            return
        self._error = error
        if self._running == 0 or not isinstance(error, AttemptError):
            self.over.set()
