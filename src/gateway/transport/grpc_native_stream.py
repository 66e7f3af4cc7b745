"""Streaming gRPC calls on an HTTP/2 stream, with backpressure both ways."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.core.calls import RpcFailure, RpcStatus
from gateway.transport import grpc_native_status as statuses
from gateway.transport.grpc_native_call import NativeCall, failure_trailers, too_large_to_send
from gateway.transport.grpc_native_messages import PREFIX_BYTES, deflate, write_prefix
from gateway.transport.http2.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.core.calls import Buffer
    from gateway.transport.grpc_native_connection import GrpcConnection
    from gateway.transport.grpc_native_head import CallHead, StreamMethod
    from gateway.transport.grpc_native_messages import Message

_log: Final = logging.getLogger(__name__)

_MESSAGE_BYTES: Final = 128  # of memory for a message that waits, beside its own: empty ones cost, too


class StreamCall(NativeCall):
    """A call with any number of messages each way; an `RpcStream`.

    Messages wait here, charged to the server's budget, until they are read; the client gets credit for one
    when the next is asked for. `send` returns when the transport has taken the message, which is when the
    client's windows let it through. When the call is given up, the method is cancelled where it waits next;
    `send` is such a place then.
    """

    def __init__(self, stream_id: int, head: CallHead, link: GrpcConnection, method: StreamMethod) -> None:
        super().__init__(stream_id, head, link)
        self._method = method
        self._messages: deque[Message] = deque()
        self._in_hand = 0  # bytes of the message read last, and of its prefix
        self._sent_all = False  # by the client
        self._more: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._head_sent = False
        self._begun = False

    # RpcStream

    def __aiter__(self) -> AsyncIterator[Buffer]:
        return self

    async def __anext__(self) -> Buffer:
        self._let_go()
        while not self._messages:
            if self._sent_all:
                raise StopAsyncIteration
            self._more = self.link.loop.create_future()
            await self._more
        message = self._messages.popleft()
        self.link.state.buffered.give_back(_MESSAGE_BYTES + len(message.body))
        self._in_hand = PREFIX_BYTES + len(message.body)
        return await self._plain(message) if message.compressed else message.body

    async def send(self, message: bytes) -> None:
        """Send one message; waits while the client is slow.

        Raises:
            RpcFailure: RESOURCE_EXHAUSTED, the message is larger than the limit.
        """
        options = self.link.state.options
        if 0 <= options.max_send_bytes < len(message):
            raise RpcFailure(too_large_to_send(len(message), options.max_send_bytes))
        flag = 0
        if self.head.accepts:
            flag = 1
            message = await asyncio.to_thread(deflate, message, options.response_compression)
        connection = self.link.connection
        if not self.answered and not connection.has_room(len(message)):
            connection.break_off(self, ErrorCode.ENHANCE_YOUR_CALM)
            self.on_reset(ErrorCode.ENHANCE_YOUR_CALM)
        if self.answered:
            await asyncio.sleep(0)  # or a method that only sends would never hear that it is cancelled
            return
        self._send_head()
        connection.sender.data(self, (write_prefix(flag, len(message)), message), connection.now_s)
        if self.unsent_bytes:
            self._room = self.link.loop.create_future()
            await self._room

    # From the connection

    def on_open(self) -> None:
        """Start the method, unless the call is refused; one that takes a single message waits for it."""
        super().on_open()
        if not self.answered and not self._method.single:
            self._start()

    def _start(self) -> None:
        self._begun = True
        self.on_cancel(self.link.state.spawn(self._run()).cancel)

    def fail(self, status: RpcStatus) -> None:
        """Answer with a status, and end the method: it may wait for a message that cannot be inflated."""
        self._break_off(status)

    def at_work(self) -> bool:
        """Whether the method has been called."""
        return self._begun

    def on_data(self, data: bytes, start: int, end: int, *, ended: bool) -> None:
        """Queue the messages that are whole."""
        if self.answered or self._sent_all:
            return
        assembly = self._assembled()
        position = start
        try:
            while position < end and not self._sent_all:
                message, position = assembly.next(data, position, end)
                if message is not None:
                    self._queue(message)
        except RpcFailure as failure:
            self._break_off(failure.status)
            return
        if ended and assembly.incomplete and not self._sent_all:
            self._break_off(RpcStatus(statuses.INTERNAL, "the call ended inside a message"))
            return
        if ended and self._method.single and not self._begun:
            self._break_off(RpcStatus(statuses.INTERNAL, "the call ended before its request message"))
            return
        self._watch_upload(end - start if assembly.incomplete else 0)
        if ended:
            self._sent_all = True
        self._wake(self._more)

    def on_sent(self) -> None:
        """Let `send` return."""
        self._wake(self._room)

    def _watch_upload(self, size: int) -> None:
        """Note that `size` bytes came of a message that is not whole; 0 if there is none."""
        if not size:
            self.upload_s = 0.0
        elif self.upload_s:
            self.upload_bytes += size
        else:
            self.upload_s = self.link.connection.now_s
            self.upload_bytes = 0

    def _queue(self, message: Message) -> None:
        self.link.state.buffered.take(_MESSAGE_BYTES + len(message.body))
        self.link.connection.windows.hold(self, PREFIX_BYTES + len(message.body))
        self._messages.append(message)
        if self._method.single:
            self._sent_all = True
            self._start()

    def _wake(self, waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _let_go(self) -> None:
        """Give the client credit for the message read last."""
        if self._in_hand:
            size, self._in_hand = self._in_hand, 0
            if not self.answered:  # else all that is held is given back with the call
                self.link.connection.windows.release(self, size)

    async def _plain(self, message: Message) -> Buffer:
        plain: asyncio.Future[Buffer] = self.link.loop.create_future()

        def hand_over(body: Buffer) -> None:
            if not plain.done():  # a method may stop waiting, for a timeout of its own
                plain.set_result(body)

        self._inflated(message, hand_over)
        return await plain

    async def _run(self) -> None:
        """Run the method and end the call as it says."""
        try:
            await self._method.run(self)
        except RpcFailure as failure:
            self._end(failure.status)
        except asyncio.CancelledError:
            self._end(RpcStatus(statuses.CANCELLED, "cancelled"))
            raise
        except Exception:  # noqa: BLE001 - whatever a method raises is its call's failure alone
            _log.exception("rpc_method_failed")
            self._end(statuses.INTERNAL_ERROR)
        else:
            self._end(None)

    def _end(self, status: RpcStatus | None) -> None:
        """End the call: with OK, or a status."""
        over = self.answered
        self.answered = True
        self._forget_messages()
        self._work_over()
        if over or self.local_closed:
            return
        if status is not None:
            self._send_status(status)
            return
        self._send_head()
        connection = self.link.connection
        connection.sender.finish(self, statuses.OK_TRAILERS, connection.now_s)

    def _forget_messages(self) -> None:
        """Give the server's memory back: of messages that wait, and of one that is incomplete."""
        for message in self._messages:
            self.link.state.buffered.give_back(_MESSAGE_BYTES + len(message.body))
        self._messages.clear()
        if self._assembly is not None:
            self._assembly.drop()

    def _give_up(self) -> None:
        self._forget_messages()
        super()._give_up()

    def _send_status(self, status: RpcStatus) -> None:
        if not self._head_sent:
            super()._send_status(status)
        elif not self.local_closed:
            connection = self.link.connection
            connection.sender.finish(self, failure_trailers(status), connection.now_s)

    def _send_head(self) -> None:
        if not self._head_sent:
            self._head_sent = True
            head = statuses.RESPONSE_HEAD
            if self.head.accepts:
                head = statuses.response_head(self.link.state.options.response_compression)
            self.link.connection.sender.headers(self, head, end_stream=False)
