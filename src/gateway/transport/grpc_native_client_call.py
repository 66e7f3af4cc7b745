"""One unary call of the native gRPC client: its answer put together, its end told once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.calls import Headers, RpcFailure
from gateway.transport.grpc_native_client_fields import AnswerFields, code_of_http, code_of_reset
from gateway.transport.grpc_native_messages import PREFIX_BYTES, inflate, read_prefix, write_prefix
from gateway.transport.grpc_native_status import CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE
from gateway.transport.http2.client_stream import ClientStream
from gateway.transport.http2.errors import ErrorCode

if TYPE_CHECKING:
    from gateway.transport.grpc_native_client_link import ClientLink
    from gateway.transport.grpc_native_deadlines import DeadlineEntry

_UNKNOWN: Final = 2
_SMALL_BYTES: Final = 4096  # pieces of a message below this are copied together: each costs an object else
_THREADED_BYTES: Final = 1024  # compressed: they may become a thousand times as many
_INFLATED: Final = frozenset({"gzip", "deflate"})


class UnaryAnswer(NamedTuple):
    """How a call ended.

    Attributes:
        code: the gRPC status as an integer.
        details: its text.
        body: the message; empty unless the code is 0.
        metadata: the trailing metadata, without binary entries.
        sent: whether the server may have begun with the call; None: it has given this status itself.
    """

    code: int
    details: str
    body: bytes
    metadata: Headers
    sent: bool | None


class ClientCall(ClientStream[AnswerFields]):
    """A call from its start to its end; it is given to a link when one has room.

    Attributes:
        message: the request.
        metadata: sent with it.
        deadline_s: monotonic time; None: none.
        deadline: its entry, until it has passed.
        link: what it was sent on, until it has ended.
        answer: set once.
    """

    # Defaults of the class as in `Stream`.
    link: ClientLink | None = None
    deadline: DeadlineEntry | None = None
    _headed: bool = False
    _compressed: bool = False
    _encoding: str = ""
    _length: int = -1
    _missing: int = 0
    _prefix: bytes = b""
    _body: bytes | None = None
    _parts: list[memoryview | bytearray] | None = None

    def __init__(
        self,
        message: bytes,
        metadata: Headers,
        deadline_s: float | None,
        max_bytes: int,
        answer: asyncio.Future[UnaryAnswer],
    ) -> None:
        self.message = message
        self.metadata = metadata
        self.deadline_s = deadline_s
        self.answer = answer
        self._max_bytes = max_bytes

    def begin(self, link: ClientLink, stream_id: int) -> tuple[bytes, bytes]:
        """Take the stream that the call is sent on; return its DATA."""
        connection = link.connection
        # What Stream's constructor does; one call less for each request.
        self.id = stream_id
        self.send_window = connection.sender.stream_window
        self.receive_window = connection.windows.stream_size
        self.link = link
        message, self.message = self.message, b""
        return write_prefix(0, len(message)), message

    # For whoever waits

    async def inflated(self, answer: UnaryAnswer) -> UnaryAnswer:
        """Undo the compression of an answer's message, if there is one; in a thread where that takes long."""
        if not self._compressed or answer.code:
            return answer
        try:
            if len(answer.body) < _THREADED_BYTES:
                body = inflate(answer.body, self._encoding, self._max_bytes)
            else:
                body = await asyncio.to_thread(inflate, answer.body, self._encoding, self._max_bytes)
        except RpcFailure as failure:
            return UnaryAnswer(failure.status.code, failure.status.message, b"", (), sent=True)
        return answer._replace(body=body)

    def cancel(self) -> None:
        """Call it off: nobody waits any more."""
        self._give_up(CANCELLED, "cancelled here")

    def expire(self) -> None:
        """Hear that the deadline has passed."""
        self.deadline = None
        self._give_up(DEADLINE_EXCEEDED, "Deadline Exceeded")

    def fail(self, code: int, details: str, *, sent: bool | None) -> None:
        """End the call with a status that no server has given."""
        self._end(UnaryAnswer(code, details, b"", (), sent))

    # ClientStream

    def on_head(self, head: AnswerFields, *, ended: bool) -> None:
        """Take the head of the answer, or the trailers."""
        if head.too_large:
            self._give_up(RESOURCE_EXHAUSTED, "the answer's metadata is larger than the limit")
        elif ended:
            self._on_trailers(head)
        elif self._headed:
            self._break_off("two heads")
        elif not head.is_interim:
            self._headed = True
            self._encoding = head.encoding
            if fault := head.fault:
                self._give_up(code_of_http(head.http_status), fault)

    def on_data(self, data: bytes, start: int, end: int, *, ended: bool) -> None:
        """Take a part of the message."""
        if self.answer.done():
            return
        if not self._headed:
            self._break_off("DATA before the head")
            return
        if self._length < 0:
            start = self._on_prefix(data, start, end)
            if self.answer.done():
                return
        if end - start > self._missing and self._length >= 0:
            self._break_off("more than one message")
        elif end > start:
            self._keep(data, start, end)
        if ended:
            self._break_off("it ended without a status")

    def on_reset(self, code: int) -> None:
        """Hear that the server, or a rule it broke, has ended the call."""
        sent = code != ErrorCode.REFUSED_STREAM
        details = f"Received RST_STREAM with error code {code}"
        self._end(UnaryAnswer(code_of_reset(code), details, b"", (), sent))

    def on_lost(self, reason: str, *, sent: bool) -> None:
        """Hear that the connection is gone."""
        self._end(UnaryAnswer(UNAVAILABLE, reason, b"", (), sent))

    # The message

    def _on_prefix(self, data: bytes, start: int, end: int) -> int:
        """Take bytes of the message's prefix; return the position behind them."""
        stop = min(end, start + PREFIX_BYTES - len(self._prefix))
        prefix = self._prefix + data[start:stop]
        if len(prefix) < PREFIX_BYTES:
            self._prefix = prefix
            return stop
        flag, length = read_prefix(prefix)
        self._length = self._missing = length
        self._compressed = flag == 1
        if length > self._max_bytes:
            text = f"Received message larger than max ({length} vs. {self._max_bytes})"  # the C core's words
            self._give_up(RESOURCE_EXHAUSTED, text)
        elif flag > 1 or (flag and self._encoding not in _INFLATED):
            self._break_off("a message compressed in a way that was not offered")
        elif not length:
            self._body = b""
        return stop

    def _keep(self, data: bytes, start: int, end: int) -> None:
        """Keep a piece of the message; large ones are copied once, when all are there."""
        self._missing -= end - start
        parts = self._parts
        if parts is None:
            if not self._missing:
                self._body = data[start:end]
                return
            parts = self._parts = []
        piece = memoryview(data)[start:end]
        if len(piece) >= _SMALL_BYTES:
            parts.append(piece)
        elif parts and isinstance(parts[-1], bytearray):
            parts[-1] += piece
        else:
            parts.append(bytearray(piece))
        if not self._missing:
            self._body = b"".join(parts)
            self._parts = None

    # The end

    def _on_trailers(self, trailers: AnswerFields) -> None:
        code, details = trailers.code, trailers.message
        if not self._headed and (fault := trailers.fault) and code < 0:
            self._give_up(code_of_http(trailers.http_status), fault)
        elif code < 0:
            self._break_off("it ended without a status")
        elif code:
            self._end(UnaryAnswer(code, details, b"", trailers.metadata, None))
        elif self._body is None:
            self._break_off("a good status without a whole message")
        else:
            self._end(UnaryAnswer(0, "", self._body, trailers.metadata, None))

    def _break_off(self, what: str) -> None:
        """End the call for what the server did."""
        self._give_up(_UNKNOWN, f"stream removed: {what}")

    def _give_up(self, code: int, details: str) -> None:
        """End the call from this side."""
        link = self.link
        if link is not None:
            link.reset(self, ErrorCode.CANCEL)
        self.fail(code, details, sent=link is not None)

    def _end(self, answer: UnaryAnswer) -> None:
        link, self.link = self.link, None
        self._parts = self._body = None
        if not self.answer.done():
            self.answer.set_result(answer)
        if link is not None:
            link.ended()
