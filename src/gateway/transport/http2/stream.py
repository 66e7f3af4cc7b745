"""One stream as the connection sees it; the application's calls derive from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque


class Stream:
    """A request that has been opened (RFC 9113 section 5.1), with the hooks of whoever answers it.

    The connection calls the hooks synchronously. Idle streams have no object, closed ones are forgotten by
    the connection. Windows are those of section 6.9: `send_window` may be negative after SETTINGS.

    Attributes:
        id: stream identifier.
        send_window: bytes of DATA the client will take.
        receive_window: bytes of DATA the client may send.
        held: bytes received and not used yet, for which no credit is given.
        body_left: bytes that content-length still announces, -1 when it was not given.
        remote_closed: the client has ended its side.
        local_closed: this side has ended, or the stream was reset by either.
        unsent: parts of DATA that wait for a window, None while there are none.
        unsent_bytes: their size.
        trailers: field block that ends the stream behind them.
        queued: among the streams that the sender visits.
        sent_s: when something of `unsent` was sent last, or it began.
        upload_s: when the message being received was first waited for, 0 while none is.
        upload_bytes: bytes received of it.
    """

    # Defaults of the class, not of each instance: most streams never change most of them, and to make one is
    # on the path of every request.
    held: int = 0
    body_left: int = -1
    remote_closed: bool = False
    local_closed: bool = False
    unsent: deque[memoryview] | None = None
    unsent_bytes: int = 0
    trailers: bytes | None = None
    queued: bool = False
    sent_s: float = 0.0
    upload_s: float = 0.0
    upload_bytes: int = 0

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.id = stream_id
        self.send_window = send_window
        self.receive_window = receive_window

    def on_open(self) -> None:
        """Hear that the stream is open, before any of its DATA; it may be answered at once."""

    def on_data(self, data: bytes, start: int, end: int, *, ended: bool) -> None:
        """Take `data[start:end]`; `ended` with the last bytes of the request. Copy what is to be kept."""
        raise NotImplementedError

    def on_reset(self, code: int) -> None:
        """Hear that the client, or a rule it broke, has ended the stream before its answer was complete."""
        raise NotImplementedError

    def on_sent(self) -> None:
        """Hear that nothing is unsent any more."""

    def on_late(self) -> None:
        """Hear that the message being received is slower than allowed."""
