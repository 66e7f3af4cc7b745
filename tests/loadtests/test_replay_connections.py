"""The replay's connections without a socket: what servers may send, and in what pieces."""

from pathlib import Path

import pytest
from hpack import Encoder

from loadtests import captured
from loadtests.replay.ends import Answers, End
from loadtests.replay.grpc_calls import GrpcMessages, HeaderBlocks, StreamCalls, UnaryCalls
from loadtests.replay.http1 import HttpConnection, HttpRequests
from loadtests.replay.http2_link import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from loadtests.replay.order import REQUEST_ID, Order

ACK = 1


def order(tmp_path: Path, body: bytes = b"body", *, ids: bool = False) -> Order:
    bodies = tmp_path / "bodies"
    bodies.write_bytes(body)
    return Order(
        protocol="grpc",
        host="host",
        port=1,
        path="/path",
        headers=[["content-type: text/plain"]],
        bodies=str(bodies),
        lengths=[len(body)],
        connections=1,
        in_flight=1,
        offsets="",
        seconds=1,
        ids=ids,
        deadlines=False,
        traceparent=False,
        client="grpcio",
    )


def http(tmp_path: Path, *, ids: bool = False) -> tuple[HttpConnection, Answers]:
    answers = Answers()
    body = f"x{REQUEST_ID}y".encode() if ids else b"body"
    return HttpConnection(HttpRequests(order(tmp_path, body, ids=ids)), answers), answers


def unary(tmp_path: Path, body: bytes = b"body") -> tuple[UnaryCalls, Answers]:
    answers, capture = Answers(), captured.load("grpcio", "plain")
    messages, blocks = GrpcMessages(order(tmp_path, body)), HeaderBlocks(capture.templates)
    return UnaryCalls(messages, blocks, capture.opening, answers), answers


def stream(tmp_path: Path) -> tuple[StreamCalls, Answers]:
    answers, capture = Answers(), captured.load("grpcio", "stream")
    messages, blocks = GrpcMessages(order(tmp_path)), HeaderBlocks(capture.templates)
    return StreamCalls(messages, blocks, capture.opening, answers), answers


def frames(out: list[bytes]) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of what a connection wants to send."""
    data, found, at = b"".join(out), [], 0
    out.clear()
    while at < len(data):
        length = int.from_bytes(data[at : at + 3])
        head = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9])
        found.append((*head, data[at + 9 : at + 9 + length]))
        at += 9 + length
    return found


def answer(number: int, status: str = "0", body: bytes = b"\0\0\0\0\2ok") -> bytes:
    """A whole answer to a call, its header blocks without any table."""
    head, trailers = (
        b"".join(b"\0" + bytes((len(k),)) + k + bytes((len(v),)) + v for k, v in pairs)
        for pairs in (
            [(b":status", b"200"), (b"content-type", b"application/grpc")],
            [(b"grpc-status", status.encode())],
        )
    )
    return (
        frame(HEADERS, END_HEADERS, number, head)
        + frame(DATA, 0, number, body)
        + frame(HEADERS, END_HEADERS | END_STREAM, number, trailers)
    )


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_http_answers_in_any_pieces(tmp_path: Path, response: bytes, size: int) -> None:
    """Two in a row, counted once each and only when they are whole."""
    connection, answers = http(tmp_path)
    for number in (0, 1):
        connection.send(number)
        assert connection.room == 0
        for at in range(0, len(response), size):
            assert len(answers.ended) == number
            connection.receive(response[at : at + size])
        assert answers.ended[-1] == (number, End.GOOD)
        assert connection.room == 1
    assert answers.samples[0][1] == b"hello"


@pytest.mark.parametrize(
    ("status", "end"), [(400, End.FAILED), (429, End.REJECTED), (503, End.REJECTED), (504, End.EXPIRED)]
)
def test_http_statuses(tmp_path: Path, status: int, end: End) -> None:
    """Refusals and expiries are told from failures, each with the server's words."""
    connection, answers = http(tmp_path)
    connection.send(0)
    connection.receive(b"HTTP/1.1 %d X\r\ncontent-length: 3\r\n\r\nwhy" % status)
    assert answers.ended == [(0, end)]
    assert answers.problems == {f"HTTP {status}: b'why'": 1}


def test_a_server_that_closes_after_an_answer(tmp_path: Path) -> None:
    """Takes no further request on that connection."""
    connection, _ = http(tmp_path)
    connection.send(0)
    connection.receive(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    assert (connection.going, connection.room) == (False, 0)


def test_ids_take_their_place_in_the_body(tmp_path: Path) -> None:
    """A different one in each request, of the placeholder's length."""
    connection, _ = http(tmp_path, ids=True)
    connection.send(255)
    assert connection.out[0].endswith(b"content-length: 18\r\n\r\nx00000000000000ffy")


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_grpc_answers_in_any_pieces(tmp_path: Path, size: int) -> None:
    """Calls on streams of their own, answered in another order."""
    calls, answers = unary(tmp_path)
    calls.send(0)
    calls.send(1)
    assert [f[:3] for f in frames(calls.out)] == [(1, 4, 1), (0, 1, 1), (1, 4, 3), (0, 1, 3)]
    data = answer(3) + answer(1)
    for at in range(0, len(data), size):
        calls.receive(data[at : at + size])
    assert answers.ended == [(1, End.GOOD), (0, End.GOOD)]
    assert answers.samples[1] == ({}, b"ok")
    assert calls.unanswered == []


@pytest.mark.parametrize(
    ("status", "end"), [("8", End.REJECTED), ("14", End.REJECTED), ("4", End.EXPIRED), ("13", End.FAILED)]
)
def test_grpc_statuses_are_counted_every_time(tmp_path: Path, status: str, end: End) -> None:
    """Also when the same block comes again."""
    calls, answers = unary(tmp_path)
    for number in (0, 1, 2):
        calls.send(number)
        calls.receive(answer(2 * number + 1, status))
    assert answers.ended == [(0, end), (1, end), (2, end)]
    assert answers.problems.total() == 3


def test_a_block_means_something_else_once_the_table_has_changed(tmp_path: Path) -> None:
    """A server that indexes: 0xBE is the newest entry (RFC 7541, 2.3.3), whatever that is now."""
    calls, answers = unary(tmp_path)
    good, bad = (b"\x40\x0bgrpc-status" + bytes((len(status),)) + status for status in (b"0", b"13"))
    for number, block in enumerate([good, b"\xbe", b"\xbe", bad, b"\xbe", good, b"\xbe"]):
        calls.send(number)
        calls.receive(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, block))
    assert [number for number, end in answers.ended if end is End.FAILED] == [3, 4]


def test_no_more_is_sent_than_the_windows_allow(tmp_path: Path) -> None:
    """64 KiB at first; the rest when connection and stream have both been given credit."""
    calls, _ = unary(tmp_path, b"x" * 100_000)
    calls.send(0)
    sent = [f for f in frames(calls.out) if f[0] == DATA]
    assert sum(len(f[3]) for f in sent) == 65535
    assert max(len(f[3]) for f in sent) == 16384
    calls.receive(frame(WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4)))
    assert frames(calls.out) == []
    calls.receive(frame(WINDOW_UPDATE, 0, 1, (1 << 20).to_bytes(4)))
    rest = [f for f in frames(calls.out) if f[0] == DATA]
    assert sum(len(f[3]) for f in rest) == 100_005 - 65535
    assert [f[1] for f in rest] == [0] * (len(rest) - 1) + [END_STREAM]


def test_settings_open_the_windows_of_calls_under_way(tmp_path: Path) -> None:
    """A larger initial window counts for them too, and settings are acknowledged."""
    calls, _ = unary(tmp_path, b"x" * 100_000)
    calls.send(0)
    frames(calls.out)
    calls.receive(frame(WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4)))
    calls.receive(frame(SETTINGS, 0, 0, b"\0\4" + (1 << 20).to_bytes(4)))
    out = frames(calls.out)
    assert (SETTINGS, ACK, 0, b"") in out
    assert sum(len(f[3]) for f in out if f[0] == DATA) == 100_005 - 65535


def test_what_a_server_may_ask_of_a_connection(tmp_path: Path) -> None:
    """Pings are answered, stream limits kept, and a server that goes away gets no new calls."""
    calls, answers = unary(tmp_path)
    calls.receive(frame(PING, 0, 0, b"12345678") + frame(SETTINGS, 0, 0, b"\0\3" + (7).to_bytes(4)))
    assert (PING, ACK, 0, b"12345678") in frames(calls.out)
    assert calls.room == 7
    calls.receive(frame(GOAWAY, 0, 0, bytes(8)))
    assert (calls.room, calls.going, answers.problems) == (0, False, {})
    calls.receive(frame(GOAWAY, 0, 0, bytes(4) + (11).to_bytes(4) + b"calm"))
    assert answers.problems == {"GOAWAY 11: b'calm'": 1}


def test_a_call_that_is_reset_has_failed(tmp_path: Path) -> None:
    """With the code among the problems."""
    calls, answers = unary(tmp_path)
    calls.send(0)
    calls.receive(frame(RST_STREAM, 0, 1, (7).to_bytes(4)))
    assert (answers.ended, answers.problems) == ([(0, End.FAILED)], {"RST_STREAM 7": 1})


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_messages_of_a_stream_are_answered_in_order(tmp_path: Path, size: int) -> None:
    """However they are cut into frames; an error among them fails its own message only."""
    calls, answers = stream(tmp_path)
    for number in range(3):
        calls.send(number)
    assert [f[:3] for f in frames(calls.out)] == [(1, 4, 1)] + [(0, 0, 1)] * 3
    data = b"".join(b"\0" + len(m).to_bytes(4) + m for m in (b"\x12\0", b"\x0a\3bad", b"\x12\0"))
    for at in range(0, len(data), size):
        calls.receive(frame(DATA, 0, 1, data[at : at + size]))
    assert answers.ended == [(0, End.GOOD), (1, End.FAILED), (2, End.GOOD)]


def test_a_stream_that_ends_fails_what_it_has_not_answered(tmp_path: Path) -> None:
    """With its status."""
    calls, answers = stream(tmp_path)
    calls.send(0)
    block = Encoder().encode([("grpc-status", "14"), ("grpc-message", "gone")])
    calls.receive(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
    assert answers.ended == [(0, End.REJECTED)]
    assert not calls.going
