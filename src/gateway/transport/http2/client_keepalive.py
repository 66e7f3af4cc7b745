"""When a client pings its server, and when it gives it up (gRPC's keepalive)."""

from __future__ import annotations

from typing import Final

_PINGS_WITHOUT_ANSWERS: Final = 2
_RARE_PING_S: Final = 300.0
"""gRPC's servers drop clients that ping more often while nothing is answered; two pings they forgive."""
_NEVER: Final = float("inf")


class ClientKeepalive:
    """Decides from the times of what happened; asked at the times that it says. Only with requests under way.

    Args:
        time_s: a server that is silent for so long is pinged.
        timeout_s: one that is still silent so long after that is given up.
        now_s: monotonic time.

    Attributes:
        received_s: when something came in last.
        busy_s: since when requests are under way.
        pings: since a response brought something; whoever sees one sets it back.
    """

    __slots__ = ("_asked_s", "_time_s", "_timeout_s", "busy_s", "pings", "received_s")

    def __init__(self, time_s: float, timeout_s: float, now_s: float) -> None:
        self._time_s = time_s
        self._timeout_s = timeout_s
        self._asked_s = 0.0  # when our unanswered ping was sent
        self.received_s = now_s
        self.busy_s = now_s
        self.pings = 0

    def is_lost(self, now_s: float) -> bool:
        """Whether a ping was not answered in time; anything that has come since answers it."""
        if self._asked_s and self.received_s > self._asked_s:
            self._asked_s = 0.0
        return self._asked_s > 0 and now_s >= self._asked_s + self._timeout_s

    def should_ping(self, now_s: float) -> bool:
        """Whether to ping now; counts as done."""
        if self._asked_s or now_s < self._due_s():
            return False
        self._asked_s = now_s
        self.pings += 1
        return True

    def next_s(self, now_s: float, *, busy: bool) -> float:
        """Return when to ask again; infinite without requests, whose end also ends a question."""
        if not busy:
            self._asked_s = 0.0
            return _NEVER
        if not self._asked_s:
            return self._due_s()
        # The ping may be answered soon, and the next be due before this one's time is over.
        timeout_s = self._asked_s + self._timeout_s
        next_ping_s = self._asked_s + self._time_s
        return min(timeout_s, next_ping_s) if next_ping_s > now_s else timeout_s

    def _due_s(self) -> float:
        silence_s = self._time_s if self.pings < _PINGS_WITHOUT_ANSWERS else max(self._time_s, _RARE_PING_S)
        return max(self.received_s, self.busy_s) + silence_s
