"""The faulty proxy that other tests rely on."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.triton.proxy import Fault, FaultProxy, fault_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(ConnectionResetError):
            while data := self.request.recv(1024):
                self.request.sendall(data)


@contextmanager
def before_an_echo() -> Iterator[FaultProxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as echo:
        echo.daemon_threads = True
        thread = threading.Thread(target=echo.serve_forever, args=(0.01,))
        thread.start()
        try:
            with fault_proxy(echo.server_address[1]) as proxy:
                yield proxy
        finally:
            echo.shutdown()
            thread.join()


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """Before a server that sends back what it gets."""
    with before_an_echo() as proxy:
        yield proxy


@pytest.fixture
def connection(proxy: FaultProxy) -> Iterator[socket.socket]:
    """A connection through it that works."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as connection:
        connection.sendall(b"first")
        assert connection.recv(5) == b"first"
        yield connection


def _silent(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(30)
    return False


def test_the_end_of_one_side_reaches_the_other(connection: socket.socket) -> None:
    """A connection that ends well ends well through it too."""
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""


def test_refused_connections_are_reset(proxy: FaultProxy, connection: socket.socket) -> None:
    """Those there were, and new ones."""
    proxy.set(Fault.REFUSE)
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    with (  # while it is still being made, or when it is read
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as other,
    ):
        other.recv(1)


def test_a_black_hole_neither_answers_nor_ends(proxy: FaultProxy, connection: socket.socket) -> None:
    """Connections there were and new ones are silent, and go on when it is over: nothing is lost."""
    proxy.set(Fault.BLACK_HOLE)
    connection.sendall(b"held")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as other:
        other.sendall(b"back")
        assert _silent(connection)
        assert _silent(other)
        proxy.set(Fault.PASS)
        assert (connection.recv(4), other.recv(4)) == (b"held", b"back")


def test_cut_connections_are_reset_and_new_ones_pass(proxy: FaultProxy, connection: socket.socket) -> None:
    """As when a server was started again."""
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30) as other:
        other.sendall(b"again")
        assert other.recv(5) == b"again"
    assert proxy.accepted == 2


def test_its_end_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever connections there are then."""
    with ExitStack() as stack:

        def connected(port: int) -> socket.socket:
            made = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            made.sendall(b"held")
            return made

        with before_an_echo() as faulty:
            assert connected(faulty.port).recv(4) == b"held"
            faulty.set(Fault.BLACK_HOLE)
            waiting = connected(faulty.port)
        with suppress(ConnectionResetError):
            assert waiting.recv(1) == b""
    assert caplog.records == []
