"""What a load generator counts, and the load it is told to make."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

_MESSAGES: Final = 20
"""Different error messages kept; further ones are counted together."""


@dataclass(slots=True)
class Tally:
    """Latencies of requests answered well, and errors by message.

    Attributes:
        latencies_ns: from sending to the end of the answer, in order of completion.
        errors: message -> how often; at most `_MESSAGES` and one for all others.
    """

    latencies_ns: array[int] = field(default_factory=lambda: array("q"))
    errors: Counter[str] = field(default_factory=Counter)

    def error(self, message: str) -> None:
        """Count one failed request."""
        known = message in self.errors or len(self.errors) < _MESSAGES
        self.errors[message if known else "other errors"] += 1

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latencies in milliseconds; 0 when there are none."""
        if not self.latencies_ns:
            return 0.0
        return round(float(np.percentile(np.array(self.latencies_ns), percent)) / 1e6, 3)


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop: `concurrency` requests are under way, each followed by the next, for `seconds`."""

    tally: Tally
    concurrency: int
    seconds: float


LoadRun: TypeAlias = Callable[[Load], Awaitable[None]]
"""Makes the load and returns when the last answer has come; what goes wrong is counted in the tally."""
