"""The seam between threads that hold a bidirectional gRPC call and the transport that carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ssl

    from gateway.core.calls import Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplexTarget:
    """What is called, and how.

    Attributes:
        address: `unix:/path/to.sock`, or `host:port`, an IPv6 host in brackets.
        path: of the method, `/package.Service/Method`.
        metadata: lower-case names, printable values.
        tls: for TCP, with ALPN `h2`; None: in the clear.
        server_name: name expected in the certificate, where it is not the host; also the authority.
        connect_timeout_s: for the socket and its TLS handshake; looking a name up takes its own time.
        max_message_bytes: largest message received.
    """

    address: str
    path: str
    metadata: Headers = ()
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    connect_timeout_s: float = 1.0
    max_message_bytes: int = 1 << 20


class DuplexListener(Protocol):
    """Hears a call, from one thread of the transport's that does nothing else meanwhile. It may use it."""

    def on_message(self, message: bytes) -> None:
        """Take a whole message."""

    def on_end(self, code: str, details: str) -> None:
        """Hear that the call has ended; the last that is heard, and not after `Duplex.close`.

        Args:
            code: name of the gRPC status, `OK` or `UNAVAILABLE` for instance.
            details: its text.
        """


class Duplex(Protocol):
    """A call under way; any thread may use it."""

    def send(self, message: bytes) -> None:
        """Send a message, at once or as the other side takes it; never blocks.

        What is not taken is kept without a bound: the caller bounds what it sends.

        Raises:
            ConnectionError: the call has ended, or `end` was called.
        """

    def end(self) -> None:
        """Say that no further message comes. Again, or at the call's end: harmless."""

    def close(self) -> None:
        """Call it off, if it is under way, and let go; takes a second at most. Again: harmless."""


class OpenDuplex(Protocol):
    """Opens calls."""

    def __call__(self, target: DuplexTarget, listener: DuplexListener) -> Duplex:
        """Connect and begin a call; the listener may hear before this returns.

        Raises:
            OSError: there is no connection; the text says to where, and why.
            ValueError: the metadata cannot be sent.
        """
