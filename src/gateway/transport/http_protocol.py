"""One HTTP/1.1 connection: uvicorn's httptools protocol plus limits on what a client may send and when."""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.transport.http_direct import DirectExchange, DirectRequest
from gateway.transport.http_guard import RequestGuard
from gateway.transport.http_lingering import LingeringTransport
from gateway.transport.refusal import HttpRefusal, error_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from gateway.core.calls import Buffer
    from gateway.transport.http_direct import DirectRoutes, HeaderBlock
    from gateway.transport.http_guard import Connections
    from gateway.transport.options import HttpLimits

_CHUNK_OVERHEAD_BYTES: Final = 32  # a chunk's own header line, extensions of ordinary length included
_TIMER_GRAIN_S: Final = 0.001


class _Phase(enum.Enum):
    """Which part of a request is being received."""

    IDLE = "between requests"
    HEAD = "request line and headers"
    BODY = "body"


class GuardedHttpProtocol(HttpToolsProtocol):
    """One connection. The ASGI application finds its RequestGuard as `scope["state"]["guard"]`.

    Every request is refused in its turn: those before it on the connection are answered first, and the
    connection is closed after a refusal that left input unread. A client that shuts down its sending side in
    the middle of a request gets a 400; one that does so while a response is due has gone, because a closed
    socket looks the same.

    One timer watches a connection, and only while a request is incomplete, so that ordinary requests, which
    arrive in one piece, set none.

    Args:
        config: uvicorn's configuration, loaded.
        connections: shared by all connections of the listener.
        limits: what the client may send.
        direct: the routes that are answered here, past the application.
    """

    def __init__(
        self, config: Config, connections: Connections, limits: HttpLimits, direct: DirectRoutes
    ) -> None:
        super().__init__(config, connections, {}, asyncio.get_running_loop())
        self.access_log = False
        self._limits = limits
        self._shared = connections
        self._direct = direct
        self._exchange: DirectExchange | None = None  # of the request being received, if it goes directly
        self._direct_request: DirectRequest | None = None  # its head
        self._unanswered: deque[RequestGuard | DirectExchange] = deque()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since_s = 0.0
        self._guard: RequestGuard
        self.peer = ""
        self._lingering: LingeringTransport
        self._phase = _Phase.IDLE
        self._phase_start_s = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._begun = False  # there has been a request
        self._deaf = False  # what the client still sends is dropped
        self._eof = False
        self._heads = 0
        self._header_count = 0
        self._header_bytes = 0
        self._partial_head_bytes = 0
        self._body_bytes = 0
        self._body_wire_bytes = 0
        self._chunks = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection, or refuse it when there are too many."""
        inner = cast("asyncio.Transport", transport)
        self._lingering = LingeringTransport(inner, self._linger_s, self._limits.send_timeout_s)
        super().connection_made(self._lingering)
        self.peer = f"{self.client[0]}:{self.client[1]}" if self.client else ""
        self._shared.empty.clear()
        if len(self.connections) > self._limits.max_connections:
            self._fail(HttpRefusal(503, "too many connections", (("Retry-After", "1"),)))
        else:
            self._watch(self._limits.header_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; requests complete in `data` are already scheduled on return."""
        if self._deaf or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        between = self._between_requests()
        # A client that does not read its answers gets the next one by the application, which waits for it.
        if between and not self._shared.draining and not self.flow.write_paused:
            known = self._direct.recognise(data)
            if known is not None:
                self._answer_known(*known)
                return
        before = (self._phase, self._heads)
        self._parse(data)
        if self._phase is _Phase.IDLE:
            if between and self._direct_request is not None and self._heads == before[1] + 1:
                self._direct.remember(data, self._direct_request)
            self._rearm_keep_alive()
            return
        if before == (self._phase, self._heads):  # all of `data` belongs to one incomplete part
            self._count_partial(len(data))
        if self._timer is None:
            self._watch(self._patience_s())

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn narrowed it to None
        """Refuse an incomplete request, otherwise let the transport close: the client has gone."""
        self._eof = True
        if self._deaf or self._phase is _Phase.IDLE or self.scheme == "https":
            return None
        self._fail(HttpRefusal(400, f"request ended in the middle of its {self._phase.value}"))
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchanges that are still due a response."""
        for timer in (self._timer, self._send_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._lingering.lost()
        super().connection_lost(exc)
        while self._unanswered:
            self._unanswered.popleft().lose()
        if not self.connections:
            self._shared.empty.set()

    def _between_requests(self) -> bool:
        return self._phase is _Phase.IDLE and not self._unanswered

    def _answer_known(self, request: DirectRequest, body: Buffer) -> None:
        """Begin the exchange of a whole request that the parser need not see: it stands between two."""
        self._begun = True
        exchange = DirectExchange(self._direct, request, self, self._lingering)
        self.cycle = cast("RequestResponseCycle", exchange)
        self._unanswered.append(exchange)
        exchange.feed(body)
        exchange.begin()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._fail(HttpRefusal(400, "malformed HTTP request"))

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1: Java's client, for one, offers h2c with every first request, also with a body.

        The parser stops for good at an upgrade. A new one is brought to where the old one stopped by a head
        with the same framing; callbacks ignore a head while a body is awaited.
        """
        self.parser = httptools.HttpRequestParser(self)
        if self._phase is _Phase.BODY:
            length = self._guard.headers.get("content-length")
            framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
            self.parser.feed_data(f"POST / HTTP/1.1\r\n{framing}\r\n\r\n".encode("latin-1"))
        if rest:
            self._parse(rest)

    # Parser callbacks; those of a head do nothing while a body is awaited (see _decline_upgrade)

    def on_message_begin(self) -> None:
        """Start a request, or stop parsing when the connection is to be closed."""
        if self._phase is _Phase.BODY:
            return
        if self._deaf or len(self._unanswered) >= self._limits.max_pipelined:
            raise HttpRefusal(400, "too many pipelined requests")
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._guard = RequestGuard(self._lingering)
        self._direct_request = None
        self._enter(_Phase.HEAD)
        self._heads += 1
        self._header_count = self._header_bytes = self._partial_head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Collect the request target up to its limit."""
        if self._phase is not _Phase.BODY and len(self.url) <= self._limits.max_url_bytes:
            self.url = self.url + url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header up to the limits; trailers are dropped."""
        if self._phase is _Phase.BODY:
            return
        self._header_count += 1
        self._header_bytes += len(name) + len(value)
        if self._header_count > self._limits.max_headers:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Start the exchange; a request refused by its head alone still goes through the application."""
        if self._phase is _Phase.BODY:
            return
        guard = self._guard
        block = self._direct.headers.decode(self.headers, self._header_bytes)
        guard.headers = block.headers
        guard.refusal = self._head_refusal(block.headers)
        if self._begin_directly(block):
            assert self._exchange is not None
            self._unanswered.append(self._exchange)
        else:
            self._begin_cycle()
            self._unanswered.append(guard)
        self._begun = True
        self._enter(_Phase.BODY)
        self._body_bytes = self._body_wire_bytes = self._chunks = 0
        if self._shared.draining:
            self.cycle.keep_alive = False

    def _begin_directly(self, block: HeaderBlock) -> bool:
        """Take the request past the application if it is an ordinary one with nothing before it."""
        self._exchange = None
        if self._guard.refusal is not None or self._unanswered or self.flow.write_paused:
            return False
        if not self._direct.accepts(block):
            return False
        if self.parser.get_method() != b"POST" or self.parser.get_http_version() != "1.1":
            return False
        target = self._direct.find(self.url)
        if target is None:
            return False
        request = DirectRequest(target, block.body_bytes, block.headers)
        self._exchange = DirectExchange(self._direct, request, self, self._lingering)
        self._exchange.keep_alive = self.parser.should_keep_alive()
        if self._exchange.keep_alive:
            self._direct_request = request
        self.cycle = cast("RequestResponseCycle", self._exchange)
        return True

    def _begin_cycle(self) -> None:
        """Hand the request to the application; uvicorn starts each request with an empty scope."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url = url if self._guard.refusal is None else url[: self._limits.max_url_bytes]
        self.headers, self.expect_100_continue = headers, expect
        self.scope["headers"] = headers
        self.scope["state"]["guard"] = self._guard
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Count a chunk of a chunked body."""
        self._chunks += 1
        # One more for the empty chunk that ends the body.
        if self._chunks > self._limits.max_chunks + 1:
            self._fail(HttpRefusal(400, f"body has more than {self._limits.max_chunks} chunks"))

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body on unless the request is refused."""
        if self._guard.refusal is not None:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.max_body_bytes:
            self._fail(self._too_large())
        elif self._exchange is not None:
            self._exchange.feed(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request; its response may still be due."""
        if self.parser.should_upgrade() and self._awaits_body():
            return
        self._phase = _Phase.IDLE
        if self._exchange is None:
            super().on_message_complete()
        else:
            self._exchange.begin()

    # Called by uvicorn and the server

    def on_response_complete(self) -> None:
        """Forget the request that has been answered and start the next one."""
        if self._unanswered:
            self._unanswered.popleft()
        super().on_response_complete()

    def answered(self) -> None:
        """Forget the request that has been answered past the application, and start the next one."""
        self._exchange = None
        if self._unanswered:
            self._unanswered.popleft()
        if self.pipeline or self.flow.read_paused:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self._note_idle()

    def shutdown(self) -> None:
        """Close now if idle, else after the response due; a request that has begun to arrive is served."""
        if self._phase is not _Phase.HEAD:
            super().shutdown()

    def _awaits_body(self) -> bool:
        headers = self._guard.headers
        return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""

    # Limits

    def _head_refusal(self, headers: Mapping[str, str]) -> HttpRefusal | None:
        limits = self._limits
        if len(self.url) > limits.max_url_bytes or self._header_bytes > limits.max_header_bytes:
            return self._head_too_large()
        if self._header_count > limits.max_headers:
            return HttpRefusal(431, f"request has more than {limits.max_headers} headers")
        if headers.get("transfer-encoding", "chunked").lower() != "chunked":
            return HttpRefusal(501, "unsupported Transfer-Encoding, expected chunked")
        # The parser has checked that it is a number.
        if int(headers.get("content-length", 0)) > limits.max_body_bytes:
            return self._too_large()
        return None

    def _head_too_large(self) -> HttpRefusal:
        if len(self.url) > self._limits.max_url_bytes:
            return HttpRefusal(414, f"request target is longer than {self._limits.max_url_bytes} bytes")
        return HttpRefusal(431, f"request headers exceed {self._limits.max_header_bytes} bytes")

    def _too_large(self) -> HttpRefusal:
        return HttpRefusal(413, f"request body exceeds the limit of {self._limits.max_body_bytes} bytes")

    def _count_partial(self, size: int) -> None:
        """Count bytes that the parser has swallowed without telling: unfinished headers, chunk extensions."""
        if self._phase is _Phase.HEAD:
            self._partial_head_bytes += size
            if self._partial_head_bytes > self._limits.max_header_bytes + self._limits.max_url_bytes:
                self._fail(self._head_too_large())
            return
        self._body_wire_bytes += size
        overhead_bytes = self._body_wire_bytes - self._body_bytes
        if overhead_bytes > self._limits.max_header_bytes + _CHUNK_OVERHEAD_BYTES * self._chunks:
            self._fail(HttpRefusal(400, "chunk extensions or trailers are too large"))

    def _fail(self, refusal: HttpRefusal) -> None:
        """Refuse the request being received, hear nothing more, and close once every response is sent."""
        if self._deaf or self.transport.is_closing():
            return
        self._deaf = True
        if self._phase is _Phase.BODY:
            self._refuse_body(refusal)
        elif self._unanswered:
            self.cycle.keep_alive = False
        else:
            self._write_refusal(refusal)

    def _refuse_body(self, refusal: HttpRefusal) -> None:
        if self.cycle.response_complete:
            self.transport.close()
            return
        if self._exchange is not None:
            self._exchange.lose()
            self._write_refusal(refusal)
            return
        self.cycle.keep_alive = False
        self._guard.refusal = self._guard.refusal or refusal
        self.cycle.message_event.set()

    def _write_refusal(self, refusal: HttpRefusal) -> None:
        body = error_body(refusal.message)
        fields = [("content-type", "application/json"), ("content-length", str(len(body)))]
        fields += [*refusal.headers, ("connection", "close")]
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        self.transport.write(STATUS_LINE[refusal.status] + head.encode("latin-1") + b"\r\n" + body)
        self.transport.close()

    def _linger_s(self) -> float:
        """Return how long unread input is to be drained on closing; 0 when nothing is on its way."""
        unread = (self._deaf or self._phase is _Phase.BODY) and not self._eof
        if not unread or self.scheme == "https":
            return 0.0
        self._deaf = True
        self.flow.resume_reading()
        return self._limits.linger_s

    # Slow clients

    def pause_writing(self) -> None:
        """Make senders wait, and watch that the client reads."""
        super().pause_writing()
        self._watch_sending(self._lingering.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Let senders go on."""
        if self._send_timer is not None:
            self._send_timer.cancel()
        super().resume_writing()

    def _watch_sending(self, unsent_bytes: int) -> None:
        delay_s = self._limits.send_timeout_s
        self._send_timer = self.loop.call_later(delay_s, self._check_sending, unsent_bytes)

    def _check_sending(self, unsent_before: int) -> None:
        unsent_bytes = self._lingering.get_write_buffer_size()
        if unsent_bytes < unsent_before:
            self._watch_sending(unsent_bytes)
        else:
            self._lingering.abort()

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        self._phase_start_s = self.loop.time()

    def _patience_s(self) -> float:
        """Return how many seconds are left to the part being received."""
        allowed_s = self._limits.header_timeout_s
        if self._phase is _Phase.BODY:
            allowed_s = self._limits.body_timeout_s + self._body_bytes / self._limits.min_body_rate
        return self._phase_start_s + allowed_s - self.loop.time()

    def _watch(self, delay_s: float) -> None:
        self._timer = self.loop.call_later(max(delay_s, _TIMER_GRAIN_S), self._check_progress)

    def _check_progress(self) -> None:
        self._timer = None
        if self._deaf or self.transport.is_closing():
            return
        if self._phase is _Phase.IDLE:
            if not self._begun:  # no request ever came; later silence is the keep-alive timer's
                self.transport.close()
            return
        if self.flow.read_paused:  # not the client's fault: we are not reading
            self._phase_start_s = self.loop.time()
        if self._patience_s() <= 0.0:
            late = "headers" if self._phase is _Phase.HEAD else "body"
            self._fail(HttpRefusal(408, f"request {late} did not arrive in time"))
        else:
            self._watch(self._patience_s())

    def _check_idle(self) -> None:
        """Close a connection that has had nothing to say since its last direct answer, else look again later.

        One timer that is seldom set, where uvicorn sets and cancels one for every request.
        """
        self._idle_timer = None
        if self._unanswered or self._phase is not _Phase.IDLE or self.timeout_keep_alive_task is not None:
            return  # the end of that sets a timer again
        left_s = self._idle_since_s + self.timeout_keep_alive - monotonic()
        if left_s <= 0.0:
            self.timeout_keep_alive_handler()
        else:
            self._idle_timer = self.loop.call_later(max(left_s, _TIMER_GRAIN_S), self._check_idle)

    def _rearm_keep_alive(self) -> None:
        # uvicorn stops the timer when bytes arrive and starts it with a response: a body that ends after its
        # response would leave the connection without one.
        if self._begun and self.cycle.response_complete and self.timeout_keep_alive_task is None:
            self._note_idle()

    def _note_idle(self) -> None:
        self._idle_since_s = monotonic()
        if self._idle_timer is None and not self.transport.is_closing():
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._check_idle)
