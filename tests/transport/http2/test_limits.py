"""Limits of one connection: each fires, says so, and spares the ordinary client."""

from __future__ import annotations

import struct

import pytest

from gateway.transport.http2.limits import Limit
from tests.transport.http2.peer import Peer, data, frame, settings, window_update

PING = frame(6, 0, 0, b"12345678")


def rst(stream_id: int) -> bytes:
    return frame(3, 0, stream_id, struct.pack(">I", 8))


@pytest.mark.parametrize(
    "useless",
    [
        settings(),
        frame(2, 0, 1, bytes(5)),
        window_update(0, 1),
        window_update(1, 1),
        data(1, b""),
        frame(77),
        frame(7, 0, 0, bytes(8)),
    ],
    ids=["settings", "priority", "window", "stream window", "empty data", "unknown", "goaway"],
)
def test_floods_of_useless_frames_end_the_connection(useless: bytes) -> None:
    """As many as the limit and what a stream has earned, and not one more."""
    peer = Peer()
    peer.send(peer.request(1))
    for _ in range(40):
        peer.send(useless)
    assert not peer.fault()
    for _ in range(15):
        peer.send(useless)
    assert peer.fault() == "ENHANCE_YOUR_CALM"
    assert peer.fired == [Limit.CONTROL_FRAMES]


def test_empty_data_that_comes_too_late_is_useless_too() -> None:
    """On a stream that was answered and then reset, where DATA is dropped without complaint."""
    peer = Peer()
    peer.send(peer.request(1))
    peer.reply(1, b"")
    peer.taken()
    for _ in range(40):
        peer.send(data(1, b""))
    assert not peer.fault()
    for _ in range(30):
        peer.send(data(1, b"", end=True))
    assert peer.fault() == "ENHANCE_YOUR_CALM"
    assert peer.fired == [Limit.CONTROL_FRAMES]


def test_a_frame_of_many_settings_counts_as_many_frames() -> None:
    """And every stream's window is resized once for it: what that costs is bounded by the frames."""
    peer, resized = Peer(), struct.pack(">HIHI", 4, 1000, 4, 70_000)
    peer.send(peer.request(1), frame(4, 0, 0, resized * 200))
    assert not peer.fault()
    assert peer.calls[1].send_window == 70_000
    for _ in range(6):
        peer.send(frame(4, 0, 0, resized * 200))
    assert peer.fault() == "ENHANCE_YOUR_CALM"
    assert peer.fired == [Limit.CONTROL_FRAMES]


def test_high_identifiers_earn_nothing() -> None:
    """Only streams really opened count."""
    peer = Peer()
    peer.send(peer.request((1 << 31) - 1))
    for _ in range(60):
        peer.send(settings())
    assert peer.fault() == "ENHANCE_YOUR_CALM"


def test_the_allowance_refills_with_time_and_with_streams() -> None:
    """A client that sends many over a long time, or for many streams, is no flood."""
    slow, busy = Peer(), Peer(max_streams=None)
    for _ in range(200):
        slow.now_s += 1.0
        slow.send(settings())
    assert not slow.fault()
    for stream_id in range(1, 401, 2):
        busy.send(busy.request(stream_id, end=True), window_update(0, 1), window_update(stream_id, 1))
    assert not busy.fault()


def test_pings_without_traffic_are_too_many() -> None:
    """The debug data is what gRPC's clients understand; an answer sent in between forgives."""
    peer = Peer()
    for stream_id in (1, 3, 5, 7):
        peer.send(PING, PING)
        peer.send(peer.request(stream_id, end=True))
        peer.reply(stream_id, b"x")
    assert not peer.fault()
    for _ in range(5):
        peer.send(PING)
    goaway = [f for f in peer.taken() if f.kind == 7]
    assert goaway[0].payload[8:] == b"too_many_pings"
    assert peer.fired == [Limit.PINGS]


def test_resets_by_the_client_are_limited() -> None:
    """Rapid reset: opening and closing streams ends the connection at the limit."""
    peer = Peer()
    for stream_id in range(1, 21, 2):
        peer.send(peer.request(stream_id), rst(stream_id))
    assert not peer.fault()
    assert peer.calls[1].reset_code == 8
    peer.send(peer.request(21), rst(21))
    assert peer.fault() == "ENHANCE_YOUR_CALM"
    assert peer.fired == [Limit.RESETS]


def test_resets_that_a_client_provokes_are_limited() -> None:
    """MadeYouReset: the server's own resets count when the client's mistakes cause them."""
    peer = Peer()
    for stream_id in range(1, 25, 2):
        peer.send(peer.request(stream_id), window_update(stream_id, 0))
    assert peer.fault() == "ENHANCE_YOUR_CALM"
    assert peer.calls[1].reset_code == 1


def test_resets_of_answered_streams_are_free() -> None:
    """A client that resets what it was answered already costs nothing."""
    peer = Peer(max_control_frames=1000)
    for stream_id in range(1, 101, 2):
        peer.send(peer.request(stream_id, end=True))
        peer.reply(stream_id, b"")
        peer.send(rst(stream_id))
    assert not peer.fault()


def test_abandoned_work_takes_the_place_of_streams() -> None:
    """Resetting a stream frees nothing while its work goes on."""
    peer = Peer(max_streams=2)
    peer.send(peer.request(1), peer.request(3), rst(1))
    peer.connection.table.abandoned = 1
    peer.taken()
    peer.send(peer.request(5))
    assert peer.reset_codes() == {5: 7}
    assert peer.fired == [Limit.STREAMS]
    peer.connection.table.abandoned = 0
    peer.send(peer.request(7))
    assert 7 in peer.calls


def test_continuations_are_limited_in_number_and_bytes() -> None:
    """Neither endless empty frames nor endless bytes are collected."""
    many, large = Peer(), Peer()
    many.send(frame(1, 0, 1, b"\x82"), *[frame(9, 0, 1, b"") for _ in range(9)])
    assert (many.fault(), many.fired) == ("ENHANCE_YOUR_CALM", [Limit.CONTINUATIONS])
    large.send(frame(1, 0, 1, bytes(16_000)), frame(9, 0, 1, bytes(16_000)))
    assert (large.fault(), large.fired) == ("ENHANCE_YOUR_CALM", [Limit.HEADER_BLOCK])


def test_a_large_header_list_reaches_the_application_as_such() -> None:
    """The request is refused by whoever answers it, the connection goes on."""
    peer = Peer()
    peer.send(peer.request(1, [("big", "x" * 9000)], end=True))
    assert peer.heads[1].too_large
    peer.send(peer.request(3, end=True))
    assert not peer.heads[3].too_large


def test_answers_nobody_reads_are_limited() -> None:
    """One of any size is taken; the next beyond the limit is reset."""
    peer = Peer(max_unsent_bytes=100_000)
    peer.send(settings(w=0), *[peer.request(i, end=True) for i in (1, 3)])
    peer.reply(1, b"x" * 500_000)
    peer.reply(3, b"x" * 10)
    assert peer.reset_codes() == {3: 11}
    assert peer.fired == [Limit.UNSENT]


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    """Progress counts: only a stream that stood still is reset, and its memory given back."""
    peer = Peer()
    peer.send(settings(w=10), *[peer.request(i, end=True) for i in (1, 3)])
    for stream_id in (1, 3):
        peer.reply(stream_id, b"x" * 100)
    peer.pass_time(3.0)
    peer.send(window_update(1, 1))
    peer.pass_time(2.0)
    assert peer.reset_codes() == {3: 8}
    assert peer.fired == [Limit.SEND_TIMEOUT]
    assert peer.calls[3].reset_code == 8
    assert peer.connection.sender.unsent_bytes == peer.calls[1].unsent_bytes == 89


def test_a_socket_that_stays_full_ends_the_connection() -> None:
    """However wide its windows are."""
    peer = Peer()
    peer.connection.sender.pause(peer.now_s)
    assert peer.connection.watched
    peer.pass_time(3.0)
    assert not peer.fault()
    peer.pass_time(1.0)
    assert (peer.fault(), peer.fired) == ("ENHANCE_YOUR_CALM", [Limit.SEND_TIMEOUT])


def test_a_slow_message_is_told_so() -> None:
    """The minimum rate counts from the start of the message, beyond the time every message has."""
    peer = Peer()
    peer.send(peer.request(1))
    call = peer.calls[1]
    call.upload_s, call.upload_bytes = peer.now_s, 1000
    peer.pass_time(4.5)
    assert call.late == 0
    peer.pass_time(1.0)
    assert call.late == 1
    assert peer.fired == [Limit.BODY_TIMEOUT]


@pytest.mark.parametrize("part", [b"\x00", frame(1, 4, 1, b"\x82")[:-1], frame(1, 0, 1, b"\x82")])
def test_slow_headers_end_the_connection(part: bytes) -> None:
    """A frame that never ends, or a block, is not waited for longer than the limit; drips do not help."""
    peer = Peer()
    peer.send(part)
    peer.pass_time(3.0)
    assert not peer.fault()
    peer.pass_time(1.5)
    assert peer.fault() == "ENHANCE_YOUR_CALM"
    assert peer.fired == [Limit.HEADER_TIMEOUT]


def test_drips_of_a_frame_do_not_reset_its_time() -> None:
    """Time counts from the frame's first byte."""
    peer = Peer()
    block = peer.request(1)
    for byte in block[:6]:
        peer.send(bytes([byte]))
        peer.pass_time(1.0)
    assert peer.fault() == "ENHANCE_YOUR_CALM"


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI"])
def test_a_preface_is_waited_for_a_while(sent: bytes) -> None:
    """A connection that has not said SETTINGS by then is closed."""
    peer = Peer(greet=False)
    peer.send(sent)
    peer.pass_time(4.0)
    assert not peer.fault()
    peer.pass_time(1.0)
    assert peer.fired == [Limit.PREFACE_TIMEOUT]


def test_keepalive_closes_what_does_not_answer() -> None:
    """A ping after silence, any frame as its answer."""
    peer = Peer()
    peer.pass_time(1000.0)
    assert [f.kind for f in peer.taken()] == [6]
    peer.send(frame(6, 1, 0, b"keepaliv"))
    peer.pass_time(500.0)
    assert peer.taken() == []
    peer.pass_time(500.0)
    assert [f.kind for f in peer.taken()] == [6]
    peer.pass_time(20.0)
    assert peer.connection.fault is not None
    assert peer.fired == [Limit.KEEPALIVE_TIMEOUT]


def test_an_idle_connection_is_drained() -> None:
    """Idleness counts from the end of the last stream."""
    peer = Peer(max_idle_s=10.0)
    peer.send(peer.request(1, end=True))
    peer.pass_time(20.0)
    assert peer.taken() == []
    peer.reply(1, b"")
    peer.taken()
    peer.pass_time(9.0)
    assert peer.taken() == []
    peer.pass_time(1.0)
    assert [f.kind for f in peer.taken()] == [7, 6]


def test_an_old_connection_is_drained_and_then_cut() -> None:
    """Its streams have the grace to finish."""
    peer = Peer(max_age_s=100.0, max_age_grace_s=10.0)
    peer.send(peer.request(1))
    peer.pass_time(100.0)
    assert [f.kind for f in peer.taken()] == [7, 6]
    peer.pass_time(9.0)
    assert not peer.fault()
    peer.pass_time(1.0)
    assert peer.fault() == "NO_ERROR"
