"""Threads that give way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.core.background import LESS, give_way

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="threads have a niceness of their own on Linux"
)


def niceness(thread: int = 0) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


@contextmanager
def sleeper(*, own_session: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that does nothing."""
    with subprocess.Popen(["sleep", "60"], start_new_session=own_session) as process:
        try:
            yield process
        finally:
            process.kill()


def session_niceness(process: int) -> str:
    """Return the niceness of a process's session among the sessions."""
    return Path(f"/proc/{process}/autogroup").read_text().rpartition(" ")[2].strip()


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


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="the kernel knows no autogroups")
def test_a_process_with_a_session_of_its_own() -> None:
    """Its session gives way, as niceness counts within one alone."""
    ours = session_niceness(os.getpid())
    with sleeper(own_session=True) as process:
        give_way(process.pid, 7)
        assert session_niceness(process.pid) == "7"
        assert niceness(process.pid) == min(19, niceness() + 7)
    assert session_niceness(os.getpid()) == ours


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="the kernel knows no autogroups")
def test_a_process_of_this_session() -> None:
    """The session does not give way with one of its processes."""
    ours = session_niceness(os.getpid())
    with sleeper(own_session=False) as process:
        give_way(process.pid, 7)
        assert niceness(process.pid) == min(19, niceness() + 7)
        assert session_niceness(process.pid) == ours


def test_the_leader_of_this_session() -> None:
    """A program that leads its session does not lower all of that with its first thread."""
    program = (
        "import os; from pathlib import Path; from gateway.core.background import give_way\n"
        "file = Path('/proc/self/autogroup'); before = file.read_text() if file.exists() else ''\n"
        "give_way(os.getpid()); assert os.getpriority(os.PRIO_PROCESS, 0) > 0\n"
        "assert not before or file.read_text() == before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, start_new_session=True)
