"""A gRPC client for one unary method of one server, over HTTP/2 of our own: connects, reconnects, calls."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.transport.grpc_native_client_call import ClientCall, UnaryAnswer
from gateway.transport.grpc_native_client_fields import AnswerBuilder, RequestHeads
from gateway.transport.grpc_native_client_link import ClientLink
from gateway.transport.grpc_native_deadlines import Deadlines
from gateway.transport.grpc_native_status import (
    ACCEPTED_ENCODINGS,
    CANCELLED,
    DEADLINE_EXCEEDED,
    UNAVAILABLE,
)
from gateway.transport.http2.head_memo import HeadMemo, MemoBudget
from gateway.transport.http2.huffman import HuffmanStrings
from gateway.transport.http2.limits import client_limits

if TYPE_CHECKING:
    import ssl

    from gateway.core.calls import Headers

_log: Final = logging.getLogger(__name__)

_FIRST_BACKOFF_S: Final = 0.1
_BACKOFF_GROWTH: Final = 1.6
_BACKOFF_JITTER: Final = 0.2
"""gRPC's connection backoff protocol; the first pause is the C core's shortest."""

_CONNECTION_WINDOW_BYTES: Final = 16 << 20
_STREAM_WINDOW_BYTES: Final = 4 << 20
"""What is on its way, not what is kept: every byte that has come is given back at once."""
_FRAME_BYTES: Final = 256 << 10
_STRING_BYTES: Final = 64 << 10
_MEMO_BYTES: Final = 64 << 10
_ALL_MEMO_BYTES: Final = 4 << 20

_CLOSED: Final = UnaryAnswer(CANCELLED, "the connection was closed", b"", (), sent=False)
_LATE: Final = UnaryAnswer(DEADLINE_EXCEEDED, "Deadline Exceeded", b"", (), sent=False)


@dataclass(frozen=True)
class ClientOptions:
    """What a client calls, and how.

    Attributes:
        host: name or address.
        port: of it.
        path: of the method, `/package.Service/Method`.
        tls: with ALPN `h2`; None: in the clear.
        server_name: name expected in the certificate, where it is not the host; also the authority.
        connect_timeout_s: for a connection to come up, the server's SETTINGS included.
        keepalive_time_s: a server that is silent for so long while calls are under way is pinged.
        keepalive_timeout_s: for its answer.
        max_backoff_s: longest pause after a failure to connect.
        max_message_bytes: largest answer.
    """

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None
    server_name: str
    connect_timeout_s: float
    keepalive_time_s: float
    keepalive_timeout_s: float
    max_backoff_s: float
    max_message_bytes: int

    @property
    def address(self) -> str:
        """`host:port`, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ClientMemory:
    """What the connections of several clients remember together; event loop only.

    Attributes:
        strings: decodes Huffman strings.
        builder: reads answers' heads.
        budget: bytes of field blocks that are remembered.
    """

    def __init__(self) -> None:
        self.strings = HuffmanStrings(_STRING_BYTES)
        self.builder = AnswerBuilder()
        self.budget = MemoBudget(_ALL_MEMO_BYTES)


class GrpcClient:
    """Calls one method; connects when it is used. Event loop only.

    There is one connection at a time, and beside it those that their servers are leaving. Calls that find no
    room wait in order. While connecting is pointless, in the pause after a failure, they fail at once.

    Args:
        options: what it calls.
        memory: shared with other clients.
    """

    def __init__(self, options: ClientOptions, memory: ClientMemory) -> None:
        self._options = options
        self._memory = memory
        self._limits = client_limits(
            _CONNECTION_WINDOW_BYTES,
            _STREAM_WINDOW_BYTES,
            _FRAME_BYTES,
            (options.keepalive_time_s, options.keepalive_timeout_s),
        )
        self._fields = _fields(options)
        self._deadlines = Deadlines()
        self._link: ClientLink | None = None
        self._links: set[ClientLink] = set()
        self._no_links = asyncio.Event()
        self._no_links.set()
        self._waiting: dict[ClientCall, None] = {}
        self._connecting: asyncio.Task[None] | None = None
        self._failure = ""
        self._backoff_s = _FIRST_BACKOFF_S
        self._retry_s = 0.0
        self._closed = False

    async def call(self, message: bytes, timeout_s: float | None, metadata: Headers = ()) -> UnaryAnswer:
        """Call the method; cancelling resets the call's stream.

        Args:
            message: serialised.
            timeout_s: longest wait, also told to the server; None: for ever.
            metadata: lower-case names, printable values.

        Returns:
            How it ended; no failure is raised.

        Raises:
            ValueError: the metadata cannot be sent.
        """
        if self._closed:
            return _CLOSED
        if timeout_s is not None and timeout_s <= 0:
            return _LATE
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        future: asyncio.Future[UnaryAnswer] = asyncio.get_running_loop().create_future()
        call = ClientCall(message, metadata, deadline_s, self._options.max_message_bytes, future)
        if deadline_s is not None:
            call.deadline = self._deadlines.add(deadline_s, call)
        try:
            link = self._link
            if link is not None and link.has_room:
                link.start(call, timeout_s, metadata)
            else:
                self._wait_for_room(call)
            return await call.inflated(await future)
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            self._waiting.pop(call, None)
            if call.deadline is not None:
                self._deadlines.remove(call.deadline)

    async def connect(self) -> str:
        """Wait until there is a connection, in spite of any pause; return why there is none, if there is.

        Cancelling leaves the attempt going on.
        """
        if self._closed:
            return _CLOSED.details
        if self._link is not None:
            return ""
        await asyncio.wait([self._connecting or self._connect_soon()])
        return self._failure

    async def aclose(self) -> None:
        """Close every connection; calls that wait or are under way fail."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        self._fail_waiting(_CLOSED)
        for link in tuple(self._links):
            link.abort(_CLOSED.details)
        await self._no_links.wait()
        self._deadlines.close()

    # Links

    def new_link(self) -> ClientLink:
        """Return a connection without a socket, for `use` when its server has greeted."""
        memory = self._memory
        memo = HeadMemo(
            memory.strings, memory.builder, self._limits.max_header_list_bytes, _MEMO_BYTES, memory.budget
        )
        heads = RequestHeads("http" if self._options.tls is None else "https", self._fields)
        return ClientLink(self, memo, heads, self._limits)

    def use(self, link: ClientLink) -> None:
        """Send calls on a link from now on, those that wait first."""
        self._link = link
        self._failure, self._backoff_s, self._retry_s = "", _FIRST_BACKOFF_S, 0.0
        self.on_room(link)

    def on_made(self, link: ClientLink) -> None:
        """Take note of a connection, until it is gone."""
        self._links.add(link)
        self._no_links.clear()

    def on_room(self, link: ClientLink) -> None:
        """Start calls that wait."""
        while self._waiting and link is self._link and link.has_room:
            call = next(iter(self._waiting))
            del self._waiting[call]
            if not call.answer.done():
                self._start(link, call)

    def on_leaving(self, link: ClientLink) -> None:
        """Use another connection from now on."""
        if link is self._link:
            self._link = None
            if self._waiting and self._connecting is None and not self._closed:
                self._connect_soon()

    def on_gone(self, link: ClientLink) -> None:
        """Forget a connection."""
        self._links.discard(link)
        if not self._links:
            self._no_links.set()

    # Calls

    def _start(self, link: ClientLink, call: ClientCall) -> None:
        timeout_s = None if call.deadline_s is None else call.deadline_s - time.monotonic()
        try:
            link.start(call, timeout_s, call.metadata)
        except ValueError as error:
            call.answer.set_exception(error)

    def _wait_for_room(self, call: ClientCall) -> None:
        """Let a call wait, or fail it where there is nothing to wait for."""
        if self._link is None and self._connecting is None:
            if time.monotonic() < self._retry_s:
                call.fail(UNAVAILABLE, self._failure, sent=False)
                return
            self._connect_soon()
        self._waiting[call] = None

    def _fail_waiting(self, answer: UnaryAnswer) -> None:
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call.fail(answer.code, answer.details, sent=False)

    # Connecting

    def _connect_soon(self) -> asyncio.Task[None]:
        task = self._connecting = asyncio.get_running_loop().create_task(
            self._connect(), name=f"connect {self._options.address}"
        )
        return task

    async def _connect(self) -> None:
        """Make one attempt to connect, and tell those that wait."""
        began_s = time.monotonic()
        try:
            link = await self._linked()
        except Exception as error:  # noqa: BLE001 - nobody may wait for ever, whatever it was
            if not isinstance(error, OSError):
                _log.exception("connecting to %s failed", self._options.address)
            self._connecting = None
            self._not_connected(error, began_s)
        except asyncio.CancelledError:
            self._connecting = None
            raise
        else:
            self._connecting = None
            self.use(link)

    def _not_connected(self, error: Exception, began_s: float) -> None:
        reason = f"no connection in {self._options.connect_timeout_s:g} s"
        if not isinstance(error, TimeoutError):
            reason = str(error) or type(error).__name__
        self._failure = f"failed to connect to {self._options.address}: {reason}"
        jitter = 1 + _BACKOFF_JITTER * (2 * random.random() - 1)  # noqa: S311 - no secret
        self._retry_s = began_s + self._backoff_s * jitter
        self._backoff_s = min(self._options.max_backoff_s, self._backoff_s * _BACKOFF_GROWTH)
        self._fail_waiting(UnaryAnswer(UNAVAILABLE, self._failure, b"", (), sent=False))

    async def _linked(self) -> ClientLink:
        """Return a connection whose server has greeted.

        Raises:
            OSError: it could not be made, TLS included.
            TimeoutError: it took too long.
        """
        options = self._options
        link = self.new_link()
        name = None if options.tls is None else options.server_name or options.host
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: link, options.host, options.port, ssl=options.tls, server_hostname=name
                )
                await link.settled
            link.check_usable()
        except BaseException:
            if link in self._links:
                link.abort("not connected in time")
            raise
        return link


def _fields(options: ClientOptions) -> list[tuple[str, str]]:
    """Return what all heads of a client's requests have."""
    return [
        (":path", options.path),
        (":authority", options.server_name or options.address),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "model-gateway"),
        ("grpc-accept-encoding", ACCEPTED_ENCODINGS),
    ]
