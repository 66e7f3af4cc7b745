"""One bidirectional gRPC call over an HTTP/2 connection of its own, sans-IO: a client's side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.core.calls import RpcFailure, RpcStatus
from gateway.transport.grpc_native_client_fields import (
    AnswerBuilder,
    AnswerFields,
    RequestHeads,
    code_of_http,
    code_of_reset,
)
from gateway.transport.grpc_native_messages import BufferBudget, MessageAssembly, write_prefix
from gateway.transport.grpc_native_status import INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, UNKNOWN
from gateway.transport.http2.client_connection import ClientConnection
from gateway.transport.http2.client_stream import ClientStream
from gateway.transport.http2.errors import ErrorCode
from gateway.transport.http2.head_memo import HeadMemo, MemoBudget
from gateway.transport.http2.huffman import HuffmanStrings
from gateway.transport.http2.limits import Limit, client_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.calls import Headers

_WINDOW_BYTES: Final = 256 << 10
_FRAME_BYTES: Final = 64 << 10
_STRING_BYTES: Final = 4 << 10
_MOST_PIECES: Final = 1 << 18
"""Unwritten frames and their parts. Those of DATA are fewer: 256 KiB are collected, two parts for 5 bytes."""


class DuplexStream(ClientStream[AnswerFields]):
    """What the server says in a call, put together.

    Attributes:
        received: whole messages that nobody has taken yet.
        status: how the call ended; None: it is under way.
    """

    _headed: bool = False

    def __init__(self, stream_id: int, send_window: int, receive_window: int, max_bytes: int) -> None:
        super().__init__(stream_id, send_window, receive_window)
        self.received: list[bytes] = []
        self.status: RpcStatus | None = None
        self._assembly = MessageAssembly(BufferBudget(max_bytes, _uncounted), max_bytes)

    def on_head(self, head: AnswerFields, *, ended: bool) -> None:
        """Take the head of the answer, or the trailers."""
        if head.too_large:
            self.fail(RESOURCE_EXHAUSTED, "the answer's metadata is larger than the limit")
        elif ended:
            self._on_trailers(head)
        elif self._headed:
            self._break_off("two heads")
        elif not head.is_interim:
            self._headed = True
            if fault := head.fault:
                self.fail(code_of_http(head.http_status), fault)

    def on_data(self, data: bytes, start: int, end: int, *, ended: bool) -> None:
        """Cut out the messages."""
        if self.status is not None:
            return
        if not self._headed:
            self._break_off("DATA before the head")
            return
        try:
            while start < end and self.status is None:
                start = self._next(data, start, end)
        except RpcFailure as failure:
            self.fail(failure.status.code, failure.status.message)
        if ended:
            self._break_off("it ended without a status")

    def on_reset(self, code: int) -> None:
        """Hear that the server, or a rule it broke, has ended the call."""
        self.fail(code_of_reset(code), f"Received RST_STREAM with error code {code}")

    def on_lost(self, reason: str, *, sent: bool) -> None:  # noqa: ARG002 - nothing is ever sent elsewhere
        """Hear that the connection is gone."""
        self.fail(UNAVAILABLE, reason)

    def _next(self, data: bytes, start: int, end: int) -> int:
        """Take bytes of one message at most; return the position behind them."""
        message, start = self._assembly.next(data, start, end)
        if message is not None:
            if message.compressed:
                self.fail(INTERNAL, "a message is compressed, which was not offered")
            else:
                self.received.append(bytes(message.body))
        return start

    def _on_trailers(self, trailers: AnswerFields) -> None:
        if trailers.code > 0:
            self.fail(trailers.code, trailers.message)
        elif trailers.code < 0 and not self._headed and (fault := trailers.fault):
            self.fail(code_of_http(trailers.http_status), fault)
        elif trailers.code < 0:
            self._break_off("it ended without a status")
        elif self._assembly.incomplete:
            self._break_off("it ended inside a message")
        else:
            self.fail(0, trailers.message)

    def _break_off(self, what: str) -> None:
        """End the call for what the server did."""
        self.fail(UNKNOWN, f"stream removed: {what}")

    def fail(self, code: int, details: str) -> None:
        """End the call with a status, unless it has one."""
        if self.status is None:
            self.status = RpcStatus(code, details)
            self._assembly.drop()


class DuplexConnection:
    """A call and its connection. Not thread-safe, no I/O, no clock.

    The owner hands every read to `receive`, writes what `take` returns, and closes when there is a status and
    nothing more to take.

    Args:
        fields: what the request's head has besides method and scheme; pseudo-header fields first.
        metadata: of the request.
        scheme: `http` or `https`.
        max_bytes: largest message received.
        now_s: monotonic time.

    Raises:
        ValueError: the metadata cannot be sent.
    """

    def __init__(
        self,
        fields: Sequence[tuple[str, str]],
        metadata: Headers,
        scheme: str,
        max_bytes: int,
        now_s: float,
    ) -> None:
        block = RequestHeads(scheme, fields).block(None, metadata)
        limits = client_limits(_WINDOW_BYTES, _WINDOW_BYTES, _FRAME_BYTES, (math.inf, math.inf))
        strings, budget = HuffmanStrings(_STRING_BYTES), MemoBudget(0)
        memo = HeadMemo(strings, AnswerBuilder(), limits.max_header_list_bytes, 0, budget)
        self._hooks = _Hooks()
        connection = ClientConnection(self._hooks, memo, limits, now_s)
        # The server's SETTINGS are not waited for (RFC 9113 section 3.4); they change the windows later.
        stream = DuplexStream(
            connection.next_id(), connection.sender.stream_window, connection.windows.stream_size, max_bytes
        )
        connection.begin(stream, block, now_s)
        self._connection = connection
        self._stream = stream
        self._ended = False

    @property
    def status(self) -> RpcStatus | None:
        """How the call ended; None: it is under way."""
        return self._stream.status

    def send(self, message: bytes, now_s: float) -> None:
        """Send a message as windows allow.

        Raises:
            ConnectionError: the call has ended, or this side has.
        """
        status = self._stream.status
        if status is not None:
            raise ConnectionError(status.message or "the call has ended")
        if self._ended:
            raise ConnectionError("this side has ended the call")
        self._connection.sender.data(self._stream, (write_prefix(0, len(message)), message), now_s)

    def end(self, now_s: float) -> None:
        """Say that no further message comes."""
        if not self._ended and self._stream.status is None:
            self._ended = True
            self._connection.sender.finish(self._stream, b"", now_s)

    def fail(self, code: int, details: str) -> None:
        """End the call from this side, if it is under way."""
        self._stream.fail(code, details)
        self._connection.streams.reset(self._stream, ErrorCode.CANCEL)

    def receive(self, data: bytes, now_s: float) -> None:
        """Take one read. Never raises for what a server sends: `status` says what was wrong with it."""
        connection = self._connection
        connection.receive(data, now_s)
        if connection.fault is not None:
            prefix = "" if connection.streams.settled else "it does not speak HTTP/2: "
            self.lose(prefix + connection.fault.reason)
        elif len(connection.sender.out) > _MOST_PIECES:
            self.lose("it sends frames and does not read the answers to them")
        elif self._stream.status is not None:
            connection.streams.reset(self._stream, ErrorCode.CANCEL)

    def lose(self, reason: str) -> None:
        """Hear that the connection is gone."""
        self._connection.close(f"{reason} after GOAWAY" if self._hooks.leaving else reason)

    def take(self, now_s: float) -> bytes:
        """Return what is to be written next: a few hundred KiB at most; empty: nothing."""
        sender = self._connection.sender
        if not sender.out:
            sender.pump(now_s)
        return b"".join(sender.take())

    def received(self) -> list[bytes]:
        """Return the messages that have come since the last time."""
        messages, self._stream.received = self._stream.received, []
        return messages


class _Hooks:
    """What the core calls.

    Attributes:
        leaving: the server has said GOAWAY.
    """

    def __init__(self) -> None:
        self.leaving = False

    def wake(self) -> None:
        """Do nothing: whoever uses the core writes after each use."""

    def on_settings(self) -> None:
        """Do nothing: the only request was sent before."""

    def on_leaving(self) -> None:
        self.leaving = True


def _uncounted(limit: Limit) -> None:
    """Stand in for counting: what limits servers has no metric."""
