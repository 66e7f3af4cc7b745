"""Threads of the cache."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from gateway.core.background import LESS
from gateway.registry.cache.workers import Workers


async def test_cancelling_waits_for_what_has_begun() -> None:
    """Work that runs has ended when its caller is told of the cancellation, or of several."""
    workers = Workers(1)
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait()
        ended.set()

    calling = asyncio.create_task(workers.run(work))
    await asyncio.to_thread(begun.wait)
    for _ in range(2):
        calling.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not calling.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert ended.is_set()
    await workers.aclose()


async def test_cancelling_takes_back_what_has_not_begun() -> None:
    """Work that waits for a thread is not done once its caller is cancelled."""
    workers = Workers(1)
    go = threading.Event()
    done: list[int] = []
    first = asyncio.create_task(workers.run(go.wait))
    second = asyncio.create_task(workers.run(done.append, 1))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()
    assert await first
    await workers.aclose()
    assert done == []


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux")
async def test_they_give_way() -> None:
    """What the cache does with files gives way to the event loop."""
    workers = Workers(2)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    found = await asyncio.gather(*(workers.run(os.getpriority, os.PRIO_PROCESS, 0) for _ in range(4)))
    assert set(found) == {min(19, own + LESS)}
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
    await workers.aclose()
