"""Loads that give way to requests."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gateway.backends.onnxruntime.load_thread import giving_way
from gateway.core.background import LESS
from tests.backends.graphs import batch, identity, load, save

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="threads have a niceness of their own on Linux"
)

_LONGEST_S = 20.0


def tasks() -> set[str]:
    return {task.name for task in Path("/proc/self/task").iterdir()}


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def until_lowered(before: int) -> int:
    """Return this thread's niceness once it is no longer what it was, or after a while."""
    end_s = time.monotonic() + _LONGEST_S
    while niceness() == before and time.monotonic() < end_s:
        threading.Event().wait(0.001)
    return niceness()


def helper(ended: threading.Event) -> Callable[[], int]:
    """Start a thread, as a session does; return what ends it and tells its niceness."""
    found: list[int] = []

    def run() -> None:
        ended.wait(_LONGEST_S)
        found.append(niceness())

    thread = threading.Thread(target=run)
    thread.start()

    def told() -> int:
        ended.set()
        thread.join()
        return found[0]

    return told


def test_gives_way_at_once_without_pools() -> None:
    """Work that starts no threads is lowered while it runs, and who waits for it is not."""
    before = niceness()
    assert giving_way(lambda: until_lowered(before), 0) == min(19, before + LESS)
    assert niceness() == before


def test_what_it_starts_does_not() -> None:
    """Work gives way after it has started its threads, and these keep their niceness."""
    before = niceness()

    def work() -> tuple[int, int]:
        told = helper(threading.Event())
        lowered = until_lowered(before)
        return lowered, told()

    assert giving_way(work, 1) == (min(19, before + LESS), before)


def test_failure_is_raised() -> None:
    """What the work raises comes out as it is."""
    error = ValueError("no model")

    def work() -> None:
        raise error

    with pytest.raises(ValueError, match="no model") as caught:
        giving_way(work, 1)
    assert caught.value is error


@pytest.mark.parametrize(
    "options",
    [
        {"intra_op_threads": 1},
        {"intra_op_threads": 3},
        {"intra_op_threads": 3, "inter_op_threads": 3, "execution_mode": "parallel"},
    ],
)
async def test_threads_of_a_model_keep_their_claim(tmp_path: Path, options: dict[str, object]) -> None:
    """No thread that runs requests is left with less of a claim to the processors than the event loop."""
    before = tasks()
    loaded = await load(save(tmp_path, identity()), backend_options=options)
    await loaded.infer(batch({"x": np.ones((1, 2), np.float32)}))
    new = tasks() - before
    intra, inter = loaded.loaded.threads
    assert len(new) >= intra + inter - 1
    assert {os.getpriority(os.PRIO_PROCESS, int(task)) for task in new} == {niceness()}
    await loaded.aclose()
