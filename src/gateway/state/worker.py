"""The one thread that state is read and written in, one job after the other."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from gateway.core.state import StateUnavailable
from gateway.core.threads import run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """A thread that runs blocking functions in the order they come."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._closed = False

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in the thread.

        Cancelling calls it off when it has not begun, and otherwise waits until it has ended.

        Raises:
            StateUnavailable: the worker is closed.
        """
        if self._closed:
            raise StateUnavailable("the state is closed: the gateway is shutting down")
        return await run_to_end(self._executor, work, *args, **kwargs)

    async def aclose(self) -> None:
        """End the thread when what was given to it is done; harmless twice."""
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)
