"""Tells runs that are shorter than handing them to a thread and back."""

from __future__ import annotations

from typing import Final

SHORT_NS: Final = 100_000
"""The loop runs a batch itself when that takes less than this on average. A thread costs it about 60 us: a
future, two wake-ups, and the wait for the interpreter's lock."""

LONG_NS: Final = 2_000_000
"""The loop runs nothing itself that took this long lately: what it may be held up for is 5 ms."""

_WEIGHT: Final = 1 / 16
"""Of the newest run in the average."""

_DECAY: Final = 0.99
"""The longest run counts for less with each that follows: one of 5 ms is forgotten after 90 short ones."""


class RunTimes:
    """How long the runs of one model on one CPU took lately, by the size of what was run.

    Sizes are bytes of the inputs, so that a long axis counts as much as many rows. Times are the running
    thread's CPU time where it does all the work: what the machine's other work adds is not the model's.
    Not thread-safe; written and read on the event loop.
    """

    __slots__ = ("_average_ns", "_longest_ns")

    def __init__(self) -> None:
        self._average_ns: dict[int, float] = {}
        self._longest_ns: dict[int, float] = {}

    def note(self, nbytes: int, run_ns: int) -> None:
        """Take note that a run of inputs of `nbytes` bytes took `run_ns` nanoseconds."""
        size = nbytes.bit_length()
        average_ns = self._average_ns.get(size, float(run_ns))
        self._average_ns[size] = average_ns + (run_ns - average_ns) * _WEIGHT
        self._longest_ns[size] = max(float(run_ns), self._longest_ns.get(size, 0.0) * _DECAY)

    def are_short(self, nbytes: int) -> bool:
        """Whether runs of about `nbytes` bytes are short, none long lately; False of sizes never run."""
        size = nbytes.bit_length()
        average_ns = self._average_ns.get(size)
        return average_ns is not None and average_ns < SHORT_NS and self._longest_ns[size] < LONG_NS
