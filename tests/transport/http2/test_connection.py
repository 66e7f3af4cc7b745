"""The state machine of one connection: reading, flow control, ends of streams, draining."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.http2.frames import PREFACE
from tests.transport.http2.peer import Peer, data, frame, settings, window_update

GOAWAY = 7


def conversation(peer: Peer) -> bytes:
    """Return a client's whole input: three requests, padding, CONTINUATION, trailers, PING, a reset."""
    first = peer.request(1, [("x-new", "1" * 50)])
    second = peer.request(3, [("content-length", "5")])
    block = peer.encoder.encode([(":method", "POST"), (":scheme", "http"), (":path", "/c"), ("y", "z" * 30)])
    return b"".join(
        (
            PREFACE,
            settings(w=70_000),
            first,
            data(1, b"hello"),
            second,
            frame(0, 8, 1, b"\x03" + b"padded" + bytes(3)),
            data(3, b"world", end=True),
            frame(1, 1, 5, block[:7]),
            frame(9, 0, 5, block[7:20]),
            frame(9, 4, 5, block[20:]),
            frame(6, 0, 0, b"12345678"),
            frame(1, 5, 1, peer.encoder.encode([("trailer", "1")])),
            peer.request(7),
            data(7, b"x" * 3000),
            frame(3, 0, 7, struct.pack(">I", 8)),
        )
    )


def outcome(peer: Peer) -> object:
    return (
        {i: (c.received, c.ended, c.reset_code, peer.heads[i].path) for i, c in peer.calls.items()},
        [f for f in peer.taken() if f.kind in {3, 6, 7}],
        peer.fault(),
        peer.connection.table.uploading,
    )


@given(cuts=st.lists(st.integers(0, 4000), max_size=20), every=st.integers(0, 3))
def test_reads_may_end_anywhere(cuts: list[int], every: int) -> None:
    """However the input is cut into reads, byte by byte too, the same things happen."""
    whole, pieces = Peer(greet=False), Peer(greet=False)
    bytes_in = conversation(whole)
    whole.send(bytes_in)
    assert not whole.fault()
    edges = range(0, len(bytes_in), every) if every else sorted({0, *(c % len(bytes_in) for c in cuts)})
    starts = [*edges, len(bytes_in)]
    for start, end in itertools.pairwise(starts):
        pieces.send(bytes_in[start:end])
    assert outcome(pieces) == outcome(whole)


@given(noise=st.binary(max_size=200), greet=st.booleans())
def test_no_input_raises(noise: bytes, greet: bool) -> None:
    """Whatever comes ends in a fault at most, told by one GOAWAY."""
    peer = Peer(greet=greet)
    peer.send(noise)
    peer.send(noise)
    assert sum(f.kind == GOAWAY for f in peer.taken()) == bool(peer.fault())


@given(
    frames=st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=30)),
        max_size=30,
    )
)
def test_no_frames_raise(frames: list[tuple[int, int, int, bytes]]) -> None:
    """Well-framed nonsense ends in faults too, and the books stay in order."""
    peer = Peer()
    for kind, flags, stream_id, payload in frames:
        peer.send(peer.request(stream_id * 2 + 1) if kind == 10 else frame(kind, flags, stream_id, payload))
        table = peer.connection.table
        peer.taken()
        assert table.uploading == sum(not s.remote_closed for s in table.open.values())
        assert peer.connection.sender.unsent_bytes == sum(s.unsent_bytes for s in table.open.values())


def test_a_response_is_one_turns_output() -> None:
    """Head, message and trailers go out together, and the owner is woken once for all of a turn."""
    peer = Peer()
    peer.send(peer.request(1, end=True), peer.request(3, end=True))
    peer.wakes = 0
    peer.reply(1, b"one")
    peer.reply(3, b"three")
    assert peer.wakes == 1
    assert [(f.kind, f.stream_id) for f in peer.taken()] == [(1, 1), (0, 1), (1, 1), (1, 3), (0, 3), (1, 3)]
    assert not peer.connection.table.open


def test_settings_are_acknowledged_before_they_are_used() -> None:
    """The C core of gRPC fails a stream whose DATA needs a window that was not acknowledged before."""
    peer = Peer()
    peer.send(settings(w=10), peer.request(1, end=True))
    peer.reply(1, b"a" * 25)
    peer.taken()
    peer.send(settings(w=0), settings(w=20), settings(w=30, f=20_000))
    assert [(f.kind, f.flags, len(f.payload)) for f in peer.taken()] == [
        (4, 1, 0),
        (4, 1, 0),
        (0, 0, 10),
        (4, 1, 0),
        (0, 0, 5),
        (1, 5, 1),
    ]


def test_credit_comes_without_being_provoked() -> None:
    """A client without window is silent, so work that ends unseen must not need a frame to be noticed."""
    peer = Peer(connection_window_bytes=1 << 18)
    windows = peer.connection.windows
    peer.send(peer.request(1), peer.request(3))
    peer.taken()
    windows.held = 1 << 18
    peer.send(*(data(3, bytes(16_384)) for _ in range(16)))
    assert windows.window == 0
    assert not [f for f in peer.taken() if f.stream_id == 0]
    windows.held = 0
    peer.pass_time(1.0)
    assert [f for f in peer.taken() if f.stream_id == 0] == [(8, 0, 0, struct.pack(">I", 1 << 18))]


def test_data_waits_for_both_windows() -> None:
    """What is sent never passes the stream's window or the connection's (section 6.9.1)."""
    peer = Peer()
    peer.send(settings(w=10), peer.request(1, end=True), peer.request(3, end=True))
    peer.taken()
    peer.reply(1, b"a" * 25)
    assert [f.payload for f in peer.taken() if f.kind == 0] == [b"a" * 10]
    peer.send(window_update(1, 100))
    assert [(f.kind, f.payload[:15]) for f in peer.taken()] == [(0, b"a" * 15), (1, b"\x89")]
    peer.send(settings(w=1 << 20))
    peer.reply(3, b"b" * 70_000)
    sent = b"".join(f.payload for f in peer.taken() if f.kind == 0)
    assert len(sent) == 65_535 - 25
    peer.send(window_update(0, 1 << 20))
    assert len(sent) + sum(len(f.payload) for f in peer.taken() if f.kind == 0) == 70_000


def test_a_small_answer_waits_for_the_connections_window() -> None:
    """What is answered in one piece is bounded by it as well."""
    peer = Peer()
    peer.send(settings(w=1 << 20), *[peer.request(i, end=True) for i in (1, 3)])
    peer.reply(1, b"a" * 65_535)
    assert sum(len(f.payload) for f in peer.taken() if f.kind == 0) == 65_535
    peer.reply(3, b"small")
    assert [f.kind for f in peer.taken()] == [1]
    peer.send(window_update(0, 5))
    assert [f.payload for f in peer.taken()] == [b"small", b"\x89"]


def test_settings_change_windows_of_open_streams() -> None:
    """A window may become negative, and opens again only when updates have made up for it (6.9.2)."""
    peer = Peer()
    peer.send(settings(w=20), peer.request(1, end=True))
    peer.reply(1, b"a" * 50)
    peer.taken()
    assert peer.calls[1].send_window == 0
    peer.send(settings(w=5))
    assert peer.calls[1].send_window == -15
    peer.send(window_update(1, 15))
    assert [f for f in peer.taken() if f.kind == 0] == []
    peer.send(window_update(1, 1))
    assert [f.payload for f in peer.taken() if f.kind == 0] == [b"a"]


def test_streams_take_turns() -> None:
    """Two large answers share the connection frame by frame."""
    peer = Peer()
    peer.send(settings(w=1 << 20), peer.request(1, end=True), peer.request(3, end=True))
    peer.taken()
    peer.connection.sender.paused = True
    for stream_id in (1, 3):
        peer.reply(stream_id, b"x" * 40_000)
    peer.connection.sender.paused = False
    peer.connection.sender.pump(peer.now_s)
    order = [f.stream_id for f in peer.taken() if f.kind == 0]
    assert order[:4] == [1, 3, 1, 3]


def test_credit_comes_back_when_a_message_is_used() -> None:
    """Bytes on their way are credited as they come; a whole message is held until it is released."""
    peer = Peer()
    windows = peer.connection.windows
    peer.send(peer.request(1))
    for _ in range(10):
        peer.send(data(1, b"x" * 16_384))
    updates = [f for f in peer.taken() if f.kind == 8]
    assert {f.stream_id for f in updates} == {1}
    assert windows.window == (1 << 20) - 10 * 16_384
    call = peer.calls[1]
    windows.hold(call, 10 * 16_384)
    for _ in range(30):
        peer.send(data(1, b"x" * 16_384))
    held = windows.window
    assert held + windows.held <= 1 << 20
    windows.release(call, 10 * 16_384)
    assert windows.held == 0


def test_more_data_than_the_window_is_a_fault() -> None:
    """On the stream it resets the stream, on the connection it ends it (section 6.9.1)."""
    peer = Peer(stream_window_bytes=65_535)
    peer.send(peer.request(1))
    peer.connection.windows.hold(peer.calls[1], 65_535)
    for _ in range(5):
        peer.send(data(1, b"x" * 16_384))
    assert peer.reset_codes() == {1: 3}
    whole = Peer(connection_window_bytes=65_535)
    whole.send(whole.request(1))
    whole.connection.windows.hold(whole.calls[1], 65_535)
    for _ in range(5):
        whole.send(data(1, b"x" * 16_384))
    assert whole.fault() == "FLOW_CONTROL_ERROR"


def test_an_early_answer_stops_the_upload() -> None:
    """The client is told NO_ERROR, and what it has sent meanwhile is dropped (section 8.1)."""
    peer = Peer()
    peer.send(peer.request(1), data(1, b"x"))
    peer.reply(1, b"enough")
    assert peer.reset_codes() == {1: 0}
    peer.send(data(1, b"late"), data(1, b"later", end=True))
    assert not peer.fault()
    assert peer.calls[1].received == b"x"


def test_an_early_answer_whose_end_has_come_resets_nothing() -> None:
    """The end of the request was in the same read as its message."""
    peer = Peer()
    peer.send(peer.request(1), data(1, b"x"))
    peer.reply(1, b"enough")
    peer.send(data(1, b"", end=True))
    assert peer.reset_codes() == {}
    assert not peer.connection.table.open


def test_draining_takes_two_steps() -> None:
    """Streams of before the second GOAWAY are served, later ones ignored, and then it is finished (6.8)."""
    peer = Peer()
    peer.send(peer.request(1))
    peer.connection.drain(peer.now_s)
    first = peer.taken()
    assert [f.kind for f in first] == [7, 6]
    assert int.from_bytes(first[0].payload[:4], "big") == (1 << 31) - 1
    peer.send(peer.request(3, end=True), frame(6, 1, 0, first[1].payload))
    (second,) = peer.taken()
    assert int.from_bytes(second.payload[:4], "big") == 3
    peer.send(peer.request(5, end=True))
    assert set(peer.calls) == {1, 3}
    peer.send(data(1, b"", end=True))
    assert not peer.finished()
    peer.reply(1, b"")
    peer.reply(3, b"")
    assert peer.finished()
    assert not peer.fault()


def test_a_client_that_answers_no_ping_is_drained_too() -> None:
    """The second step comes after a while all the same."""
    peer = Peer()
    peer.connection.drain(peer.now_s)
    peer.pass_time(1.0)
    assert peer.finished()


@pytest.mark.parametrize("identifier", [2, 0])
def test_identifiers_are_odd(identifier: int) -> None:
    """Section 5.1.1."""
    peer = Peer()
    peer.send(peer.request(identifier))
    assert peer.fault() == "PROTOCOL_ERROR"


def test_identifiers_that_were_passed_over_are_closed() -> None:
    """To use one is another error than to use one that was used (sections 5.1 and 5.1.1)."""
    skipped, used = Peer(), Peer()
    skipped.send(skipped.request(5, end=True), skipped.request(3))
    assert skipped.fault() == "PROTOCOL_ERROR"
    used.send(used.request(5, end=True))
    used.reply(5, b"")
    used.send(used.request(5))
    assert used.fault() == "STREAM_CLOSED"
