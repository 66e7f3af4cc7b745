"""Lets threads that compute for long give way to the event loop and to whoever else is waited for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

LESS: Final = 10
"""Added to a thread's niceness: a tenth of the claim to a processor (sched(7)). Beside two programs that hash
on two processors, an echo took 0.5 ms at p99 with it, and 4 without: who wakes up beside a thread of the same
niceness may wait for the tick, 4 ms. Not more, for who computes may hold a lock that the loop needs."""
MOST: Final = 19
"""The greatest niceness there is; for a process of its own, which holds no lock of ours."""


def give_way(thread: int = 0, less: int = LESS) -> None:
    """Lower the claim of a thread or process to the processors, by `less`, for good.

    Threads and processes that it starts from then on inherit it. There is no way back: raising takes a
    privilege that a server seldom has. Only on Linux, where threads have a niceness of their own; elsewhere,
    and where the thread has ended, nothing happens.

    Args:
        thread: its native id, or the id of a process; 0 for the calling thread. Of another process that leads
            a session, the session gives way: where the kernel shares processors out by session (sched(7),
            autogroups), niceness counts within one alone.
        less: added to its niceness.
    """
    if sys.platform == "linux":
        try:
            niceness = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(MOST, niceness + less))
            if thread not in {0, os.getpid()} and os.getsid(thread) == thread:
                Path(f"/proc/{thread}/autogroup").write_text(str(less))
        except OSError:
            return
