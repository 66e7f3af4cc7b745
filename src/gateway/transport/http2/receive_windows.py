"""Credit for what a client sends (RFC 9113 section 6.9), given back when the bytes have been used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.transport.http2.errors import ConnectionFault, ErrorCode
from gateway.transport.http2.frames import DEFAULT_WINDOW, window_update_frame

if TYPE_CHECKING:
    from gateway.transport.http2.limits import ConnectionLimits
    from gateway.transport.http2.sender import Sender
    from gateway.transport.http2.stream import Stream


class ReceiveWindows:
    """The receive windows of one connection and its streams.

    Bytes of a message that is still coming in are credited as they arrive, or the messages of many streams
    could wait for each other for ever; a whole message is *held*, and narrows the windows by its size until
    it has been used.

    Attributes:
        window: bytes that the client may send on the connection now.
        low: below this `replenish` has something to do.
        held: bytes held, of all streams.
        stream_size: window of a new stream.
    """

    __slots__ = ("_sender", "_size", "held", "low", "stream_low", "stream_size", "window")

    def __init__(self, limits: ConnectionLimits, sender: Sender) -> None:
        # Smaller ones cannot be had: a client may use the default until it has read SETTINGS.
        self._size = max(limits.connection_window_bytes, DEFAULT_WINDOW)
        self.stream_size = max(limits.stream_window_bytes, DEFAULT_WINDOW)
        self.low = self._size // 2
        self.stream_low = self.stream_size // 2
        self.window = DEFAULT_WINDOW
        self.held = 0
        self._sender = sender

    def opening(self) -> bytes:
        """Return the frame that widens the connection's window to its size, empty if it has it."""
        difference = self._size - self.window
        self.window = self._size
        return window_update_frame(0, difference) if difference else b""

    def hold(self, stream: Stream, size: int) -> None:
        """Note that `size` bytes of the stream are a whole message, waiting or being worked on."""
        self.held += size
        stream.held += size

    def release(self, stream: Stream, size: int) -> None:
        """Note that `size` of the bytes held have been used."""
        self.held -= size
        stream.held -= size
        if self.window < self.low:
            self.top_up()
        if stream.receive_window < self.stream_low:
            self.replenish_stream(stream)

    def replenish(self) -> None:
        """Check the connection's window after DATA has made it low, and widen it.

        Raises:
            ConnectionFault: the client has sent more than it was allowed.
        """
        if self.window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        self.top_up()

    def top_up(self) -> None:
        """Widen the connection's window, if it is low, by what is worth a frame."""
        increment = self._size - self.held - self.window
        if self.window < self.low and increment >= self._size // 8:
            self.window += increment
            self._sender.frame(window_update_frame(0, increment))

    def replenish_stream(self, stream: Stream) -> None:
        """Widen a stream's window by what is worth a frame, while the client may still send on it."""
        increment = self.stream_size - stream.held - stream.receive_window
        if increment >= self.stream_size // 8 and not stream.remote_closed and not stream.local_closed:
            stream.receive_window += increment
            self._sender.sent_frames += 1
            self._sender.frame(window_update_frame(stream.id, increment))
