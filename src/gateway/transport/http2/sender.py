"""What a connection sends: frames of one turn collected, DATA within the client's windows (RFC 9113 6.9)."""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.transport.http2.errors import ConnectionFault, ErrorCode
from gateway.transport.http2.frames import (
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_WINDOW,
    frame_header,
    header_frames,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.transport.http2.stream import Stream

_TURN_BYTES: Final = 256 * 1024  # collected before they are written
_LARGEST_FRAME: Final = 64 * 1024  # what others on the connection may have to wait for


class ResponseTemplate:
    """A response of HEADERS, one DATA frame and trailers, packed with two calls.

    Args:
        head: field block of the response's head, at most 16,384 bytes.
        trailers: field block of its trailers, likewise.
    """

    __slots__ = (
        "_head",
        "_head_word",
        "_pack_before",
        "_trailers",
        "_trailers_word",
        "head",
        "pack_after",
        "trailers",
    )

    def __init__(self, head: bytes, trailers: bytes) -> None:
        self.head = head
        self.trailers = trailers
        self._pack_before = struct.Struct(f">IBI{len(head)}sIBI").pack
        self.pack_after = struct.Struct(f">IBI{len(trailers)}s").pack
        self._head_word = len(head) << 8 | HEADERS
        self._trailers_word = len(trailers) << 8 | HEADERS

    def before(self, stream_id: int, data_bytes: int) -> bytes:
        """Return the HEADERS frame and the header of the DATA frame."""
        return self._pack_before(
            self._head_word, END_HEADERS, stream_id, self.head, data_bytes << 8 | DATA, 0, stream_id
        )

    def after(self, stream_id: int) -> bytes:
        """Return the trailers' frame."""
        return self.pack_after(self._trailers_word, END_HEADERS | END_STREAM, stream_id, self.trailers)


class Sender:
    """The sending side of one connection.

    Streams that have more to send than fits take turns, one frame each. Trailers follow the last byte.

    Args:
        wake: called when there is something to write after there was nothing.

    Attributes:
        ended: called with each stream whose trailers have gone out; set once.
        out: pieces to be written, in order.
        window: bytes of DATA that the client takes on the connection.
        stream_window: what it takes on a new stream (SETTINGS_INITIAL_WINDOW_SIZE).
        frame_bytes: largest frame sent.
        unsent_bytes: DATA that waits for a window or for the socket.
        sent_frames: frames of streams sent, which give a client reason for frames of its own.
        paused: the socket is full; DATA waits.
        paused_s: since when.
    """

    __slots__ = (
        "_collected",
        "_queue",
        "_wake",
        "ended",
        "frame_bytes",
        "out",
        "paused",
        "paused_s",
        "sent_frames",
        "stream_window",
        "unsent_bytes",
        "window",
    )

    ended: Callable[[Stream], None]

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._queue: deque[Stream] | None = None
        self._collected = 0
        self.out: list[bytes | memoryview] = []
        self.window = DEFAULT_WINDOW
        self.stream_window = DEFAULT_WINDOW
        self.frame_bytes = DEFAULT_FRAME_BYTES
        self.unsent_bytes = 0
        self.sent_frames = 0
        self.paused = False
        self.paused_s = 0.0

    def pause(self, now_s: float) -> None:
        """Keep DATA back: the socket is full."""
        self.paused = True
        self.paused_s = now_s

    def take(self) -> list[bytes | memoryview]:
        """Return the pieces to be written and forget them."""
        out, self.out = self.out, []
        self._collected = 0
        return out

    def frame(self, frame: bytes) -> None:
        """Send a frame that no window bounds."""
        if not self.out:
            self._wake()
        self.out.append(frame)

    def respond(
        self, stream: Stream, template: ResponseTemplate, body: tuple[bytes, bytes], trailers: bytes | None
    ) -> bool:
        """Send a whole response at once, if the windows let it through.

        Args:
            stream: a stream nothing was sent on.
            template: head, and trailers if none are given.
            body: two parts that make up the DATA.
            trailers: field block instead of the template's.

        Returns:
            Whether it was sent; if not, nothing was.
        """
        first, second = body
        size = len(first) + len(second)
        if size > self.window or size > stream.send_window or size > self.frame_bytes or self.unsent_bytes:
            return False
        if self.paused or (trailers is not None and len(trailers) > self.frame_bytes):
            return False
        out = self.out
        if not out:
            self._wake()
        self.window -= size
        self.sent_frames += 1
        stream_id = stream.id
        if trailers is None:
            after = template.after(stream_id)
        else:
            after = header_frames(stream_id, trailers, self.frame_bytes, end_stream=True)
        out += (template.before(stream_id, size), first, second, after)
        return True

    def headers(self, stream: Stream, block: bytes, *, end_stream: bool) -> None:
        """Send a field block; the stream must have nothing unsent if it ends here."""
        self.sent_frames += 1
        self.frame(header_frames(stream.id, block, self.frame_bytes, end_stream=end_stream))

    def data(self, stream: Stream, parts: Iterable[bytes], now_s: float) -> None:
        """Send DATA as the windows allow, the rest later; `stream.on_sent` tells when all has gone."""
        unsent = stream.unsent
        if unsent is None:
            unsent = stream.unsent = deque()
            stream.sent_s = now_s
        for part in parts:
            if part:
                unsent.append(memoryview(part))
                stream.unsent_bytes += len(part)
                self.unsent_bytes += len(part)
        self._enqueue(stream)
        self.pump(now_s)

    def finish(self, stream: Stream, trailers: bytes, now_s: float) -> None:
        """End the stream with trailers behind what is unsent."""
        stream.trailers = trailers
        if stream.unsent_bytes:
            self._enqueue(stream)
            self.pump(now_s)
        else:
            self._finish(stream)

    def forget(self, stream: Stream) -> None:
        """Drop what a stream has not sent, and the stream: no window may ever open for it to be visited."""
        if stream.queued and self._queue is not None:
            stream.queued = False
            self._queue.remove(stream)
        self.unsent_bytes -= stream.unsent_bytes
        stream.unsent_bytes = 0
        stream.unsent = None
        stream.trailers = None

    def pump(self, now_s: float) -> None:
        """Send what the windows and the socket let through."""
        queue = self._queue
        if not queue:
            return
        if not self.out:
            self._wake()
        while queue and self.window > 0 and self._collected < _TURN_BYTES and not self.paused:
            stream = queue.popleft()
            stream.queued = False
            if stream.unsent_bytes and stream.send_window > 0:
                self._send_frame(stream, now_s)
            if stream.unsent_bytes and stream.send_window > 0:
                stream.queued = True
                queue.append(stream)

    def widen(self, stream: Stream | None, increment: int, now_s: float) -> bool:
        """Take a WINDOW_UPDATE (section 6.9.1); False if the window would pass its largest size."""
        if stream is None:
            self.window += increment
            if self.window > MAX_WINDOW:
                return False
        else:
            stream.send_window += increment
            if stream.send_window > MAX_WINDOW:
                return False
            if stream.unsent_bytes:
                self._enqueue(stream)
        self.pump(now_s)
        return True

    def resize_windows(self, size: int, streams: Iterable[Stream]) -> None:
        """Take a new SETTINGS_INITIAL_WINDOW_SIZE, which changes open streams too (section 6.9.2).

        Nothing is sent: whoever calls acknowledges the SETTINGS first, and pumps then. gRPC's C core holds
        DATA to the windows of the SETTINGS that it has seen acknowledged, and fails the stream beyond.
        """
        difference = size - self.stream_window
        self.stream_window = size
        for stream in streams:
            stream.send_window += difference
            if stream.send_window > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "SETTINGS make a window too large")
            if stream.unsent_bytes:
                self._enqueue(stream)

    def resize_frames(self, size: int) -> None:
        """Take a new SETTINGS_MAX_FRAME_SIZE."""
        self.frame_bytes = min(size, _LARGEST_FRAME)

    def _enqueue(self, stream: Stream) -> None:
        if not stream.queued:
            if self._queue is None:
                self._queue = deque()
            stream.queued = True
            self._queue.append(stream)

    def _send_frame(self, stream: Stream, now_s: float) -> None:
        size = min(stream.unsent_bytes, self.window, stream.send_window, self.frame_bytes)
        out = self.out
        out.append(frame_header(DATA, 0, stream.id, size))
        unsent = stream.unsent
        assert unsent is not None
        left = size
        while left:
            part = unsent[0]
            if len(part) <= left:
                out.append(unsent.popleft())
                left -= len(part)
            else:
                out.append(part[:left])
                unsent[0] = part[left:]
                left = 0
        self.window -= size
        stream.send_window -= size
        stream.unsent_bytes -= size
        self.unsent_bytes -= size
        stream.sent_s = now_s
        self._collected += size
        self.sent_frames += 1
        if not stream.unsent_bytes:
            self._all_sent(stream)

    def _all_sent(self, stream: Stream) -> None:
        stream.unsent = None
        if stream.trailers is not None:
            self._finish(stream)
        else:
            stream.on_sent()

    def _finish(self, stream: Stream) -> None:
        assert stream.trailers is not None
        self.sent_frames += 1
        self.frame(header_frames(stream.id, stream.trailers, self.frame_bytes, end_stream=True))
        self.ended(stream)
