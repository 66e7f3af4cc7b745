"""Tells runs that are shorter than handing them to a thread and back."""

from __future__ import annotations

from typing import Final

SHORT_NS: Final = 100_000
"""The loop runs a batch itself when that is expected to take less than this. A thread costs it about 60 us:
a future, two wake-ups, and the wait for the interpreter's lock."""

_DECAY: Final = 0.99
"""A long run counts for less with each that follows: one of 5 ms is forgotten after 400 short ones."""


class RunTimes:
    """The longest recent runs of one model on one CPU, by the size of what was run.

    Sizes are bytes of the inputs, so that a long axis counts as much as many rows. Times are the running
    thread's CPU time where it does all the work: what the machine's other work adds is not the model's.
    Not thread-safe; written and read on the event loop.
    """

    __slots__ = ("_longest_ns",)

    def __init__(self) -> None:
        self._longest_ns: dict[int, float] = {}

    def note(self, nbytes: int, run_ns: int) -> None:
        """Take note that a run of inputs of `nbytes` bytes took `run_ns` nanoseconds."""
        size = nbytes.bit_length()
        self._longest_ns[size] = max(run_ns, self._longest_ns.get(size, 0.0) * _DECAY)

    def are_short(self, nbytes: int) -> bool:
        """Whether runs of about `nbytes` bytes were all short lately; False of sizes never run."""
        return self._longest_ns.get(nbytes.bit_length(), SHORT_NS) < SHORT_NS
