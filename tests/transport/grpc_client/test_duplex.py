"""Bidirectional calls of threads, to a server by gRPC's C core."""

from __future__ import annotations

import ssl
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from gateway.transport.grpc_native_duplex import open_duplex
from tests.transport.grpc_client.duplex_ends import PATIENCE_S, Heard, grpc_server, target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.core.duplex import DuplexTarget
    from gateway.transport.options import TlsOptions

MIB = 1 << 20


def echo(messages: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
    yield from messages


@contextmanager
def echoing(kind: str, tmp_path: Path, certificates: TlsOptions) -> Iterator[DuplexTarget]:
    """Serve `echo`, and say how to call it."""
    if kind == "unix":
        with grpc_server(echo, f"unix:{tmp_path / 's'}"):
            yield target(f"unix:{tmp_path / 's'}", max_message_bytes=4 * MIB)
        return
    if kind == "tcp":
        with grpc_server(echo, "127.0.0.1:0") as (_, port):
            yield target(f"127.0.0.1:{port}", max_message_bytes=4 * MIB)
        return
    key, certificate = certificates.key.read_bytes(), certificates.certificate.read_bytes()
    mutual = kind == "mutual tls"
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], certificate if mutual else None, require_client_auth=mutual
    )
    context = ssl.create_default_context(cafile=certificates.certificate)
    context.set_alpn_protocols(["h2"])
    if mutual:
        context.load_cert_chain(certificates.certificate, certificates.key)
    with grpc_server(echo, "127.0.0.1:0", credentials) as (_, port):
        yield target(f"localhost:{port}", max_message_bytes=4 * MIB, tls=context)


@pytest.mark.parametrize("kind", ["unix", "tcp", "tls", "mutual tls"])
def test_messages_of_every_size_come_back(kind: str, tmp_path: Path, certificates: TlsOptions) -> None:
    """Whole and in order, though they are larger than frames, windows and buffers."""
    sent = [
        bytes([number]) * size
        for number, size in enumerate([0, 1, 16_379, 16_380, 65_530, 0, 65_535, MIB, 3 * MIB, 5])
    ]
    heard = Heard()
    with (
        echoing(kind, tmp_path, certificates) as given,
        closing(open_duplex(given, heard)) as call,
    ):
        for message in sent:
            call.send(message)
        call.end()
        assert heard.wait_for_end() == ("OK", "")
    assert heard.messages == sent


def test_many_messages_from_many_threads(tmp_path: Path) -> None:
    """Those of each thread stay in order, and none is torn."""
    heard = Heard()
    with (
        grpc_server(echo, f"unix:{tmp_path / 's'}"),
        closing(open_duplex(target(f"unix:{tmp_path / 's'}"), heard)) as call,
    ):

        def send(name: int) -> None:
            for number in range(300):
                call.send(b"%d %d " % (name, number) + bytes(number * 7))

        threads = [threading.Thread(target=send, args=(name,)) for name in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        call.end()
        assert heard.wait_for_end() == ("OK", "")
    for name in range(3):
        own = [found.split(b" ", 2) for found in heard.messages if found.startswith(b"%d " % name)]
        assert [(int(found[1]), len(found[2])) for found in own] == [(n, n * 7) for n in range(300)]


def test_metadata(tmp_path: Path) -> None:
    """The server is told."""
    told: dict[str, str | bytes] = {}

    def tell(_: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        told.update(context.invocation_metadata())
        yield from ()

    address, heard = f"unix:{tmp_path / 's'}", Heard()
    with (
        grpc_server(tell, address),
        closing(open_duplex(target(address, metadata=(("who", "me"),)), heard)),
    ):
        heard.wait_for_end()
    assert told["who"] == "me"


def test_the_server_ends_the_call(tmp_path: Path) -> None:
    """Its status is heard after its messages; nothing can be sent then."""

    def refuse(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield next(messages)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "voll: 100% für heute")

    address, heard = f"unix:{tmp_path / 's'}", Heard()
    with grpc_server(refuse, address), closing(open_duplex(target(address), heard)) as call:
        call.send(b"one")
        assert heard.wait_for_end() == ("RESOURCE_EXHAUSTED", "voll: 100% für heute")
        with pytest.raises(ConnectionError, match="voll"):
            call.send(b"two")
        call.end()
    assert heard.messages == [b"one"]


def test_a_method_that_is_not_there(tmp_path: Path) -> None:
    """The server has answered by trailers alone."""
    address, heard = f"unix:{tmp_path / 's'}", Heard()
    with grpc_server(echo, address), closing(open_duplex(target(address, path="/a.B/D"), heard)):
        assert heard.wait_for_end() == ("UNIMPLEMENTED", "Method not found!")


def test_half_closing_lets_the_server_go_on(tmp_path: Path) -> None:
    """It answers after this side has ended."""

    def count(messages: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"%d" % sum(len(message) for message in messages)

    address, heard = f"unix:{tmp_path / 's'}", Heard()
    with grpc_server(count, address), closing(open_duplex(target(address), heard)) as call:
        call.send(bytes(MIB))
        call.end()
        call.end()
        with pytest.raises(ConnectionError, match="this side"):
            call.send(b"")
        assert heard.wait_for_end() == ("OK", "")
    assert heard.messages == [b"%d" % MIB]


def test_a_server_that_stops_at_once(tmp_path: Path) -> None:
    """The call ends, once, and another can be opened when there is a server again."""
    address, heard = f"unix:{tmp_path / 's'}", Heard()
    with grpc_server(echo, address) as (server, _), closing(open_duplex(target(address), heard)) as call:
        call.send(b"one")
        heard.wait_for_messages(1)
        server.stop(None).wait(PATIENCE_S)
        code, details = heard.wait_for_end()
    assert code in {"UNAVAILABLE", "CANCELLED", "INTERNAL"}, details
    with pytest.raises(ConnectionError, match=r"failed to connect to unix:.*s: "):
        open_duplex(target(address), Heard())
    again = Heard()
    with grpc_server(echo, address), closing(open_duplex(target(address), again)) as call:
        call.send(b"two")
        assert again.wait_for_messages(1) == [b"two"]


def test_a_server_that_stops_and_waits(tmp_path: Path) -> None:
    """Its GOAWAY lets the call go on to its end."""
    address, heard = f"unix:{tmp_path / 's'}", Heard()
    with grpc_server(echo, address) as (server, _), closing(open_duplex(target(address), heard)) as call:
        call.send(b"one")
        heard.wait_for_messages(1)
        stopped = server.stop(PATIENCE_S)
        call.send(b"two")
        call.end()
        assert heard.wait_for_end() == ("OK", "")
        stopped.wait(PATIENCE_S)
    assert heard.messages == [b"one", b"two"]


def test_closing_while_the_thread_waits(tmp_path: Path) -> None:
    """The server hears that it is called off, the listener hears nothing, the thread is gone."""
    cancelled, ready = threading.Event(), threading.Event()

    def wait(_: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(cancelled.set)
        ready.set()
        cancelled.wait(PATIENCE_S)
        yield from ()

    address, heard = f"unix:{tmp_path / 's'}", Heard()
    with grpc_server(wait, address):
        call = open_duplex(target(address), heard)
        assert ready.wait(PATIENCE_S)
        call.close()
        call.close()
        assert cancelled.wait(PATIENCE_S)
        assert not call.thread.is_alive()
    assert heard.end is None
    with pytest.raises(ConnectionError, match="closed"):
        call.send(b"")
    call.end()


def test_closing_from_the_listener(tmp_path: Path) -> None:
    """It hears nothing more, and the thread ends by itself."""
    address, heard = f"unix:{tmp_path / 's'}", Heard()
    with grpc_server(echo, address), closing(open_duplex(target(address), heard)) as call:
        heard.take = lambda _: call.close()
        for number in range(100):
            try:
                call.send(b"%d" % number)
            except ConnectionError:
                break
        call.thread.join(PATIENCE_S)
        assert not call.thread.is_alive()
    assert heard.messages == [b"0"]
    assert heard.end is None


def test_a_listener_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The call ends and says so; the server is told."""
    cancelled = threading.Event()

    def speak(_: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(cancelled.set)
        yield b"one"
        cancelled.wait(PATIENCE_S)

    address, heard = f"unix:{tmp_path / 's'}", Heard()
    heard.take = int
    with grpc_server(speak, address), closing(open_duplex(target(address), heard)) as call:
        assert heard.wait_for_end() == ("INTERNAL", "a message could not be taken")
        assert cancelled.wait(PATIENCE_S)
        with pytest.raises(ConnectionError):
            call.send(b"")
    assert "duplex_message_failed" in caplog.text


def test_a_message_beyond_the_limit(tmp_path: Path) -> None:
    """It ends the call before it is kept."""
    address, heard = f"unix:{tmp_path / 's'}", Heard()
    with (
        grpc_server(echo, address),
        closing(open_duplex(target(address, max_message_bytes=1000), heard)) as call,
    ):
        call.send(bytes(1000))
        call.send(bytes(1001))
        code, details = heard.wait_for_end()
    assert (code, details) == ("RESOURCE_EXHAUSTED", "Received message larger than max (1001 vs. 1000)")
    assert heard.messages == [bytes(1000)]
