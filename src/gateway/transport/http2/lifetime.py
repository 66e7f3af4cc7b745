"""When a connection pings, is cut off, or is told to go: keepalive, idleness, age, draining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.transport.http2.errors import ConnectionFault, ErrorCode
from gateway.transport.http2.frames import MAX_STREAM_ID, goaway_frame, ping_frame
from gateway.transport.http2.limits import Limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.transport.http2.limits import ConnectionLimits
    from gateway.transport.http2.sender import Sender

_KEEPALIVE_PING: Final = b"keepaliv"
_DRAIN_PING: Final = b"draining"
_DRAIN_ROUND_TRIP_S: Final = 1.0  # after which a client that answers no ping is not waited for
_PING_STRIKES: Final = 2  # as gRPC's C core forgives
_NEVER: Final = float("inf")


class Lifetime:
    """Decides from the times of what happened; told everything, asked at `next_s`.

    Draining goes in two steps (RFC 9113 section 6.8): a GOAWAY that names the largest stream and a ping; when
    that is answered, every request sent before it has arrived, and a second GOAWAY names the last one.

    Attributes:
        draining: the first GOAWAY has been sent.
        refusing: the second has been sent: later streams are ignored.
        received_s: when something came in last.
        idle_since_s: when the last stream ended, or the connection began.
    """

    __slots__ = (
        "_asked_s",
        "_checked_s",
        "_count_limit",
        "_drain_code",
        "_drained_s",
        "_limits",
        "_pinged_s",
        "_sender",
        "_sent_seen",
        "_started_s",
        "_strikes",
        "draining",
        "idle_since_s",
        "received_s",
        "refusing",
    )

    def __init__(
        self, limits: ConnectionLimits, sender: Sender, count_limit: Callable[[Limit], None], now_s: float
    ) -> None:
        self._limits = limits
        self._sender = sender
        self._count_limit = count_limit
        self._started_s = now_s
        self._asked_s = 0.0  # when our unanswered keepalive ping was sent
        self._checked_s = now_s
        self._pinged_s = -_NEVER  # when the client pinged last
        self._strikes = 0
        self._sent_seen = 0
        self._drained_s = 0.0
        self.draining = False
        self.refusing = False
        self.received_s = now_s
        self.idle_since_s = now_s

    def on_ping(self, sent: int, now_s: float) -> None:
        """Judge a client's ping as gRPC's servers do: too often while it was sent nothing is a strike.

        Args:
            sent: grows whenever a frame of a stream is sent to the client.
            now_s: monotonic time.

        Raises:
            ConnectionFault: ENHANCE_YOUR_CALM, `too_many_pings`, which gRPC's clients understand.
        """
        if sent != self._sent_seen:
            self._sent_seen = sent
            self._strikes = 0
        elif now_s - self._pinged_s < self._limits.min_ping_interval_s:
            self._strikes += 1
        self._pinged_s = now_s
        if self._strikes > _PING_STRIKES:
            self._count_limit(Limit.PINGS)
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")

    def on_ping_ack(self, payload: bytes, last_stream_id: int) -> None:
        """Hear that the client answered a ping."""
        if payload == _DRAIN_PING:
            self.refuse(last_stream_id)
        elif payload == _KEEPALIVE_PING:
            self._asked_s = 0.0

    def drain(self, now_s: float, reason: str = "") -> None:
        """Begin to drain; harmless when repeated."""
        if not self.draining:
            self.draining = True
            self._drained_s = now_s
            self._sender.frame(goaway_frame(MAX_STREAM_ID, ErrorCode.NO_ERROR, reason.encode()))
            self._sender.frame(ping_frame(_DRAIN_PING, ack=False))

    def refuse(self, last_stream_id: int) -> None:
        """Take the second step."""
        if self.draining and not self.refusing:
            self.refusing = True
            self._sender.frame(goaway_frame(last_stream_id, ErrorCode.NO_ERROR))

    def check(self, last_stream_id: int, now_s: float, *, idle: bool) -> bool:
        """Do what is due; return whether the connection is to be closed now, whatever is on it."""
        limits = self._limits
        self._checked_s = now_s
        if self.draining and not self.refusing and now_s >= self._drained_s + _DRAIN_ROUND_TRIP_S:
            self.refuse(last_stream_id)
        if limits.max_age_s is not None and now_s >= self._started_s + limits.max_age_s:
            self.drain(now_s, "max_age")
            grace_s = limits.max_age_grace_s
            if grace_s is not None and now_s >= self._started_s + limits.max_age_s + grace_s:
                return True
        if idle and now_s >= self._idle_end_s():
            self.drain(now_s, "max_idle")
        return self._keep_alive(now_s)

    def next_s(self, *, idle: bool) -> float:
        """Return when to check next."""
        limits = self._limits
        times = [self._keep_alive_s()]
        if self.draining and not self.refusing:
            times.append(self._drained_s + _DRAIN_ROUND_TRIP_S)
        if limits.max_age_s is not None:
            age_s = self._started_s + limits.max_age_s
            if not self.draining:
                times.append(age_s)
            elif limits.max_age_grace_s is not None:
                times.append(age_s + limits.max_age_grace_s)
        if idle and not self.draining:
            times.append(self._idle_end_s())
        return min(times)

    def _keep_alive(self, now_s: float) -> bool:
        if self._asked_s:
            if self.received_s > self._asked_s:
                self._asked_s = 0.0
            elif now_s >= self._asked_s + self._limits.keepalive_timeout_s:
                self._count_limit(Limit.KEEPALIVE_TIMEOUT)
                return True
        if not self._asked_s and now_s >= self._ping_s():
            self._asked_s = now_s
            self._sender.frame(ping_frame(_KEEPALIVE_PING, ack=False))
        return False

    def _keep_alive_s(self) -> float:
        """Return when to look after keepalive: a ping may have been answered, and the next be due, early."""
        if not self._asked_s:
            return self._ping_s()
        next_ping_s = self._asked_s + self._limits.keepalive_time_s
        timeout_s = self._asked_s + self._limits.keepalive_timeout_s
        return min(next_ping_s, timeout_s) if next_ping_s > self._checked_s else timeout_s

    def _ping_s(self) -> float:
        return self.received_s + self._limits.keepalive_time_s

    def _idle_end_s(self) -> float:
        return _NEVER if self._limits.max_idle_s is None else self.idle_since_s + self._limits.max_idle_s
