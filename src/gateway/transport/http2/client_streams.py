"""The requests under way on one connection of a client (RFC 9113 section 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from gateway.transport.http2.client_stream import ClientStream
from gateway.transport.http2.errors import ConnectionFault, ErrorCode
from gateway.transport.http2.frames import MAX_STREAM_ID, rst_stream_frame

if TYPE_CHECKING:
    from gateway.transport.http2.client_sender import RequestSender
    from gateway.transport.http2.stream import Stream

HeadT = TypeVar("HeadT")

_TABLE_BYTES: Final = 4096  # RFC 7541 section 4.2, before any SETTINGS


class ClientStreams(Generic[HeadT]):
    """Who is open, and whether more may be.

    Attributes:
        open: requests whose responses are not complete, by identifier.
        last_id: the newest stream; -1 before the first.
        most: how many the server takes at a time.
        table_bytes: HPACK table that the server offers for what is sent to it.
        settled: the server's first SETTINGS have come (section 3.4).
        leaving: no further request can be sent on this connection.
    """

    __slots__ = ("_sender", "last_id", "leaving", "most", "open", "settled", "table_bytes")

    def __init__(self, sender: RequestSender) -> None:
        self._sender = sender
        sender.ended = _request_sent
        self.open: dict[int, ClientStream[HeadT]] = {}
        self.last_id = -1
        self.most = MAX_STREAM_ID
        self.table_bytes = _TABLE_BYTES
        self.settled = False
        self.leaving = False

    @property
    def has_room(self) -> bool:
        """Whether a request can be sent."""
        return self.settled and not self.leaving and len(self.open) < self.most

    @property
    def used_up(self) -> bool:
        """Whether no identifier is left (section 5.1.1)."""
        return self.last_id + 2 > MAX_STREAM_ID

    def find(self, stream_id: int) -> ClientStream[HeadT] | None:
        """Return the stream of a frame; None if it is over: its frames may be late (section 5.1).

        Raises:
            ConnectionFault: it was never opened.
        """
        stream = self.open.get(stream_id)
        if stream is None and (stream_id > self.last_id or not stream_id & 1):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame on an idle stream")
        return stream

    def drop(self, stream: ClientStream[HeadT]) -> None:
        """Close a stream at once; what it has not sent is forgotten."""
        stream.local_closed = stream.remote_closed = True
        self._sender.forget(stream)
        self.open.pop(stream.id, None)

    def reset(self, stream: ClientStream[HeadT], code: ErrorCode) -> None:
        """Close a stream at once and tell the server (section 6.4); harmless when it is over."""
        if not stream.local_closed:
            self.drop(stream)
            self._sender.frame(rst_stream_frame(stream.id, code))

    def end(self, stream: ClientStream[HeadT]) -> None:
        """Close a stream whose response is complete; a server that was still to get more is told so."""
        if stream.request_sent:
            self.drop(stream)
        else:
            self.reset(stream, ErrorCode.NO_ERROR)


def _request_sent(stream: Stream) -> None:
    cast("ClientStream[object]", stream).request_sent = True
