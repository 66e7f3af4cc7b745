"""Bidirectional calls in memory: cut anywhere, broken anywhere, bounded."""

from __future__ import annotations

import socket
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.grpc_native_duplex_call import DuplexConnection
from tests.transport.grpc_client.duplex_ends import (
    HandServer,
    message,
)
from tests.transport.http2.peer import data, frame, settings, window_update

MIB = 1 << 20


def connection(max_bytes: int = 1000) -> DuplexConnection:
    made = DuplexConnection([(":path", "/a.B/C")], (), "http", max_bytes, 0.0)
    made.take(0.0)
    return made


class _Encoder(HandServer):
    """Makes frames, without a connection."""

    def __init__(self) -> None:
        with closing(socket.socket()) as unused:
            super().__init__(unused)


@given(
    st.lists(st.binary(max_size=40), max_size=6),
    st.lists(st.integers(1, 60), max_size=30),
    st.lists(st.integers(1, 60), max_size=30),
)
def test_reads_and_frames_may_be_cut_anywhere(
    bodies: list[bytes], frames: list[int], reads: list[int]
) -> None:
    """The same messages come of them."""
    made, server = connection(), _Encoder()
    parts = [data(1, part) for part in _cut(b"".join(map(message, bodies)), frames)]
    sent = b"".join([settings(), server.head(), *parts, server.status(0, "done")])
    found: list[bytes] = []
    for read in _cut(sent, reads):
        made.receive(read, 0.0)
        found += made.received()
    assert found == bodies
    assert made.status is not None
    assert (made.status.code, made.status.message) == (0, "done")


def _cut(whole: bytes, sizes: list[int]) -> list[bytes]:
    parts = []
    for size in sizes:
        parts.append(whole[:size])
        whole = whole[size:]
    return [part for part in (*parts, whole) if part]


@given(st.binary(max_size=200))
def test_whatever_comes_is_no_exception(junk: bytes) -> None:
    """A server can only end the call."""
    made, server = connection(), _Encoder()
    made.receive(settings() + server.head() + junk, 0.0)
    made.lose("Socket closed")
    assert made.status is not None


def test_what_is_kept_of_a_long_message_is_bounded() -> None:
    """At most the limit, and what is to be written next is a part of what was given to send."""
    made = connection()
    made.receive(settings(w=2**31 - 1) + window_update(0, 2**30), 0.0)
    made.take(0.0)
    for _ in range(10):
        made.send(bytes(MIB), 0.0)
    sizes = []
    while taken := made.take(0.0):
        sizes.append(len(taken))
    assert sum(sizes) > 10 * MIB
    assert max(sizes) < MIB // 2


def test_a_server_that_pings_and_does_not_read() -> None:
    """Its answers are not kept for ever."""
    made = connection()
    made.receive(settings(), 0.0)
    pings = frame(6, payload=bytes(8)) * 1024
    for _ in range(1000):
        made.receive(pings, 0.0)
        if made.status is not None:
            break
    assert made.status is not None
    assert "does not read" in made.status.message
