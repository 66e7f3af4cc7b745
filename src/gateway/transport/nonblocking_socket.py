"""A socket that is read and written as far as that goes at once, in the clear or by TLS."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket

_READ_BYTES: Final = 64 * 1024


class NonblockingSocket:
    """Says by its results what is to be waited for.

    Not thread-safe: OpenSSL has one state for both directions. TLS is not negotiated again, as RFC 9113
    section 9.2.1 has it; so nothing must be read before something is written.

    Args:
        connected: nonblocking; owned from now on.

    Attributes:
        reads_on_output: TLS has something of its own to write before it can read on.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._secured = connected if isinstance(connected, ssl.SSLSocket) else None
        self.reads_on_output = False

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        """Whether there is more to read that no wait tells of: TLS has it already."""
        return self._secured is not None and self._secured.pending() > 0

    def read(self) -> bytes | None:
        """Return what has come, b"" at the end; None: nothing yet.

        Raises:
            OSError: the connection is broken.
        """
        self.reads_on_output = False
        try:
            return self._socket.recv(_READ_BYTES)
        except ssl.SSLWantWriteError:
            self.reads_on_output = True
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        return None

    def write(self, data: memoryview) -> int:
        """Write from the beginning of `data`; return how much was taken. After 0, offer the same again.

        Raises:
            OSError: the connection is broken.
        """
        try:
            return self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return 0

    def close(self) -> None:
        """Close it, without waiting for anything."""
        self._socket.close()
