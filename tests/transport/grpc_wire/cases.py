"""Rows of the RFC tables: what is sent, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.transport.grpc_wire.frames import GREETING
from tests.transport.grpc_wire.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.transport.grpc_wire.servers import GrpcServer

LATER = 1_000_001
"""A stream that no case uses."""


@dataclass(frozen=True)
class ConnectionEnds:
    """The connection ends with one of these codes; None is an end without GOAWAY."""

    codes: frozenset[int | None]


@dataclass(frozen=True)
class StreamReset:
    """One stream is reset with one of these codes, and the connection goes on."""

    stream_id: int
    codes: frozenset[int | None]


@dataclass(frozen=True)
class Answered:
    """Streams are answered with these messages, and the connection goes on."""

    messages: Mapping[int, bytes]


@dataclass(frozen=True)
class Refused:
    """One stream is answered with one of these HTTP and gRPC statuses, and the connection goes on."""

    stream_id: int
    statuses: frozenset[tuple[str, int | None]]


@dataclass(frozen=True)
class Either:
    """Any of these; the RFC leaves the choice."""

    choices: tuple[Outcome, ...]


Outcome = ConnectionEnds | StreamReset | Answered | Refused | Either


def dies(*codes: int | None) -> ConnectionEnds:
    return ConnectionEnds(frozenset(codes))


def resets(stream_id: int, *codes: int) -> StreamReset:
    return StreamReset(stream_id, frozenset(codes))


def answers(*streams: int, payload: bytes = b"x") -> Answered:
    return Answered(dict.fromkeys(streams or (1,), payload))


def refuses(stream_id: int, *statuses: tuple[str, int | None]) -> Refused:
    return Refused(stream_id, frozenset(statuses))


def either(*choices: Outcome) -> Either:
    return Either(
        tuple(c for choice in choices for c in (choice.choices if isinstance(choice, Either) else (choice,)))
    )


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        name: what it shows.
        section: where that is written; RFC 9113 unless another is named.
        frames: what is sent, or made from the connection once the server's SETTINGS are known.
        outcome: what must come of it.
        first: sent before, and stream 1 answered before `frames` follow.
        greeting: the client's preface and SETTINGS.
        options: of the server.
        core_differs: why grpcio's C core does not answer what it should.
    """

    name: str
    section: str
    frames: bytes | Callable[[Wire], bytes]
    outcome: Outcome
    first: bytes = b""
    greeting: bytes = GREETING
    options: Mapping[str, Any] = field(default_factory=dict)
    core_differs: str = ""

    def __str__(self) -> str:
        return f"{self.section}: {self.name}"


async def check(case: Case, server: GrpcServer, *, core: bool) -> None:
    """Hold one connection as the case says, then see that the server serves another.

    Args:
        case: the row.
        server: what it is sent to.
        core: whether that is grpcio's C core, which forgives much of what the RFC does not and mostly ends
            connections without saying why; of what is wrong it is only asked to survive.
    """
    wire = await Wire.open(server.port, case.greeting)
    try:
        if case.first:
            wire.send(case.first)
            await wire.answer(1)
        if callable(case.frames):
            await wire.until(lambda: wire.greeted)
            wire.send(case.frames(wire))
        else:
            wire.send(case.frames)
        if not core or (isinstance(case.outcome, Answered) and not case.core_differs):
            await _expect(case.outcome, wire)
    finally:
        wire.close()
    other = await Wire.open(server.port)
    try:
        await other.echo(1)
    finally:
        other.close()


async def _expect(outcome: Outcome, wire: Wire) -> None:
    if isinstance(outcome, Either):
        await _expect(await _chosen(outcome, wire), wire)
    elif isinstance(outcome, ConnectionEnds):
        assert await wire.end() in outcome.codes, wire.described()
    else:
        await _expect_streams(outcome, wire)
        await wire.echo(LATER)


async def _expect_streams(outcome: StreamReset | Answered | Refused, wire: Wire) -> None:
    if isinstance(outcome, StreamReset):
        answer = await wire.answer(outcome.stream_id)
        assert answer.reset in outcome.codes, wire.described()
    elif isinstance(outcome, Refused):
        answer = await wire.answer(outcome.stream_id)
        assert (answer.headers.get(":status"), answer.grpc_status) in outcome.statuses, wire.described()
    else:
        for stream_id, message in outcome.messages.items():
            answer = await wire.answer(stream_id)
            assert (answer.grpc_status, answer.messages()) == (0, [message]), wire.described()


async def _chosen(outcome: Either, wire: Wire) -> Outcome:
    """Wait for the first thing that tells which of the choices it is."""
    ids = [choice.stream_id for choice in outcome.choices if isinstance(choice, StreamReset | Refused)]
    ids += [id_ for choice in outcome.choices if isinstance(choice, Answered) for id_ in choice.messages]
    await wire.until(lambda: any(wire.answer_of(stream_id).over for stream_id in ids))
    for choice in outcome.choices:
        if isinstance(choice, ConnectionEnds):
            if wire.closed:
                return choice
        elif not wire.closed and _matches(choice, wire):
            return choice
    return outcome.choices[0]


def _matches(choice: Outcome, wire: Wire) -> bool:
    if isinstance(choice, StreamReset):
        return wire.answer_of(choice.stream_id).reset in choice.codes
    if isinstance(choice, Refused):
        answer = wire.answer_of(choice.stream_id)
        return (answer.headers.get(":status"), answer.grpc_status) in choice.statuses
    if isinstance(choice, Answered):
        return all(wire.answer_of(stream_id).grpc_status == 0 for stream_id in choice.messages)
    return False
