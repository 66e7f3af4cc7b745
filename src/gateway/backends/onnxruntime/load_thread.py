"""Runs a load in a thread that gives way to requests, and the threads that the load starts do not."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.core.background import give_way

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_TASKS: Final = Path("/proc/self/task")
_LOOK_S: Final = 0.001
_LOOKS: Final = 200
"""ONNX Runtime starts its pools 1 to 4 ms after a load began, before it reads the file."""


def giving_way(work: Callable[[], T], pool_threads: int) -> T:
    """Run `work` in a thread of its own and return or raise what comes of it; blocking.

    Threads inherit the niceness of who starts them and could not raise it again, and those of a session's
    pools run requests. So `work` begins as any thread, and gives way once it has started them.

    Args:
        work: what is run, once.
        pool_threads: how many threads it starts for others; until they are all there it does not give way.
    """
    future: Future[T] = Future()
    known = _tasks()

    def run() -> None:
        # What it starts inherits the name as well, and is told by it from the threads of others.
        _rename(threading.get_native_id())
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            future.set_exception(error)

    thread = threading.Thread(target=run, name="onnxruntime-load")
    thread.start()
    if thread.native_id is not None and _started(thread, thread.native_id, pool_threads, known):
        give_way(thread.native_id)
    thread.join()
    return future.result()


def _started(thread: threading.Thread, native_id: int, pool_threads: int, known: set[str]) -> bool:
    """Wait until a load has started its threads; return whether it has, and goes on."""
    for _ in range(_LOOKS):
        if not thread.is_alive():
            return False
        if not pool_threads:
            return True
        names = [_name_of(task) for task in _tasks() - known - {str(native_id)}]
        if names.count(_name(native_id)) >= pool_threads:
            return True
        time.sleep(_LOOK_S)
    return False


def _tasks() -> set[str]:
    try:
        return set(os.listdir(_TASKS))  # noqa: PTH208 - a fifth of the time, of hundreds of threads
    except OSError:
        return set()


def _name(native_id: int) -> str:
    return f"load-{native_id}"


def _name_of(task: str) -> str:
    try:
        return (_TASKS / task / "comm").read_text().rstrip("\n")
    except OSError:  # it has ended
        return ""


def _rename(native_id: int) -> None:
    try:
        (_TASKS / str(native_id) / "comm").write_text(_name(native_id))
    except OSError:
        return
