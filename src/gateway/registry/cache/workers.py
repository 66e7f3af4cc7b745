"""Threads of the artifact cache, so that its work on files neither waits for others' nor holds it up."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from gateway.core.background import give_way
from gateway.core.threads import run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """A few threads that run blocking functions, and give way to whoever else wants a processor."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, "artifact-cache", initializer=give_way)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a thread.

        Cancelling waits until it has ended when it has begun: nothing goes on with files that others may have
        by then. So it should be short, or else not mind being waited for.
        """
        return await run_to_end(self._executor, work, *args, **kwargs)

    async def aclose(self) -> None:
        """End the threads when what they do is done."""
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)
