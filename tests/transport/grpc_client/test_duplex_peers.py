"""Bidirectional calls of threads, to servers made by hand: slow ones, broken ones, those that are none."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import hpack
import pytest

from gateway.transport.grpc_native_duplex import GrpcDuplex, open_duplex
from gateway.transport.grpc_native_duplex_call import DuplexConnection
from gateway.transport.nonblocking_socket import NonblockingSocket
from tests.transport.grpc_client.duplex_ends import (
    DATA,
    END_STREAM,
    HEAD,
    HEADERS,
    PATIENCE_S,
    RST_STREAM,
    HandServer,
    Heard,
    Listening,
    message,
    target,
)
from tests.transport.http2.peer import data, frame, settings, window_update

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


MIB = 1 << 20


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    with closing(Listening(tmp_path)) as made:
        yield made


@pytest.fixture
def pair(listening: Listening) -> Iterator[tuple[GrpcDuplex, HandServer, Heard]]:
    """A call and its server, which has said nothing yet."""
    heard = Heard()
    with closing(open_duplex(target(listening.address), heard)) as call:
        server = listening.accept()
        with closing(server.connection):
            yield call, server, heard


def reset(code: int) -> bytes:
    return frame(RST_STREAM, 0, 1, struct.pack(">I", code))


def goaway(last_id: int, code: int = 0) -> bytes:
    return frame(7, payload=struct.pack(">II", last_id, code))


def test_the_head_of_a_call(listening: Listening) -> None:
    """It has what gRPC asks for and the metadata, and offers no compression."""
    given = target(listening.address, metadata=(("who", "me"),))
    with closing(open_duplex(given, Heard())):
        server = listening.accept()
        with closing(server.connection):
            server.read(24)
            fields: dict[Any, Any] = dict(hpack.Decoder().decode(server.frame_of(HEADERS).payload))
    assert fields == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/a.B/C",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        "user-agent": "model-gateway",
        "grpc-accept-encoding": "identity",
        "who": "me",
    }


# What ends a call: what the server does after its greeting, the code, what the details match.
ENDS: dict[str, tuple[Callable[[HandServer], bytes], str, str]] = {
    "refused": (lambda s: reset(7), "UNAVAILABLE", "RST_STREAM with error code 7"),
    "cancelled": (lambda s: s.head() + reset(8), "CANCELLED", "RST_STREAM with error code 8"),
    "failed": (lambda s: s.head() + reset(2), "INTERNAL", "RST_STREAM with error code 2"),
    "goaway before the call": (lambda s: goaway(0), "UNAVAILABLE", "^GOAWAY received$"),
    "trailers alone": (
        lambda s: s.fields([*HEAD, ("grpc-status", "7"), ("grpc-message", "no")], end=True),
        "PERMISSION_DENIED",
        "^no$",
    ),
    "a status that gRPC has not": (lambda s: s.head() + s.status(99, "odd"), "UNKNOWN", "^odd$"),
    "no such path": (lambda s: s.fields([(":status", "404")], end=True), "UNIMPLEMENTED", "status: 404"),
    "a proxy": (lambda s: s.fields([(":status", "503")]), "UNAVAILABLE", "status: 503"),
    "a web page": (
        lambda s: s.fields([(":status", "200"), ("content-type", "text/html")]),
        "UNKNOWN",
        "content-type: text/html",
    ),
    "large metadata": (
        lambda s: s.fields([*HEAD, *[("x", "x" * 3000)] * 30]),
        "RESOURCE_EXHAUSTED",
        "metadata is larger than the limit",
    ),
    "DATA before the head": (lambda s: data(1, message(b"")), "UNKNOWN", "DATA before the head"),
    "two heads": (lambda s: s.head() + s.head(), "UNKNOWN", "two heads"),
    "no trailers": (lambda s: s.head() + data(1, message(b""), end=True), "UNKNOWN", "without a status"),
    "trailers without a status": (
        lambda s: s.head() + s.fields([("x", "y")], end=True),
        "UNKNOWN",
        "without a status",
    ),
    "half a message": (
        lambda s: s.head() + data(1, message(b"abc")[:6]) + s.status(0),
        "UNKNOWN",
        "inside a message",
    ),
    "too long": (
        lambda s: s.head() + data(1, struct.pack(">BI", 0, MIB + 1)),
        "RESOURCE_EXHAUSTED",
        "larger than max",
    ),
    "compressed": (
        lambda s: s.fields([*HEAD, ("grpc-encoding", "gzip")]) + data(1, message(b"abc", flag=1)),
        "INTERNAL",
        "compressed",
    ),
    "a flag that is none": (lambda s: s.head() + data(1, message(b"abc", flag=2)), "INTERNAL", "flag"),
    "a frame on another stream": (lambda s: data(3, b"abc"), "UNAVAILABLE", "idle stream"),
    "no HPACK": (lambda s: frame(HEADERS, 4, 1, b"\xff\xff\xff\xff\xff"), "UNAVAILABLE", "^[a-zA-Z ]"),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_ends_a_call(pair: tuple[GrpcDuplex, HandServer, Heard], name: str) -> None:
    """It is heard once, with one reason; then nothing can be sent, and the connection is closed."""
    call, server, heard = pair
    act, expected, details = ENDS[name]
    server.greet()
    server.send(act(server))
    code, text = heard.wait_for_end()
    assert code == expected
    assert re.search(details, text), text
    with pytest.raises(ConnectionError):
        call.send(b"")
    assert all(found.kind != DATA for found in server.rest())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"\x00" * 100,
        b"\xff" * 100,
        data(0, b"no"),
        frame(6, payload=bytes(8)),
    ],
)
def test_no_http2_at_all(pair: tuple[GrpcDuplex, HandServer, Heard], answer: bytes) -> None:
    """It says so."""
    _, server, heard = pair
    server.send(answer)
    code, details = heard.wait_for_end()
    assert code == "UNAVAILABLE"
    assert details.startswith("it does not speak HTTP/2: ")


def test_a_connection_that_breaks(pair: tuple[GrpcDuplex, HandServer, Heard]) -> None:
    """The messages that came before are heard."""
    _, server, heard = pair
    server.greet()
    server.send(server.head(), data(1, message(b"one")), data(1, message(b"two")[:-1]))
    server.connection.shutdown(socket.SHUT_WR)
    assert heard.wait_for_end() == ("UNAVAILABLE", "Socket closed")
    assert heard.messages == [b"one"]


def test_a_server_that_leaves_in_the_middle(pair: tuple[GrpcDuplex, HandServer, Heard]) -> None:
    """The call goes on after GOAWAY; where it does not, that is told."""
    _, server, heard = pair
    server.greet()
    server.send(server.head(), goaway(1), data(1, message(b"one")))
    heard.wait_for_messages(1)
    server.connection.shutdown(socket.SHUT_WR)
    assert heard.wait_for_end() == ("UNAVAILABLE", "Socket closed after GOAWAY")


def test_a_status_is_not_lost_by_a_failed_write(pair: tuple[GrpcDuplex, HandServer, Heard]) -> None:
    """A server that ends the call and closes is heard to the end, though writing to it fails."""
    call, server, heard = pair
    server.greet()
    blocked, go_on = threading.Event(), threading.Event()

    def block(_: bytes) -> None:
        blocked.set()
        assert go_on.wait(PATIENCE_S)

    heard.take = block
    server.send(server.head(), data(1, message(b"one")))
    assert blocked.wait(PATIENCE_S)
    server.send(server.status(8, "enough"))
    server.connection.close()
    call.send(bytes(1000))
    go_on.set()
    assert heard.wait_for_end() == ("RESOURCE_EXHAUSTED", "enough")


def test_a_server_that_reads_no_more(pair: tuple[GrpcDuplex, HandServer, Heard]) -> None:
    """Writing tells it, where the server has not closed its own side."""
    call, server, heard = pair
    server.greet()
    server.connection.shutdown(socket.SHUT_RD)
    call.send(b"one")
    code, details = heard.wait_for_end()
    assert code == "UNAVAILABLE"
    assert details.startswith("Socket closed: ")


def test_a_server_that_reads_no_more_and_speaks(pair: tuple[GrpcDuplex, HandServer, Heard]) -> None:
    """The answer to its frame tells it, without anybody who sends."""
    _, server, heard = pair
    server.greet()
    server.connection.shutdown(socket.SHUT_RD)
    server.send(server.head(), data(1, message(b"one")), frame(6, payload=bytes(8)))
    code, details = heard.wait_for_end()
    assert code == "UNAVAILABLE"
    assert details.startswith("Socket closed: ")
    assert heard.messages == [b"one"]


def test_a_server_that_says_nothing(pair: tuple[GrpcDuplex, HandServer, Heard]) -> None:
    """What the default windows take is sent, the rest is kept; the call can be closed."""
    call, server, heard = pair
    call.send(bytes(MIB))
    server.read(24)
    assert server.data(65_535) == message(bytes(MIB))[:65_535]
    call.close()
    assert not call.thread.is_alive()
    assert heard.end is None
    last = server.rest()[-1]
    assert (last.kind, last.payload) == (RST_STREAM, struct.pack(">I", 8))


def test_windows_are_kept_to(pair: tuple[GrpcDuplex, HandServer, Heard]) -> None:
    """Each lets through what it says, and the end comes after all DATA."""
    call, server, heard = pair
    server.greet(settings(w=10))
    body = bytes(range(256)) * 40
    call.send(body)
    call.end()
    found = server.data(10)
    server.send(window_update(1, 5000))
    found += server.data(5000)
    server.send(settings(w=6000), window_update(1, 1 << 20))
    found += server.data(len(body) + 5 - len(found))
    assert found == message(body)
    assert server.frame_of(DATA, END_STREAM).payload == b""
    server.send(server.head(), server.status(0))
    assert heard.wait_for_end() == ("OK", "")


def test_a_server_that_reads_nothing(pair: tuple[GrpcDuplex, HandServer, Heard]) -> None:
    """Its windows are open and its socket is full: nobody waits, neither to send nor to close."""
    call, server, heard = pair
    server.greet()
    for _ in range(20):
        call.send(bytes(MIB))
    call.close()
    assert not call.thread.is_alive()
    assert heard.end is None


def test_what_the_socket_did_not_take_is_written_later(pair: tuple[GrpcDuplex, HandServer, Heard]) -> None:
    """As soon as the server reads, though nothing further is sent, and while the server speaks."""
    call, server, heard = pair
    server.greet()
    body = bytes(range(256)) * 8192
    call.send(body)
    call.send(b"small")
    call.end()
    server.send(server.head(), data(1, message(b"meanwhile")))
    assert heard.wait_for_messages(1) == [b"meanwhile"]
    whole = message(body) + message(b"small")
    assert server.data(len(whole)) == whole
    server.frame_of(DATA, END_STREAM)


def test_tiny_buffers() -> None:
    """Whatever the parts are that the socket takes, all arrives in order."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    ours.setblocking(False)
    theirs.settimeout(PATIENCE_S)
    heard, server = Heard(), HandServer(theirs)
    connection = DuplexConnection([(":path", "/a.B/C")], (), "http", MIB, time.monotonic())
    call = GrpcDuplex(NonblockingSocket(ours), connection, heard)
    call.start()
    with closing(theirs), closing(call):
        server.greet()
        bodies = [bytes([number]) * (number * 991) for number in range(100)]
        for body in bodies:
            call.send(body)
        call.end()
        whole = b"".join(message(body) for body in bodies)
        assert server.data(len(whole)) == whole
        server.send(server.head(), server.status(0))
        assert heard.wait_for_end() == ("OK", "")


def test_pings_are_answered(pair: tuple[GrpcDuplex, HandServer, Heard]) -> None:
    """By the thread, without anything else to do."""
    _, server, _ = pair
    server.greet()
    server.send(frame(6, payload=b"abcdefgh"))
    assert server.frame_of(6, flags=1).payload == b"abcdefgh"
