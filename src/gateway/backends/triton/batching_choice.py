"""Whether this gateway's batches or Triton's own are faster, found by trying. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceOptions:
    """How the two ways are compared.

    Attributes:
        trial_rows: rows of one way that are measured before it is judged.
        trial_busy_s: seconds with something under way that it is measured for at least.
        again_s: the way not taken is tried again after so many busy seconds of the one taken; doubled with
            each trial that it loses.
        longest_again_s: but never later than that.
        margin: it is taken only when it needs less time per row by this share.
        least_company: requests under way on average, below which nothing is tried: lone requests are no
            batch in either way.
    """

    trial_rows: int = 512
    trial_busy_s: float = 0.5
    again_s: float = 20.0
    longest_again_s: float = 600.0
    margin: float = 0.1
    least_company: float = 2.0


class _Measure:
    """Busy seconds, rows and company of one way since it was last begun."""

    __slots__ = ("busy_s", "company_s", "rows")

    def __init__(self) -> None:
        self.busy_s = 0.0
        self.company_s = 0.0
        self.rows = 0

    @property
    def company(self) -> float:
        return self.company_s / self.busy_s if self.busy_s else 0.0

    @property
    def per_row_s(self) -> float:
        return self.busy_s / self.rows if self.rows else math.inf


_PATIENCE: Final = 4
"""A trial ends after so many times the seconds that the other way was measured for."""
_PASSTHROUGH: Final = False
_GATEWAY: Final = True


class BatchingChoice:
    """Chooses for one model that Triton batches dynamically; begins by passing requests through.

    Compared is the time with something under way per row answered. At full load that is the inverse of the
    throughput. With less it is nearly the same for both, and then nothing is changed: each change has to be
    worth `margin`, and passing through is what needs no second queue.

    Attributes:
        gateway: this gateway forms batches now.
        trials: how often the way not taken was tried.
        changes: how often it was then taken.
    """

    def __init__(self, options: ChoiceOptions = ChoiceOptions()) -> None:
        self.gateway = _PASSTHROUGH
        self.trials = 0
        self.changes = 0
        self._options = options
        self._again_s = options.again_s
        self._first = True
        self._taken: _Measure | None = None
        """What the way taken measured before a trial of the other; None outside of trials."""
        self._now = _Measure()
        self._settling = 0
        self._under_way = 0
        self._at_s = 0.0

    def began(self, requests: int, now_s: float) -> None:
        """Take note that a run with so many requests or rows began.

        Args:
            requests: rows of it.
            now_s: monotonic time.
        """
        self._pass(now_s)
        self._under_way += requests

    def ended(self, requests: int, now_s: float, *, answered: bool = True) -> None:
        """Take note of its end; what failed counts as time and not as rows."""
        self._pass(now_s)
        self._under_way -= requests
        if self._settling > 0:
            # Runs that began in the other way say nothing about this one.
            self._settling -= requests
            if self._settling <= 0:
                self._now = _Measure()
            return
        if answered:
            self._now.rows += requests
        self._decide()

    def _pass(self, now_s: float) -> None:
        if self._under_way:
            seconds = max(0.0, now_s - self._at_s)
            self._now.busy_s += seconds
            self._now.company_s += seconds * self._under_way
        self._at_s = now_s

    def _decide(self) -> None:
        measure, options = self._now, self._options
        if self._taken is not None and measure.busy_s > _PATIENCE * self._taken.busy_s:
            self._judge(self._taken, measure)  # so few rows in so long are an answer as well
        if measure.rows < options.trial_rows or measure.busy_s < options.trial_busy_s:
            return
        if self._taken is not None:
            self._judge(self._taken, measure)
        elif measure.company >= options.least_company and (self._first or measure.busy_s >= self._again_s):
            self._first = False
            self.trials += 1
            self._taken = measure
            self._switch()
        elif measure.busy_s >= self._again_s:
            self._now = _Measure()  # what it was long ago says little

    def _judge(self, taken: _Measure, tried: _Measure) -> None:
        """End a trial."""
        self._taken = None
        if tried.per_row_s < taken.per_row_s * (1 - self._options.margin):
            self.changes += 1
            self._again_s = self._options.again_s
            self._now = _Measure()
        else:
            self._again_s = min(2 * self._again_s, self._options.longest_again_s)
            self._switch()

    def _switch(self) -> None:
        self.gateway = not self.gateway
        self._now = _Measure()
        self._settling = self._under_way
