"""When requests came and went, as the log has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from gateway.core.types import Array

_MICROSECONDS: Final = (1 << 32) - 1


class Times:
    """When requests came and went; arrays of one element per request.

    Attributes:
        arrived_ns: wall clock.
        done_ns: wall clock.
        queue_us: microseconds in queue.
        infer_us: microseconds of the run.
    """

    __slots__ = ("arrived_ns", "done_ns", "infer_us", "queue_us")

    def __init__(self, arrived_ns: Array, done_ns: Array, queue_us: Array, infer_us: Array) -> None:
        self.arrived_ns = arrived_ns
        self.done_ns = done_ns
        self.queue_us = queue_us
        self.infer_us = infer_us

    def of(self, places: list[int]) -> Times:
        """Return those of some requests."""
        return Times(
            self.arrived_ns[places], self.done_ns[places], self.queue_us[places], self.infer_us[places]
        )


def microseconds(nanoseconds: Array) -> Array:
    """Return durations in microseconds, as uint32; those beyond its range are its ends."""
    return np.asarray(np.clip(nanoseconds // 1000, 0, _MICROSECONDS), np.uint32)
