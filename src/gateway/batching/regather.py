"""How long to wait, after a run, for the clients it answered to come back with their next requests.

Clients that keep a fixed number of requests in flight are answered by a run together. Where the model has
processors of its own, the next run takes what came meanwhile, and two halves of the clients take turns.
Where it shares them with the event loop, taking turns gains nothing and costs much: half as large batches,
and every request that is read during a run evicts the model's weights from the caches. There the next run is
formed when the clients are back.
"""

from __future__ import annotations

from typing import Final

MOST_SHARE: Final = 0.2
"""Share of the last run's time that a wait may take."""
MOST_S: Final = 0.002
_WORTH: Final = 0.5
"""Share of the expected rows that must have come for a wait to have been worth it. Requests that come at
times of their own, whoever was answered, bring at most `MOST_SHARE` of a run's rows on average."""
_MOST_SKIPPED: Final = 64


class Regather:
    """Decides for one batcher. Waits that bring nothing are tried ever more rarely, down to each 64th run."""

    __slots__ = ("_expected_rows", "_skip", "_skips", "_until_s", "_waiting_rows", "_waits")

    def __init__(self) -> None:
        self._expected_rows = 0
        self._waiting_rows = 0
        self._until_s = 0.0
        self._skip = 0
        self._skips = 0
        self._waits = False

    def begin(self, answered_rows: int, waiting_rows: int, run_s: float, now_s: float) -> None:
        """Note a run that took `run_s`, has just been answered, and left `waiting_rows` in the queue."""
        self._waiting_rows = waiting_rows
        self._expected_rows = waiting_rows + answered_rows
        self._until_s = now_s
        self._waits = self._skip == 0
        if self._waits:
            self._until_s += min(run_s * MOST_SHARE, MOST_S)
        else:
            self._skip -= 1

    def over(self, waiting_rows: int, full_rows: int, now_s: float) -> bool:
        """Return whether the next run is to be formed now; asked on every turn of the loop until it is.

        Args:
            waiting_rows: rows in the queue.
            full_rows: the most rows of a run.
            now_s: the time.
        """
        if waiting_rows < min(self._expected_rows, full_rows) and now_s < self._until_s:
            return False
        if self._waits:
            came = waiting_rows - self._waiting_rows
            worth = came >= _WORTH * (self._expected_rows - self._waiting_rows)
            self._skips = 0 if worth else min(2 * self._skips + 1, _MOST_SKIPPED)
            self._skip = self._skips
        return True
