"""The streams of one connection: opened, ended by either side, broken off (RFC 9113 section 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.transport.http2.closed_streams import ClosedStreams
from gateway.transport.http2.errors import ErrorCode
from gateway.transport.http2.frames import rst_stream_frame

if TYPE_CHECKING:
    from gateway.transport.http2.sender import Sender
    from gateway.transport.http2.stream import Stream


class StreamTable:
    """Who is open.

    Attributes:
        open: streams that are open or half-closed, by identifier.
        closed: what is remembered of the others.
        last_id: the newest stream.
        opened: how many there have been.
        uploading: streams of which the client has not ended its side.
        abandoned: streams that are over while work for them goes on; the application counts them, and they
            take the place of open ones, so that resetting streams frees nothing before the work is done.
        emptied: there was a stream and now there is none; whoever looks sets it back.
        half_closed: streams that were answered before the client ended its side.
    """

    __slots__ = (
        "_sender",
        "abandoned",
        "closed",
        "emptied",
        "half_closed",
        "last_id",
        "open",
        "opened",
        "uploading",
    )

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.open: dict[int, Stream] = {}
        self.closed = ClosedStreams()
        self.last_id = 0
        self.opened = 0
        self.uploading = 0
        self.abandoned = 0
        self.emptied = False
        self.half_closed: list[Stream] = []

    def use_id(self, stream_id: int) -> None:
        """Note the newest stream; those between it and the one before are closed unused (section 5.1.1)."""
        if stream_id != self.last_id + 2:
            self.closed.skip(self.last_id, stream_id)
        self.last_id = stream_id

    def is_idle(self, stream_id: int) -> bool:
        """Whether the client has never opened the stream, nor can the server have."""
        return stream_id > self.last_id or not stream_id & 1

    def add(self, stream: Stream) -> None:
        """Open a stream."""
        self.open[stream.id] = stream
        self.opened += 1
        self.uploading += 1

    def end_remote(self, stream: Stream) -> None:
        """Note that the client has ended its side."""
        stream.remote_closed = True
        self.uploading -= 1
        if stream.local_closed:
            self._remove(stream)

    def end_local(self, stream: Stream) -> None:
        """Note that this side has ended."""
        stream.local_closed = True
        if stream.remote_closed:
            self._remove(stream)
        else:
            self.half_closed.append(stream)

    def drop(self, stream: Stream) -> None:
        """Close a stream at once."""
        if not stream.remote_closed:
            self.uploading -= 1
        stream.remote_closed = stream.local_closed = True
        self._sender.forget(stream)
        self._remove(stream)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Close a stream at once and tell the client (section 6.4); frames on their way are expected."""
        self.closed.break_off(stream.id)
        self.drop(stream)
        self._sender.frame(rst_stream_frame(stream.id, code))

    def reset_half_closed(self) -> None:
        """Tell clients that are still sending what was answered already to stop (section 8.1).

        Those whose end came in the same read need not be told.
        """
        for stream in self.half_closed:
            if not stream.remote_closed:
                self.reset(stream, ErrorCode.NO_ERROR)
        self.half_closed.clear()

    def _remove(self, stream: Stream) -> None:
        if self.open.pop(stream.id, None) is not None and not self.open:
            self.emptied = True
