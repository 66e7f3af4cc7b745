"""Holds thousands of idle connections open, over HTTP/1.1 and HTTP/2, beside clients that work."""

from __future__ import annotations

import asyncio
import random
import resource
import socket
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from loadtests.soak_http import parse_head
from loadtests.soak_load import Target, http_infer, under_load
from loadtests.soak_native_calls import Calls, Traffic
from loadtests.soak_native_requests import clients, learn

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.soak_native_requests import Client
    from loadtests.soak_server import GatewayProcess

CONNECTIONS: Final = 10_000
_SPARE_FILES: Final = 200
_WARM_UP: Final = 300  # connections that come and go before memory is read
_WORK: Final = 300  # answers that the working clients get before, while and after there are idle ones
_ANSWER_S: Final = 30.0
_MOST_PROBLEMS: Final = 20
_READ_BYTES: Final = 1 << 16


class _Idler(Protocol):
    """A connection that asks once in a while."""

    def ask(self, number: int) -> str:
        """Send request `number` and read the answer; return what was wrong with it, empty if nothing was."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True, slots=True)
class IdleReport:
    """What idle connections cost.

    Attributes:
        connections: held at once, each of which was answered once before and once after.
        bytes_each: resident memory of the gateway for each.
        answered: right answers to the clients that worked beside them.
        problems: answers that were wrong or did not come, to them or to those clients; the first of them.
    """

    connections: int
    bytes_each: float
    answered: int
    problems: list[str]


def allow_files(connections: int) -> int:
    """Let this process and those it starts have so many connections; return how many of them it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    except (ValueError, PermissionError):  # only root may raise the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_FILES)


async def idle_http1(server: GatewayProcess, connections: int) -> IdleReport:
    """Hold connections over HTTP/1.1."""
    return await _idle(server, connections, lambda _: _Http1(server.http_port))


async def idle_http2(server: GatewayProcess, connections: int) -> IdleReport:
    """Hold connections to the native gRPC transport, of every kind of client."""
    traffic = Traffic(await learn(server.grpc_port), random.Random(0))
    kinds = clients()
    return await _idle(
        server, connections, lambda n: _Http2(server.grpc_port, kinds[n % len(kinds)], traffic)
    )


async def _idle(server: GatewayProcess, connections: int, make: Callable[[int], _Idler]) -> IdleReport:
    async with under_load(Target(server.http_port, server.grpc_port, 1, 1)) as tally:
        await tally.answered(_WORK)
        with ExitStack() as stack:
            await asyncio.to_thread(_open, _WARM_UP, make, stack)
        before = server.usage().rss_bytes
        with ExitStack() as stack:
            idlers, problems = await asyncio.to_thread(_open, connections, make, stack)
            await tally.answered(tally.right + _WORK)
            after = server.usage().rss_bytes
            problems += await asyncio.to_thread(_ask, idlers, connections)
            await tally.answered(tally.right + _WORK)
    return IdleReport(
        connections=len(idlers),
        bytes_each=(after - before) / connections,
        answered=tally.right,
        problems=[*problems[:_MOST_PROBLEMS], *tally.problems],
    )


def _open(
    connections: int, make: Callable[[int], _Idler], stack: ExitStack
) -> tuple[list[_Idler], list[str]]:
    idlers = []
    for number in range(connections):
        idlers.append(made := make(number))
        stack.callback(made.close)
        if problem := made.ask(number):
            return idlers, [f"connection {number}: {problem}"]
    return idlers, []


def _ask(idlers: list[_Idler], first: int) -> list[str]:
    asked = ((number, idler.ask(first + number)) for number, idler in enumerate(idlers))
    return [f"connection {number}, again: {problem}" for number, problem in asked if problem]


class _Http1:
    """An HTTP/1.1 connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), _ANSWER_S)

    def ask(self, number: int) -> str:
        """See `_Idler`."""
        values = (float(number), 1.0, 2.0, 3.0)
        try:
            self._socket.sendall(http_infer(values))
            status, body = self._answer()
        except OSError as exc:
            return str(exc)
        right = struct.pack("<4f", *(value + 1 for value in values))
        return "" if status == 200 and body.endswith(right) else f"{status}: {body[:200]!r}"

    def _answer(self) -> tuple[int, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        status, headers = parse_head(head)
        while len(body) < int(headers["content-length"]):
            body += self._more()
        return status, body

    def _more(self) -> bytes:
        if data := self._socket.recv(_READ_BYTES):
            return data
        raise ConnectionError("closed by the server")

    def close(self) -> None:
        """See `_Idler`."""
        self._socket.close()


class _Http2:
    """A connection that speaks gRPC."""

    def __init__(self, port: int, client: Client, traffic: Traffic) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), _ANSWER_S)
        self._calls, self._traffic = Calls(client, traffic), traffic
        self._socket.sendall(self._calls.opening)

    def ask(self, number: int) -> str:
        """See `_Idler`."""
        wrong = self._traffic.problems.total()
        self._calls.ask(number)
        try:
            self._send()
            while self._calls.waiting:
                if not (data := self._socket.recv(_READ_BYTES)):
                    return "closed by the server"
                self._calls.receive(data)
                self._send()
        except OSError as exc:
            return str(exc)
        return "" if self._traffic.problems.total() == wrong else str(self._traffic.problems)

    def _send(self) -> None:
        self._socket.sendall(b"".join(self._calls.out))
        self._calls.out.clear()

    def close(self) -> None:
        """See `_Idler`."""
        self._socket.close()
