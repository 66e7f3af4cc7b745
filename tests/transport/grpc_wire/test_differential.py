"""The same exchanges to both transports: the same outcome, but for differences that are listed here."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import uvloop
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from gateway.transport.options import GrpcServerOptions
from tests.transport.grpc_wire.exchanges import (
    BODIES,
    ENCODED,
    INCOMPLETE,
    Call,
    Exchange,
    Fate,
    Outcome,
    exchanges,
    outcome,
)
from tests.transport.grpc_wire.frames import Code
from tests.transport.grpc_wire.methods import Methods
from tests.transport.grpc_wire.servers import TRANSPORTS, GrpcServer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any, Self

EXAMPLES = int(os.environ.get("GATEWAY_EXCHANGES", "200"))
"""Set higher for a soak."""


CORE_PATIENCE_S = 4.0
CORE_TRIES = 5


class Both:
    """A server of each transport on a loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="both transports")
        self._servers: dict[str, GrpcServer] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def outcomes(self, exchange: Exchange, cuts: list[int]) -> dict[str, Outcome]:
        core, native = self._servers["grpcio"], self._servers["native"]
        return {
            "grpcio": self._of_core(exchange, core.port, cuts),
            "native": self.run(outcome(exchange, native.port, cuts, core=False)),
        }

    def _of_core(self, exchange: Exchange, port: int, cuts: list[int]) -> Outcome:
        """Ask the C core again when it leaves a whole call unanswered, as it did with 17 of 5,500."""
        for _ in range(CORE_TRIES):
            asked = asyncio.wait_for(outcome(exchange, port, cuts, core=True), CORE_PATIENCE_S)
            try:
                answer: Outcome = self.run(asked)
            except TimeoutError:
                continue
            return answer
        raise AssertionError(f"the C core did not answer in {CORE_TRIES} tries of {CORE_PATIENCE_S} s")

    async def _start(self) -> None:
        for name, transport in TRANSPORTS.items():
            options = GrpcServerOptions(port=0, max_receive_bytes=2**20)
            self._servers[name] = transport([Methods().service()], options)
            await self._servers[name].start()

    async def _stop(self) -> None:
        for server in self._servers.values():
            await server.stop(0.0)


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with Both() as servers:
        yield servers


@dataclass(frozen=True)
class Allowed:
    """A difference that is meant, and why."""

    why: str
    holds: Callable[[Call, Fate, Fate], bool]


DEADLINE_EXCEEDED, NOT_FOUND, UNIMPLEMENTED, INTERNAL = 4, 5, 12, 13
ALLOWED = (
    Allowed(
        "each words its own refusals; only what a method said must be the same",
        lambda _, core, native: core.status not in (0, NOT_FOUND) and core.status == native.status,
    ),
    Allowed(
        "a malformed request is a stream error of type PROTOCOL_ERROR (RFC 9113 section 8.1.1); the C core "
        "resets it with INTERNAL_ERROR",
        lambda _, core, native: (core.code, native.code) == (Code.INTERNAL_ERROR, Code.PROTOCOL_ERROR),
    ),
    Allowed(
        "gRPC over HTTP/2 wants 415 for a content type that is not gRPC's; the C core serves it",
        lambda call, core, native: "content type" in call.special and native.http == "415",
    ),
    Allowed(
        "a call that ends before its message is whole is INTERNAL; the C core answers it at its deadline "
        "alone, and takes half a message of a stream for its end",
        lambda call, core, native: (
            call.special in (*INCOMPLETE, "a message and half another") and native.status == INTERNAL
        ),
    ),
    Allowed(
        "nobody waits for what the C core says of such a call, not even that there is no such method",
        lambda call, core, native: call.special in INCOMPLETE and core.how == "silent",
    ),
    Allowed(
        "a call to no method that has no time left may be told either",
        lambda call, core, native: (
            call.special == "no time at all"
            and (core.status, native.status) == (DEADLINE_EXCEEDED, UNIMPLEMENTED)
        ),
    ),
    Allowed(
        "a compression flag is 0 or 1; the C core looks at one bit of it",
        lambda call, core, native: call.special == "an unknown flag" and native.status == INTERNAL,
    ),
    Allowed(
        "UNIMPLEMENTED is what the specification of compression says of an encoding that is not supported",
        lambda call, core, native: (
            call.special == "an encoding nobody knows" and native.status == UNIMPLEMENTED
        ),
    ),
    Allowed(
        "a timeout has at most eight digits; the C core takes more",
        lambda call, core, native: call.special == "timeout of nine digits" and native.status == INTERNAL,
    ),
    Allowed(
        "binary metadata is left out, so that nobody looks whether it could be decoded",
        lambda call, core, native: call.special == "base64 that is none" and core.status == INTERNAL,
    ),
    Allowed(
        "`te: trailers` is for proxies; a call without it is served",
        lambda call, core, native: call.special == "no te" and core.how == "reset",
    ),
    Allowed(
        "a `te` of anything else makes a request malformed (RFC 9113 section 8.2.2); the C core answers "
        "INTERNAL",
        lambda call, core, native: (
            call.special.startswith("te of") and (core.status, native.code) == (INTERNAL, Code.PROTOCOL_ERROR)
        ),
    ),
    Allowed(
        "405 says more than a reset",
        lambda call, core, native: call.special in ("GET", "PUT") and native.http == "405",
    ),
    Allowed(
        "of two faults the one that is found first is reported",
        lambda call, core, native: (
            call.method == "Nothing" and {core.status, native.status} <= {UNIMPLEMENTED, INTERNAL}
        ),
    ),
    Allowed(
        "a stream's method may fail before its messages do",
        lambda call, core, native: (
            call.method == "StreamFail" and call.special in BODIES.keys() | ENCODED.keys()
        ),
    ),
)


def difference(exchange: Exchange, core: Outcome, native: Outcome) -> str:
    """Say how two outcomes differ; empty when they do not, or may."""
    if core.alive != native.alive:
        return f"alive: {core.alive} and {native.alive}"
    if not core.alive:
        return ""  # how far each was when it came to the fault is chance
    for stream_id, call in exchange.calls.items():
        one, other = core.streams[stream_id], native.streams[stream_id]
        if one != other and not any(allowed.holds(call, one, other) for allowed in ALLOWED):
            return f"stream {stream_id}: {one} and {other}"
    return ""


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=EXAMPLES <= 1000,
)
@given(exchanges(), st.data())
def test_transports_agree(both: Both, exchange: Exchange, data: st.DataObject) -> None:
    size = sum(map(len, exchange.parts))
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=3, unique=True)))
    found = both.outcomes(exchange, cuts)
    note("\n".join(exchange.steps))
    assert not difference(exchange, found["grpcio"], found["native"])
