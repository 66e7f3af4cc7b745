"""Inputs of coverage-guided fuzzing of the HTTP/2 core: what they mean, what must hold, some to begin with.

loadtests/soak_atheris.py runs it; nothing here needs more than the tests do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, given, settings

from tests.transport.grpc_wire.exchanges import exchanges
from tests.transport.grpc_wire.frames import GREETING, frame
from tests.transport.grpc_wire.test_core_fuzz import EchoPeer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.transport.grpc_wire.exchanges import Exchange

MAX_INPUT_BYTES = 4096
WAYS = 4
PAUSE, RAW = 0xFE, 0xFF
"""Kinds of step beside frames: a byte of time, in tenths of a second, and bytes as they are."""


def check(raw: bytes) -> None:
    """Hold the core to its promises with an input whose first byte says how the others are read.

    0 and 1: bytes from a client, before or after a greeting; in one read, in some, and one by one they
    come to the same. 2 and 3: likewise a script of frames whose lengths are right, and of pauses, which end
    with everything freed.
    """
    way, rest = raw[0] % WAYS if raw else 0, raw[1:]
    greeting = GREETING if way % 2 else b""
    if way < 2:
        _whatever_the_reads(greeting + rest)
    else:
        _whatever_the_time(greeting, rest)


def _whatever_the_reads(raw: bytes) -> None:
    whole, pieces, single = (EchoPeer(greet=False) for _ in range(3))
    whole.send(raw)
    size = 1 + len(raw) % 61
    for at in range(0, len(raw), size):
        pieces.send(raw[at : at + size])
        pieces.assert_bounded()
    for at in range(len(raw)):
        single.send(raw[at : at + 1])
    expected = whole.result()
    assert pieces.result() == expected
    assert single.result() == expected


def _whatever_the_time(greeting: bytes, script: bytes) -> None:
    peer = EchoPeer(greet=False)
    peer.send(greeting)
    for step in _steps(script):
        if isinstance(step, bytes):
            peer.send(step)
        else:
            peer.pass_time(step)
        peer.taken()
        peer.assert_bounded()
    peer.connection.close()
    assert not peer.connection.table.open
    peer.pass_time(1.0)


def _steps(script: bytes) -> Iterator[bytes | float]:
    """Take a script apart: kind, then a pause's byte, or a frame's flags, stream, length and payload."""
    at = 0
    while at + 1 < len(script):
        if script[at] == PAUSE:
            yield script[at + 1] / 10
            at += 2
        elif script[at] == RAW:
            end = at + 2 + script[at + 1]
            yield script[at + 2 : end]
            at = end
        else:
            kind, flags, stream_id, length = script[at : at + 4].ljust(4, b"\0")
            end = at + 4 + length
            yield frame(kind % 12, flags, stream_id, script[at + 4 : end])
            at = end


def seeds(count: int) -> Iterator[bytes]:
    """Yield inputs of every way, made of generated exchanges, the same every time."""
    found: list[Exchange] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(exchanges())
    def keep(exchange: Exchange) -> None:
        found.append(exchange)

    keep()
    for number, exchange in enumerate(found):
        wire = b"".join(exchange.parts)
        encoded = _script(wire) if number % 2 else wire
        yield (b"\x03" if number % 2 else b"\x01") + encoded[: MAX_INPUT_BYTES - 1]


def _script(wire: bytes) -> bytes:
    """Return frames as a script, those that are too long for one as bytes."""
    parts, at = [], 0
    while at + 9 <= len(wire):
        length = int.from_bytes(wire[at : at + 3])
        payload = wire[at + 9 : at + 9 + length]
        if length < 256 and len(payload) == length:
            parts.append(bytes((wire[at + 3], wire[at + 4], wire[at + 8], length)) + payload)
        else:
            whole = wire[at : at + 9] + payload
            parts += [bytes((RAW, len(cut := whole[i : i + 255]))) + cut for i in range(0, len(whole), 255)]
        at += 9 + len(payload)
        parts.append(bytes((PAUSE, 1)))
    return b"".join(parts)
