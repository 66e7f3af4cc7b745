"""One gRPC call on an HTTP/2 stream: what every kind of call has, and the unary one."""

from __future__ import annotations

import logging
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.core.calls import RpcFailure, RpcStatus
from gateway.transport import grpc_native_status as statuses
from gateway.transport.grpc_native_messages import (
    PREFIX_BYTES,
    MessageAssembly,
    deflate,
    inflate,
    read_prefix,
    write_prefix,
)
from gateway.transport.http2.limits import Limit
from gateway.transport.http2.sender import ResponseTemplate
from gateway.transport.http2.stream import Stream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from gateway.core.calls import Buffer, Headers
    from gateway.transport.grpc_native_connection import GrpcConnection
    from gateway.transport.grpc_native_deadlines import DeadlineEntry
    from gateway.transport.grpc_native_head import CallHead
    from gateway.transport.grpc_native_messages import Message

_log: Final = logging.getLogger(__name__)

_OK: Final = ResponseTemplate(statuses.RESPONSE_HEAD, statuses.OK_TRAILERS)
_THREADED_BYTES: Final = 1024  # compressed: they may become a thousand times as many
_THREADED_PLAIN_BYTES: Final = 32 * 1024
_EXPIRED: Final = RpcStatus(statuses.DEADLINE_EXCEEDED, "Deadline Exceeded")


class NativeCall(Stream):
    """A call of any kind, from its head to its end.

    It counts as running from its head until it is answered; one whose client goes first, until its method
    has answered all the same or has let go of the call, so that resetting streams frees nothing early.

    Attributes:
        link: the connection.
        head: what its head says.
        metadata: as `RpcCall.metadata`.
        deadline_s: as `RpcCall.deadline_s`.
        arrived_s: as `RpcCall.arrived_s`.
        peer: as `RpcCall.peer`.
        answered: nothing more can be sent: the answer is on its way, or the client has gone.
    """

    deadline_s: float | None = None
    answered: bool = False
    _running: bool = False
    _abandoned: weakref.finalize[..., set[None]] | None = None
    _alive: set[None] | None = None
    _assembly: MessageAssembly | None = None
    _callbacks: list[Callable[[], object]] | None = None
    _deadline: DeadlineEntry | None = None

    def __init__(self, stream_id: int, head: CallHead, link: GrpcConnection) -> None:
        connection = link.connection
        # What Stream's constructor does; one call less for each request.
        self.id = stream_id
        self.send_window = connection.sender.stream_window
        self.receive_window = connection.windows.stream_size
        if head.content_length >= 0:
            self.body_left = head.content_length
        self.link = link
        self.head = head
        self.metadata: Mapping[str, str] = head.metadata
        self.arrived_s = connection.now_s
        self.peer = link.peer

    # The life of a call

    def on_open(self) -> None:
        """Start to count the call, or refuse it."""
        state = self.link.state
        most = state.options.max_concurrent_rpcs
        if self.head.refusal:
            if self.head.too_large:
                state.limit_fired(Limit.METADATA)
            self._refuse(self.head.refusal)
        elif most is not None and state.running >= most:
            state.limit_fired(Limit.RPCS)
            self._refuse_with(RpcStatus(statuses.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"))
        else:
            self._running = True
            state.running += 1
            if self.head.timeout_s is not None:
                self._start_deadline(self.head.timeout_s)

    def _start_deadline(self, timeout_s: float) -> None:
        self.deadline_s = self.arrived_s + timeout_s
        if timeout_s > 0:
            self._deadline = self.link.state.deadlines.add(self.deadline_s, self)
        else:
            self.expire()

    def fail(self, status: RpcStatus) -> None:
        """Answer with a status, unless the call has ended."""
        over = self.answered
        self.answered = True
        self._work_over()
        if not over:
            self._send_status(status)

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Run `callback` when the client gives the call up before it is answered."""
        if self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def on_reset(self, code: int) -> None:  # noqa: ARG002 - a call is given up whatever the reason
        """Give the call up: its client, or the connection, has gone."""
        self.answered = True
        self._give_up()

    def expire(self) -> None:
        """Answer that the deadline has passed, and give the call up."""
        self._deadline = None
        if not self.answered:
            self.answered = True
            self._send_status(_EXPIRED)
            self._give_up()

    def on_late(self) -> None:
        """Refuse a message that comes too slowly."""
        self._break_off(RpcStatus(statuses.DEADLINE_EXCEEDED, "the message did not arrive in time"))

    def _break_off(self, status: RpcStatus) -> None:
        """Answer with a status although the method may be at work, and give the call up."""
        if not self.answered:
            self.answered = True
            self._send_status(status)
            self._give_up()

    def _give_up(self) -> None:
        """Tell the method; go on counting the call while the method holds it."""
        if self._assembly is not None:
            self._assembly.drop()
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception:  # noqa: BLE001 - the others must still hear of it
                _log.exception("rpc_cancel_hook_failed")
        if self._running and self._abandoned is None:
            if self.at_work():
                self._abandon()
            else:
                self._work_over()

    def at_work(self) -> bool:
        """Whether the method has been called."""
        raise NotImplementedError

    def _abandon(self) -> None:
        connection, state, held = self.link.connection, self.link.state, self.held
        connection.table.abandoned += 1

        def let_go() -> None:
            connection.table.abandoned -= 1
            connection.windows.held -= held
            state.running -= 1

        # Compiled classes take no weak references: this goes when the call does.
        self._alive = set()
        self._abandoned = weakref.finalize(self._alive, let_go)
        self._abandoned.atexit = False
        self._stop_deadline()

    def _work_over(self) -> None:
        """Stop counting the call, and give the client credit for its message."""
        if not self._running:
            return
        self._running = False
        link = self.link
        if self._abandoned is not None:
            self._abandoned()
            link.connection.windows.top_up()
            return
        link.state.running -= 1
        self._callbacks = None
        if self.held:
            link.connection.windows.release(self, self.held)
        if self._deadline is not None:
            self._stop_deadline()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self.link.state.deadlines.remove(self._deadline)
            self._deadline = None

    # What is sent

    def _refuse(self, block: bytes) -> None:
        self.answered = True
        self.link.connection.refuse(self, block)

    def _refuse_with(self, status: RpcStatus) -> None:
        self._refuse(statuses.RESPONSE_HEAD + failure_trailers(status))

    def _send_status(self, status: RpcStatus) -> None:
        """Send a status as the whole answer; nothing was sent before."""
        if self._assembly is not None:
            self._assembly.drop()
        if not self.local_closed:
            self._refuse_with(status)

    # What is received

    def _assembled(self) -> MessageAssembly:
        if self._assembly is None:
            state = self.link.state
            self._assembly = MessageAssembly(state.buffered, state.options.max_receive_bytes)
        return self._assembly

    def _inflated(self, message: Message, then: Callable[[Buffer], None]) -> None:
        """Hand the plain message to `then`, at once or when a thread has inflated it.

        Raises:
            RpcFailure: it cannot be inflated; one that a thread finds fails the call.
        """
        encoding = self.head.encoding
        if not message.compressed:
            then(message.body)
            return
        if encoding == "identity":
            raise RpcFailure(RpcStatus(statuses.INTERNAL, "a compressed message without grpc-encoding"))
        max_bytes = self.link.state.options.max_receive_bytes
        if len(message.body) <= _THREADED_BYTES:
            then(inflate(message.body, encoding, max_bytes))
        else:
            self.link.in_thread(
                partial(inflate, message.body, encoding, max_bytes), partial(self._found, then)
            )

    def _found(self, then: Callable[[Buffer], None], found: asyncio.Future[bytes]) -> None:
        """Go on with what a thread has made."""
        if found.cancelled():
            return
        failure = found.exception()  # asked for even if nobody waits any more: asyncio logs it otherwise
        if self.answered:
            return
        if failure is None:
            then(found.result())
        elif isinstance(failure, RpcFailure):
            self.fail(failure.status)
        else:
            _log.error("rpc_message_failed", exc_info=failure)
            self.fail(statuses.INTERNAL_ERROR)


def too_large_to_send(size: int, most: int) -> RpcStatus:
    """Return the status of a call whose response is larger than the limit."""
    return RpcStatus(statuses.RESOURCE_EXHAUSTED, f"Sent message larger than max ({size} vs. {most})")


def failure_trailers(status: RpcStatus) -> bytes:
    """Return the trailers of `status`, those of an internal error if it cannot be sent."""
    try:
        return statuses.status_trailers(status)
    except ValueError:
        _log.exception("rpc_metadata_invalid")
        return statuses.status_trailers(statuses.INTERNAL_ERROR)


class UnaryCall(NativeCall):
    """A call with one message each way; an `RpcCall`.

    The method begins when the message is whole, even if the client has not ended its side yet; what it may
    send after that is dropped.

    Attributes:
        message: as `RpcCall.message`.
    """

    message: Buffer = b""
    _begun: bool = False

    def on_open(self) -> None:
        """Start to count the call, and to wait for its message; or refuse it."""
        super().on_open()
        if not self.remote_closed:
            self.upload_s = self.arrived_s

    def on_data(self, data: bytes, start: int, end: int, *, ended: bool) -> None:
        """Take bytes of the message; a whole one in one piece is copied out at once."""
        if self._begun or self.answered:
            return
        size = end - start - PREFIX_BYTES
        if size < 0 or self._assembly is not None or size > self.link.state.options.max_receive_bytes:
            self._assemble(data, start, end, ended=ended)
        elif read_prefix(data, start) == (0, size):  # not compressed, and all of it is here
            self._start(data[start + PREFIX_BYTES : end])
        else:
            self._assemble(data, start, end, ended=ended)

    def reply(self, message: bytes, trailers: Headers = ()) -> None:
        """Answer, unless the call has ended."""
        over = self.answered
        self.answered = True
        self._work_over()
        if over:
            return
        self.message = b""  # the answer may wait for its client, and there may be many
        link = self.link
        options = link.state.options
        if 0 <= options.max_send_bytes < len(message):
            self._send_status(too_large_to_send(len(message), options.max_send_bytes))
        elif not self.head.accepts:
            if trailers:
                self._respond(_OK, 0, message, trailers)
            else:
                link.connection.respond(self, _OK, (write_prefix(0, len(message)), message), None)
        else:
            work = partial(deflate, message, options.response_compression)
            if len(message) <= _THREADED_PLAIN_BYTES:
                self._respond_compressed(trailers, work)
            else:
                link.in_thread(work, lambda made: self._respond_compressed(trailers, made.result))

    def at_work(self) -> bool:
        """Whether the method has been called."""
        return self._begun

    def _respond_compressed(self, trailers: Headers, compress: Callable[[], bytes]) -> None:
        """Answer with what `compress` returns, or with why it cannot."""
        try:
            message = compress()
        except RpcFailure as failure:
            self._send_status(failure.status)
            return
        head = statuses.response_head(self.link.state.options.response_compression)
        self._respond(ResponseTemplate(head, statuses.OK_TRAILERS), 1, message, trailers)

    def _respond(self, template: ResponseTemplate, flag: int, message: bytes, trailers: Headers) -> None:
        block = None
        if trailers:
            try:
                block = statuses.ok_trailers(trailers)
            except ValueError:
                _log.exception("rpc_metadata_invalid")
                self._send_status(statuses.INTERNAL_ERROR)
                return
        if not self.local_closed:
            self.link.connection.respond(self, template, (write_prefix(flag, len(message)), message), block)

    def _assemble(self, data: bytes, start: int, end: int, *, ended: bool) -> None:
        self.upload_bytes += end - start
        try:
            message, _ = self._assembled().next(data, start, end)
            if message is not None:
                self._begun = True
                self.link.connection.windows.hold(self, len(message.body))
                self._inflated(message, self._start)
            elif ended:
                self.fail(RpcStatus(statuses.INTERNAL, "the call ended before its request message"))
        except RpcFailure as failure:
            self.fail(failure.status)

    def _start(self, message: Buffer) -> None:
        self._begun = True
        self.message = message
        self.upload_s = 0.0
        self.link.connection.windows.hold(self, len(message) - self.held)  # it was held as it came
        begin = self.head.begin
        assert begin is not None
        try:
            begin(self)
        except Exception:  # noqa: BLE001 - whatever a method raises is its call's failure alone
            _log.exception("rpc_method_failed")
            self.fail(statuses.INTERNAL_ERROR)
