"""Threads that give way."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.core.background import LESS, give_way

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="threads have a niceness of their own on Linux"
)


def niceness(thread: int = 0) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def test_only_the_thread_gives_way() -> None:
    """A thread that gives way is nicer by the stated amount, and no other is."""
    before = niceness()
    with ThreadPoolExecutor(1, initializer=give_way) as threads:
        found = threads.submit(niceness).result()
    assert found == min(19, before + LESS)
    assert niceness() == before


def test_never_beyond_the_last_level() -> None:
    """Giving way again and again ends at the most that there is."""

    def repeatedly() -> int:
        for _ in range(4):
            give_way()
        return niceness()

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(repeatedly).result() == 19


def test_a_thread_that_has_ended() -> None:
    """Nothing happens when the thread is there no more."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert thread.native_id is not None
    give_way(thread.native_id)
