"""What a client's connection sends: requests end with a flag of their DATA (RFC 9113 section 8.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.transport.http2.frames import DATA, END_STREAM, frame_header, headers_frame
from gateway.transport.http2.sender import Sender

if TYPE_CHECKING:
    from gateway.transport.http2.stream import Stream


class RequestSender(Sender):
    """The sending side of a client; `ended` is called with each stream whose request has gone out."""

    def request(self, stream: Stream, block: bytes, body: tuple[bytes, bytes], now_s: float) -> None:
        """Send a whole request, now or as the windows allow.

        Args:
            stream: a stream nothing was sent on.
            block: field block of its head.
            body: two parts that make up the DATA, not both empty.
            now_s: monotonic time.
        """
        first, second = body
        size = len(first) + len(second)
        most = min(self.window, stream.send_window, self.frame_bytes)
        if size > most or self.unsent_bytes or self.paused or len(block) > self.frame_bytes:
            self.headers(stream, block, end_stream=False)
            stream.trailers = b""
            self.data(stream, body, now_s)
            return
        out = self.out
        if not out:
            self._wake()
        self.window -= size
        stream.send_window -= size
        head = headers_frame(stream.id, block, end_stream=False)
        out += (head, frame_header(DATA, END_STREAM, stream.id, size), first, second)
        self.ended(stream)

    def _finish(self, stream: Stream) -> None:
        """End a request whose DATA took several frames: an empty one costs nine bytes."""
        self.frame(frame_header(DATA, END_STREAM, stream.id, 0))
        self.ended(stream)
