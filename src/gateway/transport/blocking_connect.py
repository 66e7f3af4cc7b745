"""Sockets connected by a thread that waits: Unix or TCP, in the clear or by TLS for HTTP/2."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.core.duplex import DuplexTarget

UNIX: Final = "unix:"
_ALPN: Final = "h2"
_LEAST_S: Final = 0.001  # 0 would mean not to wait, and to fail for that


def connected(target: DuplexTarget) -> socket.socket:
    """Return a nonblocking socket to `target`.

    Raises:
        ConnectionError: there is none in time; says to where, and why.
    """
    deadline_s = time.monotonic() + target.connect_timeout_s
    try:
        found = _socket(target, deadline_s)
    except TimeoutError as error:
        text = f"no connection to {target.address} in {target.connect_timeout_s:g} s"
        raise ConnectionError(text) from error
    except (OSError, ValueError) as error:  # ValueError: a name or address that is none
        raise ConnectionError(f"failed to connect to {target.address}: {error}") from error
    found.setblocking(False)
    return found


def _socket(target: DuplexTarget, deadline_s: float) -> socket.socket:
    if target.address.startswith(UNIX):
        path = target.address.removeprefix(UNIX)
        # `unix:///path` is another way to write it in gRPC.
        return _open(socket.AF_UNIX, path.removeprefix("//"), deadline_s - time.monotonic())
    host, _, port = target.address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal():
        raise ValueError("it is neither unix:/path nor host:port")
    plain = _tcp(host, int(port), deadline_s)
    if target.tls is None:
        return plain
    return _secured(plain, target, host, deadline_s)


def _tcp(host: str, port: int, deadline_s: float) -> socket.socket:
    """Try each address of the host, with an equal share of the time that is left."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = ConnectionError("the name has no address")
    for tried, (family, _, _, _, address) in enumerate(found):
        left_s = deadline_s - time.monotonic()
        try:
            made = _open(family, address, left_s / (len(found) - tried))
        except OSError as error:
            failure = error
            continue
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    raise failure


def _open(family: int, address: str | tuple[str | int | bytes, ...], timeout_s: float) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.settimeout(max(_LEAST_S, timeout_s))
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def _secured(plain: socket.socket, target: DuplexTarget, host: str, deadline_s: float) -> socket.socket:
    assert target.tls is not None
    try:
        plain.settimeout(max(_LEAST_S, deadline_s - time.monotonic()))
        secured = target.tls.wrap_socket(plain, server_hostname=target.server_name or host)
    except BaseException:
        plain.close()
        raise
    if secured.selected_alpn_protocol() != _ALPN:
        # RFC 9113 section 3.2: over TLS the protocol is agreed on by ALPN.
        secured.close()
        raise ConnectionError("it does not speak HTTP/2 over TLS")
    return secured
