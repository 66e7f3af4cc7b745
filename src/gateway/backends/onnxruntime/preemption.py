"""Lets a run finish what it is at when requests arrive for a processor that it shares with the event loop."""

from __future__ import annotations

import os
from contextlib import suppress


def yield_to_runs() -> None:
    """Have the kernel wake the calling thread, the event loop's, without preempting a run (SCHED_BATCH).

    An ordinary thread that wakes takes the processor at once: every request that arrives during a run then
    costs two switches, finds the caches full of the model's weights, and leaves them to the run full of
    something else. One of this policy goes on when the run ends or its time slice is over, after about 3 ms,
    and reads what came meanwhile together. Its share of the processor stays what it was (sched(7)); threads
    that it starts from now on inherit the policy.

    Nothing happens where the operator has chosen another policy than the ordinary one, where the kernel does
    not allow the change, or does not know the policy.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return
    with suppress(OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
