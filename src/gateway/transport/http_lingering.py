"""A connection's sending side: responses in one write each, and a close that lets the last one be read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_JOIN_BYTES: Final = 64 * 1024  # below it, one copy is cheaper than one more buffer for the kernel


class LingeringTransport(asyncio.Transport):
    """A transport that can gather writes, and whose `close` waits for the client to stop sending.

    uvicorn writes the head and the body of a response separately, and each write is a system call that costs
    as much as parsing a small request: between `cork` and `uncork` they are gathered into one.

    Closing a socket with unread input resets the connection, and the reset may destroy a response that is
    under way (RFC 9112, section 9.6). So the sending side is shut first, and what still arrives is read and
    dropped by the protocol until the client closes or the time is up.

    Args:
        inner: the real transport.
        linger_s: says, when `close` is called, how long to linger; 0 closes once everything is sent.
        send_timeout_s: seconds a client then has to read what is unsent, or the connection is aborted.
    """

    def __init__(
        self, inner: asyncio.Transport, linger_s: Callable[[], float], send_timeout_s: float
    ) -> None:
        super().__init__()
        self._inner = inner
        self._linger_s = linger_s
        self._send_timeout_s = send_timeout_s
        self._closing = False
        self._lost = False
        self._gathered: list[bytes | bytearray | memoryview] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue `data`; the buffer must not change until it is sent."""
        if self._lost:
            return
        if self._gathered is None:
            self._inner.write(data)
        else:
            self._gathered.append(data)

    def cork(self) -> None:
        """Gather what is written until `uncork` or `close`."""
        if self._gathered is None:
            self._gathered = []

    def uncork(self) -> None:
        """Send what was gathered."""
        parts, self._gathered = self._gathered, None
        if parts:
            self.send(parts)

    def send(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send the parts of one response in one write; the buffers must not change until they are sent.

        Dropped when the connection has ended.
        """
        if self._lost:
            return
        if sum(map(len, parts)) <= _JOIN_BYTES:
            self._inner.write(b"".join(parts))
        else:
            self._inner.writelines(parts)

    def close(self) -> None:
        """Send what is queued and close, lingering if input is unread."""
        if self._closing:
            return
        self._closing = True
        self.uncork()
        linger_s = self._linger_s()
        loop = asyncio.get_running_loop()
        if linger_s > 0.0:
            self._inner.write_eof()
            self._timer = loop.call_later(linger_s, self._inner.abort)
            return
        if self._inner.get_write_buffer_size():
            self._timer = loop.call_later(self._send_timeout_s, self._inner.abort)
        self._inner.close()

    def abort(self) -> None:
        """Close at once, dropping what is queued."""
        self._closing = True
        self._inner.abort()

    def lost(self) -> None:
        """Note that the connection has ended."""
        self._closing = self._lost = True
        if self._timer is not None:
            self._timer.cancel()

    def is_closing(self) -> bool:
        """Return whether nothing more may be written."""
        return self._closing or self._inner.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the kernel has not taken yet."""
        return self._inner.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Stop reading."""
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading."""
        self._inner.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the real transport knows."""
        return self._inner.get_extra_info(name, default)
