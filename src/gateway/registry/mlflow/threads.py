"""Runs blocking calls beside the event loop, so that one which hangs holds up neither it nor the exit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class BlockingCalls:
    """A few daemon threads for calls of one kind.

    A pool of `concurrent.futures` would be joined when the process ends, however long its calls hang; these
    are left behind. At most `limit` calls run at a time, those included whose caller has given up.

    Args:
        name: of its threads.
        limit: calls that run at a time; more wait their turn.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._free = asyncio.Semaphore(limit)

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, or raise what it raises.

        Cancelling stops the waiting, not the call: it must end by time limits of its own.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        thread = threading.Thread(target=self._work, args=(call, future), name=self._name, daemon=True)
        try:
            thread.start()
        except BaseException:
            self._free.release()
            raise
        return await future

    def _work(self, call: Callable[[], T], future: asyncio.Future[T]) -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = call()
        except BaseException as exc:  # noqa: BLE001 - it is the caller's, who waits on the loop
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop has gone, and with it who asked
            future.get_loop().call_soon_threadsafe(self._settle, future, result, error)

    def _settle(self, future: asyncio.Future[T], result: T | None, error: BaseException | None) -> None:
        self._free.release()
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only where T is
