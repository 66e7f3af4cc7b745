"""The replay's event loop: sends requests when they are due or an answer makes room, and times the answers.

Written on epoll itself: what asyncio costs per event is more than the rest of a request costs here, and its
timers count in milliseconds. Shortly before a request is due the loop spins.
"""

from __future__ import annotations

import select
import socket
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from loadtests.replay.ends import Answers, End

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DRAIN_S: Final = 10.0
"""How long answers are waited for after the last request."""
_READ_BYTES: Final = 1 << 18
_SPIN_S: Final = 0.002


class Connection(Protocol):
    """A connection's state without its socket; see HttpConnection, UnaryCalls, StreamCalls."""

    opening: bytes
    out: list[bytes]
    going: bool

    @property
    def room(self) -> int:
        """Requests that may be sent now."""
        ...

    @property
    def unanswered(self) -> list[int]:
        """Requests sent and not answered."""
        ...

    def send(self, number: int) -> None:
        """Put a request into `out`."""
        ...

    def receive(self, data: bytes) -> None:
        """Take in bytes; the ends of requests go to the answers."""
        ...


@dataclass(slots=True)
class Timings:
    """What was sent and how it ended.

    Attributes:
        begun_s: of each request, when it was sent (closed loop) or due (open loop).
        ended_s: when its answer came; 0 if none.
        ends: how it ended; -1 while it has not.
        started_s: when the run began.
        last_s: when the last answer came.
    """

    begun_s: array[float] = field(default_factory=lambda: array("d"))
    ended_s: array[float] = field(default_factory=lambda: array("d"))
    ends: array[int] = field(default_factory=lambda: array("b"))
    started_s: float = 0.0
    last_s: float = 0.0

    def begin(self, begun_s: float) -> int:
        """Return the number of a new request."""
        self.begun_s.append(begun_s)
        self.ended_s.append(0.0)
        self.ends.append(-1)
        return len(self.ends) - 1

    def end(self, number: int, end: End, now_s: float) -> None:
        """Note an answer."""
        self.ended_s[number] = now_s
        self.ends[number] = end
        self.last_s = now_s


class _Wire:
    """A connection and its socket."""

    def __init__(self, connection: Connection, address: tuple[str, int]) -> None:
        self.connection = connection
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent = connection.opening
        self.flush()

    def flush(self) -> bool:
        """Send what there is; return whether all of it went."""
        out = self.connection.out
        if out:
            self.unsent = b"".join([self.unsent, *out]) if self.unsent else b"".join(out)
            out.clear()
        if self.unsent:
            try:
                sent = self.socket.send(self.unsent)
            except BlockingIOError:
                return False
            self.unsent = self.unsent[sent:]
        return not self.unsent


class Loop:
    """Runs one load over a number of connections.

    Args:
        make: returns a new connection's state.
        address: to connect to.
        connections: how many.
        answers: what the connections of `make` write to.
    """

    def __init__(
        self, make: Callable[[], Connection], address: tuple[str, int], connections: int, answers: Answers
    ) -> None:
        self._make, self._address, self._answers = make, address, answers
        self._poll = select.epoll()
        self._wires: dict[int, _Wire] = {}
        self.timings = Timings()
        self._quota = 0  # of each connection in a closed loop
        self._until_s = 0.0
        for _ in range(connections):
            self._connect()

    def closed(self, in_flight: int, seconds: float) -> None:
        """Keep so many requests in flight for so long, then wait for the answers."""
        self._quota = in_flight // len(self._wires)
        self.timings.started_s = time.perf_counter()
        self._until_s = self.timings.started_s + seconds
        for wire in list(self._wires.values()):
            self._fill(wire, self._quota)
        while time.perf_counter() < self._until_s:
            self._turn(0.1)
        self._drain()

    def open(self, offsets_s: Sequence[float]) -> int:
        """Send requests at these times from now on, then wait for the answers.

        Returns:
            How many were due and never sent, as no connection had room for them.
        """
        start_s = self.timings.started_s = time.perf_counter()
        end_s = self._until_s = start_s + (offsets_s[-1] if len(offsets_s) else 0.0)
        waiting: deque[float] = deque()
        due = 0
        while due < len(offsets_s) or (waiting and time.perf_counter() < end_s + DRAIN_S):
            now_s = time.perf_counter()
            while due < len(offsets_s) and start_s + offsets_s[due] <= now_s:
                waiting.append(start_s + offsets_s[due])
                due += 1
            if waiting:
                self._spread(waiting)
            ahead_s = start_s + offsets_s[due] - time.perf_counter() if due < len(offsets_s) else 0.1
            self._turn(max(ahead_s - _SPIN_S, 0.0))
        self._drain()
        return len(waiting)

    def close(self) -> None:
        """Close every connection."""
        for wire in self._wires.values():
            wire.socket.close()
        self._poll.close()

    def _spread(self, waiting: deque[float]) -> None:
        """Send what is due over the connections in turn, as far as they have room."""
        touched = {}
        for fd in list(self._wires):
            if not waiting:
                break
            wire = self._wires.pop(fd)
            self._wires[fd] = wire  # to the end: the next request goes elsewhere
            if wire.connection.room > 0:
                wire.connection.send(self.timings.begin(waiting.popleft()))
                touched[fd] = wire
        for wire in touched.values():
            self._flush(wire)

    def _fill(self, wire: _Wire, count: int) -> None:
        """Send requests of a closed loop."""
        now_s = time.perf_counter()
        for _ in range(count):
            wire.connection.send(self.timings.begin(now_s))
        self._flush(wire)

    def _turn(self, timeout_s: float) -> None:
        """Take in what has come; in a closed loop send as much again."""
        for fd, event in self._poll.poll(timeout_s):
            wire = self._wires[fd]
            if event & select.EPOLLOUT:
                self._flush(wire)
            if event & ~select.EPOLLOUT:
                self._read(wire)

    def _read(self, wire: _Wire) -> None:
        try:
            data = wire.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            self._lost(wire, str(exc))
            return
        if not data:
            self._lost(wire, "the server closed the connection")
            return
        wire.connection.receive(data)
        ended = self._answers.ended
        if ended:
            now_s = time.perf_counter()
            for number, end in ended:
                self.timings.end(number, end, now_s)
            count = len(ended)
            ended.clear()
            if self._quota and now_s < self._until_s and wire.connection.going:
                self._fill(wire, count)
                return
        if wire.connection.out:
            self._flush(wire)
        if not wire.connection.going and not wire.connection.unanswered:
            self._reconnect(wire)

    def _flush(self, wire: _Wire) -> None:
        try:
            more = 0 if wire.flush() else select.EPOLLOUT
        except OSError as exc:
            self._lost(wire, str(exc))
            return
        self._poll.modify(wire.socket, select.EPOLLIN | more)

    def _lost(self, wire: _Wire, why: str) -> None:
        unanswered = wire.connection.unanswered
        if unanswered:
            self._answers.problems[f"connection lost with requests in flight: {why}"] += 1
        now_s = time.perf_counter()
        for number in unanswered:
            self.timings.end(number, End.FAILED, now_s)
        self._reconnect(wire)

    def _reconnect(self, wire: _Wire) -> None:
        """Replace a connection that has ended, while the run lasts."""
        del self._wires[wire.socket.fileno()]
        wire.socket.close()
        if time.perf_counter() < self._until_s:
            again = self._connect()
            if self._quota:
                self._fill(again, self._quota)

    def _connect(self) -> _Wire:
        wire = _Wire(self._make(), self._address)
        self._wires[wire.socket.fileno()] = wire
        self._poll.register(wire.socket, select.EPOLLIN)
        return wire

    def _drain(self) -> None:
        """Wait for answers; those that do not come have failed."""
        self._quota = 0
        until_s = time.perf_counter() + DRAIN_S
        while any(wire.connection.unanswered for wire in self._wires.values()):
            if time.perf_counter() > until_s:
                break
            self._turn(0.1)
        for wire in self._wires.values():
            for number in wire.connection.unanswered:
                self._answers.problems["never answered"] += 1
                self.timings.end(number, End.FAILED, time.perf_counter())
