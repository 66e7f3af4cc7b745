"""Bidirectional calls that do not come about, or only just: addresses, TLS, time."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from gateway.transport.grpc_native_duplex import open_duplex
from tests.transport.grpc_client.duplex_ends import (
    PATIENCE_S,
    HandServer,
    Heard,
    message,
    target,
)
from tests.transport.http2.peer import data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.transport.options import TlsOptions

MIB = 1 << 20


@pytest.mark.parametrize(
    "address", ["", "nothing", "unix:", "host:", ":80", "[::1]", "host:port", "x" * 300 + ":1"]
)
def test_addresses_that_are_none(address: str) -> None:
    """They are no connection, and say so."""
    with pytest.raises(ConnectionError, match="failed to connect to "):
        open_duplex(target(address), Heard())


def test_nobody_listens() -> None:
    """The address is named."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionError, match=rf"failed to connect to 127\.0\.0\.1:{port}: .*refused"):
            open_duplex(target(f"127.0.0.1:{port}"), Heard())


def test_metadata_that_cannot_be_sent() -> None:
    """It is refused before there is a connection."""
    with pytest.raises(ValueError, match="cannot be sent"):
        open_duplex(target("unix:/nowhere", metadata=(("grpc-status", "0"),)), Heard())


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6() -> None:
    """In brackets."""
    with closing(socket.socket(socket.AF_INET6)) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6")
        listener.listen()
        with closing(open_duplex(target(f"[::1]:{listener.getsockname()[1]}"), Heard())):
            accepted, _ = listener.accept()
            accepted.close()


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(PATIENCE_S)
        yield listener


def client_tls(certificates: TlsOptions) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates.certificate)
    context.set_alpn_protocols(["h2"])
    return context


def test_no_handshake_in_time(tcp: socket.socket, certificates: TlsOptions) -> None:
    """A server that accepts and says nothing is given up."""
    address = f"127.0.0.1:{tcp.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=rf"no connection to {address} in 0\.01 s"):
        open_duplex(target(address, tls=client_tls(certificates), connect_timeout_s=0.01), Heard())


@pytest.mark.parametrize(
    ("alpn", "name", "expected"),
    [(["http/1.1"], "", "does not speak HTTP/2"), ([], "", "does not speak"), (["h2"], "other", "match")],
)
def test_tls_that_does_not_fit(
    tcp: socket.socket, certificates: TlsOptions, alpn: list[str], name: str, expected: str
) -> None:
    """Without HTTP/2 by ALPN, or by another name, there is no connection."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    context.set_alpn_protocols(alpn)
    server = threading.Thread(target=_shake, args=(tcp, context))
    server.start()
    address = f"127.0.0.1:{tcp.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=expected):
        open_duplex(target(address, tls=client_tls(certificates), server_name=name), Heard())
    server.join()


def _shake(listener: socket.socket, context: ssl.SSLContext) -> None:
    accepted, _ = listener.accept()
    accepted.settimeout(PATIENCE_S)
    try:
        secured: Any = context.wrap_socket(accepted, server_side=True)
    except OSError:
        accepted.close()
        return
    secured.close()


def test_tls_to_a_server_that_reads_nothing(tcp: socket.socket, certificates: TlsOptions) -> None:
    """What TLS could not write is offered to it again as it was, and arrives whole when the server reads."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    context.set_alpn_protocols(["h2"])
    accepted: list[HandServer] = []

    def accept() -> None:
        connection, _ = tcp.accept()
        connection.settimeout(PATIENCE_S)
        accepted.append(HandServer(context.wrap_socket(connection, server_side=True)))

    accepting = threading.Thread(target=accept)
    accepting.start()
    heard, address = Heard(), f"127.0.0.1:{tcp.getsockname()[1]}"
    with closing(open_duplex(target(address, tls=client_tls(certificates)), heard)) as call:
        accepting.join()
        (server,) = accepted
        with closing(server.connection):
            server.greet()
            bodies = [bytes([number]) * MIB for number in range(20)]
            for body in bodies:
                call.send(body)
            server.send(server.head(), data(1, message(b"meanwhile")))
            assert heard.wait_for_messages(1) == [b"meanwhile"]
            for body in bodies:
                assert server.data(MIB + 5) == message(body)
