"""Infer exchanges answered inside the connection: no ASGI messages, no task, one write.

Only the ordinary request takes this way: POST to a begin route, a body of known and moderate size without
content coding, nothing else outstanding on the connection. Everything else goes through the application,
which gives the same answers at a higher price.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

import httptools

from gateway.core.calls import BeginHttp, HttpHead, HttpRequest, HttpResponse
from gateway.transport.http_response import Encoded
from gateway.transport.http_routes import PathRoute, canonical_path
from gateway.transport.refusal import HttpRefusal, error_body

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.calls import Buffer, HttpRoute
    from gateway.transport.http_body import BodyBudget
    from gateway.transport.http_lingering import LingeringTransport
    from gateway.transport.http_response import ResponseWriter

_log: Final = logging.getLogger(__name__)

_MAX_BODY_BYTES: Final = (
    1 << 20
)  # beyond it, flow control and the budget's refusals matter more than microseconds
_MAX_MEMOS: Final = 1024
_MAX_URL_BYTES: Final = 512
_MAX_BLOCK_BYTES: Final = 2048
_MAX_HEAD_BYTES: Final = 2048
_END_OF_HEAD: Final = b"\r\n\r\n"
_VIEW_BYTES: Final = 4096  # smaller bodies are copied out of what was received, larger ones are views over it
_NOT_ORDINARY: Final = frozenset({"transfer-encoding", "content-encoding", "expect", "upgrade"})

_VOLATILE: Final = re.compile(
    rb"\r\n(traceparent|tracestate|baggage|x-request-id|x-request-timeout-ms|x-correlation-id):"
    rb" ([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)(?=\r\n)",
    re.IGNORECASE,
)
"""Headers that differ from request to request of one client, each one line of visible text."""
_FOLDED: Final = re.compile(rb"\r\n[ \t]")

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]


class HeaderBlock(NamedTuple):
    """One decoded header block; never changed, so that requests may share it.

    Attributes:
        headers: lower-case names; repeated ones joined with ", ".
        body_bytes: the Content-Length of a request that may be answered directly, else -1.
    """

    headers: Mapping[str, str]
    body_bytes: int


class DirectTarget(NamedTuple):
    """What a request target leads to."""

    begin: BeginHttp
    path: str
    path_params: Mapping[str, str]
    query: str


class DirectRequest(NamedTuple):
    """The head of a request that is answered directly; never changed, so that requests may share it.

    Attributes:
        target: what it asks for.
        body_bytes: the size of its body.
        headers: as `HeaderBlock.headers`.
        head: shared by the requests with this head; None when it is not remembered.
    """

    target: DirectTarget
    body_bytes: int
    headers: Mapping[str, str]
    head: HttpHead | None = None


class HeaderMemo:
    """Decodes header blocks, remembering those seen before: clients repeat theirs to the byte.

    A hit needs every byte equal. Holds at most 1,024 blocks of at most 2 KiB; when full it starts anew.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[tuple[bytes, bytes], ...], HeaderBlock] = {}

    def decode(self, raw: RawHeaders, size: int) -> HeaderBlock:
        """Return the block of `raw`, whose names and values have `size` bytes together."""
        if size > _MAX_BLOCK_BYTES:
            return _decoded(raw)
        key = tuple(raw)
        block = self._blocks.get(key)
        if block is None:
            if len(self._blocks) >= _MAX_MEMOS:
                self._blocks.clear()
            block = self._blocks[key] = _decoded(raw)
        return block


@lru_cache(maxsize=256)
def _texts(names: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple([name.decode("ascii") for name in names])


def _decoded(raw: RawHeaders) -> HeaderBlock:
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    length = headers.get("content-length", "")
    ordinary = length.isascii() and length.isdigit() and _NOT_ORDINARY.isdisjoint(headers)
    return HeaderBlock(headers, int(length) if ordinary and len(length) < 10 else -1)


class DirectRoutes:
    """The begin routes of one listener, and what its direct exchanges share.

    Args:
        routes: all of the listener's.
        writer: composes responses.
        budget: bytes of bodies held by all requests of the listener.
        cross_origin: the listener sends CORS headers: a request with an Origin goes through the application.
        max_header_bytes: larger heads may be refused and are left to the parser.
    """

    def __init__(
        self,
        routes: Sequence[HttpRoute],
        writer: ResponseWriter,
        budget: BodyBudget,
        *,
        cross_origin: bool,
        max_header_bytes: int,
    ) -> None:
        self.writer = writer
        self.budget = budget
        self.headers = HeaderMemo()
        self._cross_origin = cross_origin
        self._paths = [
            (PathRoute(route.pattern, (route,), _unserved), route.begin)
            for route in routes
            if route.begin is not None and route.method == "POST"
        ]
        self._targets: dict[bytes, DirectTarget] = {}
        self._requests: dict[bytes, DirectRequest] = {}
        self._varying: dict[tuple[object, ...], DirectRequest] = {}
        """By the names of the volatile headers and what is between them; without their values."""
        self._max_head_bytes = min(max_header_bytes, _MAX_HEAD_BYTES)

    def recognise(self, data: bytes) -> tuple[DirectRequest, Buffer] | None:
        """Return the request that `data` is, with its body, if `data` is one whole request with a known head.

        A hit needs every byte of the head equal to one that was parsed, from between two requests as this
        must be, and found to be answered directly; but for the values of headers that tell requests apart
        (`_VOLATILE`), which are taken from `data`.
        """
        end = data.find(_END_OF_HEAD, 0, self._max_head_bytes) + len(_END_OF_HEAD)
        head = data[:end]
        request = self._requests.get(head) or self._without_volatile(head)
        if request is None or len(data) - end != request.body_bytes or not self._has_room(request.body_bytes):
            return None
        return request, data[end:] if request.body_bytes < _VIEW_BYTES else memoryview(data)[end:]

    def _without_volatile(self, head: bytes) -> DirectRequest | None:
        """Look a head up without its volatile headers, and put these back into what is known."""
        pieces = _VOLATILE.split(head)
        if len(pieces) == 1:
            return None
        names = tuple([name.lower() for name in pieces[1::3]])
        request = self._varying.get((names, *pieces[::3]))
        if request is None:
            return None
        values = [value.decode("ascii") for value in pieces[2::3]]
        return request._replace(headers={**request.headers, **dict(zip(_texts(names), values, strict=True))})

    def remember(self, data: bytes, request: DirectRequest) -> None:
        """Take note of what the parser made of `data`: one whole request, nothing else."""
        end = data.find(_END_OF_HEAD, 0, self._max_head_bytes) + len(_END_OF_HEAD)
        # Otherwise the head is too long, or ended otherwise than by the first empty line.
        if len(data) - end != request.body_bytes:
            return
        head = data[:end]
        pieces = _VOLATILE.split(head)
        if len(pieces) == 1:
            if len(self._requests) >= _MAX_MEMOS:
                self._requests.clear()
            self._requests[head] = request._replace(head=HttpHead())
            return
        names = tuple([name.lower() for name in pieces[1::3]])
        values = [value.decode("ascii") for value in pieces[2::3]]
        # Repeated, they would be joined; folded, they would go on in the next line.
        if any(request.headers.get(n) != v for n, v in zip(_texts(names), values, strict=True)):
            return
        if _FOLDED.search(head) is None:
            if len(self._varying) >= _MAX_MEMOS:
                self._varying.clear()
            headers = {name: value for name, value in request.headers.items() if name not in _texts(names)}
            self._varying[(names, *pieces[::3])] = request._replace(headers=headers, head=HttpHead())

    def accepts(self, block: HeaderBlock) -> bool:
        """Whether a request with these headers may be answered directly."""
        if not 0 <= block.body_bytes <= _MAX_BODY_BYTES:
            return False
        if self._cross_origin and "origin" in block.headers:
            return False
        return self._has_room(block.body_bytes)

    def _has_room(self, nbytes: int) -> bool:
        return self.budget.used_bytes + nbytes <= self.budget.limit_bytes

    def find(self, url: bytes) -> DirectTarget | None:
        """Return what a request target leads to, None when that is no begin route."""
        target = self._targets.get(url)
        if target is None:
            target = self._match(url)
            if target is not None and len(url) <= _MAX_URL_BYTES:
                if len(self._targets) >= _MAX_MEMOS:
                    self._targets.clear()
                self._targets[url] = target
        return target

    def _match(self, url: bytes) -> DirectTarget | None:
        try:
            parsed: Any = httptools.parse_url(url)  # its stub says that there is always a query
            path = canonical_path(parsed.path)
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError, TypeError, HttpRefusal):
            return None  # the application says what is wrong with it
        for route, begin in self._paths:
            values = route.match(path)
            if values is not None and "%" not in path:
                return DirectTarget(begin, path, values, (parsed.query or b"").decode("latin-1"))
        return None


async def _unserved(*_: object) -> None:
    raise AssertionError("a direct route is matched, never served")


class DirectConnection(Protocol):
    """The connection of a direct exchange.

    Attributes:
        peer: address of the client, for logs.
    """

    peer: str

    def answered(self) -> None:
        """Take note that the response of the direct exchange has been handed to the transport."""


class DirectExchange:
    """One request from its complete head to its response.

    Stands in for uvicorn's request-response cycle, so that requests behind it wait for it, and shutdown and
    disconnect find it. Holds its body's share of the budget until the response or the client's going.

    Args:
        routes: what the listener's exchanges share.
        request: its head.
        connection: told when the response has been handed over.
        transport: where the response goes.

    Attributes:
        response_complete: the response has been handed to the transport, or never will be.
        keep_alive: the connection stays open after the response.
        disconnected: the client has gone; written by uvicorn.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_held_bytes",
        "_hook",
        "_request",
        "_routes",
        "_transport",
        "disconnected",
        "keep_alive",
        "response_complete",
    )

    def __init__(
        self,
        routes: DirectRoutes,
        request: DirectRequest,
        connection: DirectConnection,
        transport: LingeringTransport,
    ) -> None:
        self._routes = routes
        self._request = request
        self._connection = connection
        self._transport = transport
        self._held_bytes = request.body_bytes
        self._body: Buffer = b""
        self._hook: Callable[[], object] | None = None
        self.keep_alive = True
        self.response_complete = False
        self.disconnected = False
        routes.budget.used_bytes += request.body_bytes

    @property
    def message_event(self) -> DirectExchange:
        """What uvicorn sets to wake a reader; there is none to wake."""
        return self

    def set(self) -> None:
        """Wake nobody."""

    def feed(self, piece: Buffer) -> None:
        """Add a piece of the body; one that comes whole is not copied."""
        if not self._body:
            self._body = piece
            return
        if not isinstance(self._body, bytearray):
            self._body = bytearray(self._body)
        self._body += piece

    def begin(self) -> None:
        """Run the method on the whole request; its reply may come before this returns."""
        target, _, headers, head = self._request
        body, self._body = self._body, b""
        request = HttpRequest(
            "POST",
            target.path,
            target.path_params,
            target.query,
            headers,
            body,
            monotonic(),
            self._connection.peer,
            head,
        )
        try:
            hook = target.begin(request, self._reply)
        except Exception:  # noqa: BLE001 - whatever a method raises is its request's failure alone
            _log.exception("http_method_failed", extra={"path": target.path})
            self._reply(internal_error())
            return
        if not self.response_complete:
            self._hook = hook

    def lose(self) -> None:
        """Let go: the client has gone, or the request is refused before it was complete."""
        if self.response_complete:
            return
        self.response_complete = True
        self._release()
        hook, self._hook = self._hook, None
        if hook is None:
            return
        try:
            hook()
        except Exception:  # noqa: BLE001 - the connection goes on closing
            _log.exception("http_cancel_hook_failed", extra={"path": self._request.target.path})

    def _reply(self, response: HttpResponse) -> None:
        if self.response_complete:
            return
        writer = self._routes.writer
        head = writer.repeated_head(response) if self.keep_alive else None
        if head is not None:
            self._finish((head, *response.body))
            return
        try:
            waiting = writer.encode_nowait(response, self._request.headers.get("accept-encoding", ""))
        except Exception:  # noqa: BLE001 - the client must not wait for ever
            self._fail()
            return
        if isinstance(waiting, asyncio.Future):
            waiting.add_done_callback(lambda encoded: self._compressed(response, encoded))
        else:
            self._send(response, waiting)

    def _compressed(self, response: HttpResponse, encoded: asyncio.Future[Encoded]) -> None:
        if encoded.cancelled() or encoded.exception() is not None:
            self._fail()
        else:
            self._send(response, encoded.result())

    def _fail(self) -> None:
        """Answer that the response could not be written."""
        _log.error("http_response_failed", extra={"path": self._request.target.path})
        response = internal_error()
        self._send(response, Encoded(response.body))

    def _send(self, response: HttpResponse, encoded: Encoded) -> None:
        if not self.response_complete:
            head = self._routes.writer.head(response, encoded, keep_alive=self.keep_alive)
            self._finish((head, *encoded.parts))

    def _finish(self, parts: tuple[Buffer, ...]) -> None:
        self.response_complete = True
        self._hook = None
        self._release()
        self._transport.send(parts)
        if not self.keep_alive:
            self._transport.close()
        self._connection.answered()

    def _release(self) -> None:
        self._routes.budget.used_bytes -= self._held_bytes
        self._held_bytes = 0
        self._body = b""


def internal_error() -> HttpResponse:
    """Return the answer to a request whose method failed in a way that nobody foresaw."""
    return HttpResponse(status=500, body=(error_body("internal error"),))
