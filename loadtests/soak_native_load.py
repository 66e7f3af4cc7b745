"""Keeps connections of soak_native_calls.py at work, and drops some in mid use."""

from __future__ import annotations

import asyncio
import os
import random
import select
import socket
import struct
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from loadtests.served import metrics_text
from loadtests.soak_leaks import slope
from loadtests.soak_models import small_repository
from loadtests.soak_native_calls import Calls, Traffic
from loadtests.soak_native_requests import LARGE_ROWS, clients, learn
from loadtests.soak_server import GatewayProcess, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadtests.soak_native_requests import Client

CONNECTIONS: Final = 64
_LASTING: Final = 16  # connections that stay from the beginning to the end
_DEPTHS: Final = (1, 2, 4, 8)  # calls under way on a connection
_END_CHANCE: Final = 1 / 150  # that a connection ends, each time it is read
_ROUNDS: Final = 40
_WARM_UP: Final = 50_000  # requests: pools, memos and caches fill once, and allocators come to rest
_STALL_S: Final = 30.0
_NATIVE: Final = {
    "transport": "native",
    "http2": {"connection_window_bytes": 1 << 20},  # so that credit which is not given back is missed soon
}
_READ_BYTES: Final = 1 << 18
_RESET: Final = struct.pack("ii", 1, 0)  # of SO_LINGER: close() sends RST


@dataclass(frozen=True, slots=True)
class CancelReport:
    """What came of a count.

    Attributes:
        traffic: what became of the calls.
        connections: opened in all.
        seconds: that the count took.
        growth_bytes_per_100k: slope of resident memory after the warm-up, bytes per 100,000 requests.
        fds: descriptors more at the end than at the start, all clients gone.
        threads: threads more, likewise.
        left: requests and bytes that the gateway still counts as under way at the end.
        limits: limits of the transport that fired, and how often.
    """

    traffic: Traffic
    connections: int
    seconds: float
    growth_bytes_per_100k: float
    fds: int
    threads: int
    left: int
    limits: dict[str, int]


@contextmanager
def pinned() -> Iterator[int]:
    """Keep this process on the last core meanwhile; the block gets the core for the server."""
    usable = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, usable[-1:])
    try:
        yield usable[0]
    finally:
        os.sched_setaffinity(0, usable)


@contextmanager
def serving(**server: Any) -> Iterator[GatewayProcess]:
    """Lend a gateway with the native transport, on a core of its own; `server` goes into its section."""
    with pinned() as core, tempfile.TemporaryDirectory(prefix="native-") as folder:
        repository = small_repository(Path(folder))
        config = settings(repository, **{"grpc": _NATIVE, **server})
        config["defaults"] = {"batching": {"max_batch_rows": LARGE_ROWS, "max_queue_rows": 100 * LARGE_ROWS}}
        with GatewayProcess(config, Path(folder), core=core) as gateway:
            yield gateway


def cancels(server: GatewayProcess, requests: int, warm_up: int = _WARM_UP, seed: int = 0) -> CancelReport:
    """Send requests over `CONNECTIONS` connections; look at the process after the warm-up and each round."""
    chance = random.Random(seed)
    traffic = Traffic(asyncio.run(learn(server.grpc_port)), chance)
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    metrics_text(url)  # comes after what was sent before: it has been seen
    before = server.usage()
    load = _Load(server.grpc_port, traffic, clients())
    load.run(warm_up)
    samples, began_s = [], time.monotonic()
    for _ in range(_ROUNDS):
        load.run(requests // _ROUNDS)
        metrics_text(url)
        samples.append(server.usage().rss_bytes)
    seconds = time.monotonic() - began_s
    load.close()
    metrics_text(url)
    after, page = server.usage(), metrics_text(url)
    return CancelReport(
        traffic=traffic,
        connections=load.opened,
        seconds=seconds,
        growth_bytes_per_100k=slope(samples) / (requests // _ROUNDS) * 100_000,
        fds=after.fds - before.fds,
        threads=after.threads - before.threads,
        left=sum(round(value) for _, value in _values(page, "gateway_inflight_")),
        limits={name: round(value) for name, value in _values(page, "gateway_grpc_limits_total{") if value},
    )


def _values(page: str, prefix: str) -> Iterator[tuple[str, float]]:
    for line in page.splitlines():
        if line.startswith(prefix):
            name, _, value = line.rpartition(" ")
            yield name, float(value)


class _Line:
    """A connection and its socket.

    Attributes:
        leave: how the client ends it when everything has been sent; None: it does not.
    """

    def __init__(self, calls: Calls, port: int, depth: int, *, lasting: bool) -> None:
        self.calls, self.depth, self.lasting = calls, depth, lasting
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent = calls.opening
        self.leave: Callable[[], None] | None = None

    def flush(self) -> bool:
        """Send what there is; return whether all of it went."""
        out = self.calls.out
        if out:
            self.unsent += b"".join(out)
            out.clear()
        if self.unsent:
            try:
                sent = self.socket.send(self.unsent)
            except BlockingIOError:
                return False
            self.unsent = self.unsent[sent:]
        return not self.unsent

    def reset(self) -> None:
        """Let the next close break the connection off."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class _Load:
    """A closed loop over all connections; between two runs nothing is under way.

    Attributes:
        opened: connections so far.
    """

    def __init__(self, port: int, traffic: Traffic, kinds: list[Client]) -> None:
        self._port, self._traffic, self._kinds = port, traffic, kinds
        self._poll = select.epoll()
        self._lines: dict[int, _Line] = {}
        self._later: list[tuple[_Line, Callable[[], None]]] = []
        self._until = 0  # calls to begin, of the whole load
        self.opened = 0

    def run(self, requests: int) -> None:
        """Begin so many calls, and wait until each has ended.

        Raises:
            TimeoutError: nothing came for a long time, with calls unanswered.
        """
        self._until = self._traffic.started + requests
        while len(self._lines) < CONNECTIONS:
            self._connect()
        for line in list(self._lines.values()):
            self._go_on(line)
        heard_s = time.monotonic()
        while self._later or any(line.calls.waiting or line.calls.offended for line in self._lines.values()):
            if self._turn():
                heard_s = time.monotonic()
            elif time.monotonic() > heard_s + _STALL_S:
                waiting = sum(line.calls.waiting for line in self._lines.values())
                raise TimeoutError(f"{waiting} calls never answered after {self._traffic.started}")

    def close(self) -> None:
        """Close every connection."""
        for line in self._lines.values():
            line.socket.close()
        self._lines.clear()
        self._poll.close()

    def _turn(self) -> bool:
        """Take in what has come, then do what was left for a turn later; return whether anything was."""
        later, self._later = self._later, []
        events = self._poll.poll(0 if later else 0.1)
        for fd, event in events:
            line = self._lines[fd]
            if event & select.EPOLLOUT:
                self._flush(line)
            if event & ~select.EPOLLOUT and fd in self._lines:
                self._read(line)
        for line, action in later:
            if self._lines.get(line.socket.fileno()) is line:
                action()
                self._go_on(line)
        return bool(events or later)

    def _read(self, line: _Line) -> None:
        try:
            data = line.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as exc:
            self._lost(line, str(exc))
            return
        if not data:
            self._lost(line, "closed by the server")
            return
        line.calls.receive(data)
        if line.calls.abort:
            line.reset()
            self._drop(line)
            return
        if not line.lasting and not line.calls.offended and self._traffic.chance.random() < _END_CHANCE:
            self._end(line)
        self._go_on(line)

    def _go_on(self, line: _Line) -> None:
        """Begin calls as there is room, and send them."""
        calls, traffic = line.calls, self._traffic
        if not calls.offended:
            while calls.waiting < line.depth and traffic.started < self._until:
                calls.begin()
        if calls.later:
            self._later += [(line, action) for action in calls.later]
            calls.later.clear()
        self._flush(line)

    def _end(self, line: _Line) -> None:
        """End a connection in one of the ways there are."""
        way = self._traffic.chance.randrange(6)
        calls = line.calls
        self._traffic.ways[f"connection end {way}"] += 1
        if way == 0:
            calls.leave_in_mid_frame()
            line.leave = lambda: self._drop(line)
        elif way == 1:
            calls.leave_in_mid_block()
            line.leave = lambda: self._drop(line)
        elif way == 2:
            calls.leave_in_mid_answer()
        elif way == 3:
            calls.offend()
        elif way == 4:
            calls.offended = True
            line.leave = lambda: line.socket.shutdown(socket.SHUT_WR)
        else:
            calls.offended = True
            line.reset()
            line.leave = lambda: self._drop(line)

    def _flush(self, line: _Line) -> None:
        try:
            sent = line.flush()
        except OSError as exc:
            self._lost(line, str(exc))
            return
        if sent and line.leave is not None:
            leave, line.leave = line.leave, None
            leave()
        if self._lines.get(line.socket.fileno()) is line:
            self._poll.modify(line.socket, select.EPOLLIN | (0 if sent else select.EPOLLOUT))

    def _lost(self, line: _Line, why: str) -> None:
        if not line.calls.offended:
            self._traffic.problem(f"a connection was lost with {line.calls.waiting} calls: {why}")
        self._drop(line)

    def _drop(self, line: _Line) -> None:
        """Close a connection; another takes its place while there is work."""
        self._traffic.lost += line.calls.waiting
        del self._lines[line.socket.fileno()]
        line.socket.close()
        if self._traffic.started < self._until:
            self._go_on(self._connect())

    def _connect(self) -> _Line:
        chance = self._traffic.chance
        lasting = self.opened < _LASTING
        calls = Calls(chance.choice(self._kinds), self._traffic)
        line = _Line(calls, self._port, chance.choice(_DEPTHS), lasting=lasting)
        self.opened += 1
        self._lines[line.socket.fileno()] = line
        self._poll.register(line.socket, select.EPOLLIN)
        return line
