"""Work in threads whose end is waited for, also by whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

P = ParamSpec("P")
T = TypeVar("T")


async def run_to_end(executor: Executor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a thread of `executor`.

    Cancelling calls it off when it has not begun, and otherwise waits until it has ended: nothing goes on
    with files that others may have by then.
    """
    job = executor.submit(work, *args, **kwargs)
    ended = asyncio.wrap_future(job)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        if not job.cancel():
            await outlast(ended)
        raise


async def outlast(future: asyncio.Future[T]) -> None:
    """Wait until `future` is done, whatever comes of it; further cancellations wait with it."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()
