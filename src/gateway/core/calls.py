"""The seam between transports and the protocol's methods: calls in bytes, for RPC and for HTTP.

A transport moves bytes and knows no method; a method knows no transport. The infer calls are begun by a
synchronous function and answered by callback, so that a transport needs no task for them; everything else
is a coroutine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
Headers: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class RpcStatus:
    """A gRPC status: code as the integer of the gRPC specification, message, trailing metadata."""

    code: int
    message: str
    metadata: Headers = ()


class RpcFailure(Exception):
    """Raised by a coroutine or stream method to end the call with a status."""

    def __init__(self, status: RpcStatus) -> None:
        super().__init__(status.message)
        self.status = status


class RpcCall(Protocol):
    """One unary call as its transport received it.

    Attributes:
        message: the request message; valid as long as it is referenced.
        metadata: lower-case names; binary (`-bin`) entries left out.
        deadline_s: monotonic time of the client's deadline, or None.
        arrived_s: monotonic time of arrival.
        peer: address of the client, for logs.
    """

    message: Buffer
    metadata: Mapping[str, str]
    deadline_s: float | None
    arrived_s: float
    peer: str

    def reply(self, message: bytes, trailers: Headers = ()) -> None:
        """Answer; at most one of `reply` and `fail`, once. Ignored when the client has gone."""

    def fail(self, status: RpcStatus) -> None:
        """Answer with a status."""

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Run `callback` if the client cancels or goes before the answer."""


class RpcStream(Protocol):
    """One bidirectional (or server-streaming) call.

    Attributes:
        metadata: as `RpcCall.metadata`.
        deadline_s: as `RpcCall.deadline_s`.
        peer: as `RpcCall.peer`.
    """

    metadata: Mapping[str, str]
    deadline_s: float | None
    peer: str

    def __aiter__(self) -> AsyncIterator[Buffer]:
        """Iterate over request messages until the client half-closes."""

    async def send(self, message: bytes) -> None:
        """Send one response message; waits while the client is slow."""


BeginRpc: TypeAlias = Callable[[RpcCall], None]
"""Begins a call; the answer comes through `RpcCall.reply` or `fail`, perhaps before it returns."""
UnaryRpc: TypeAlias = Callable[[RpcCall], Awaitable[bytes]]
"""Answers with a message or raises RpcFailure; cancelled when the client goes."""
StreamRpc: TypeAlias = Callable[[RpcStream], Awaitable[None]]
"""Runs a stream to its end; raises RpcFailure to end it with a status; cancelled when the client goes."""


@dataclass(frozen=True)
class RpcService:
    """Methods of one gRPC service, by method name.

    Attributes:
        name: full service name, `inference.GRPCInferenceService`.
        begin: unary methods answered by callback.
        unary: unary methods as coroutines.
        stream: streaming methods, bidirectional.
        server_stream: methods with one request and many responses; served like `stream`.
    """

    name: str
    begin: Mapping[str, BeginRpc] = field(default_factory=dict)
    unary: Mapping[str, UnaryRpc] = field(default_factory=dict)
    stream: Mapping[str, StreamRpc] = field(default_factory=dict)
    server_stream: Mapping[str, StreamRpc] = field(default_factory=dict)


class HttpHead:
    """What HTTP requests have in common whose request lines and headers are equal to the byte.

    But for headers that tell requests apart, whose values differ: trace context, ids, time limits.

    Attributes:
        facts: what the method has worked out from the others; written by the method alone. Never what depends
            on anything else, and never a decision: who may call, until when, which version.
    """

    __slots__ = ("facts",)

    def __init__(
        self,
        facts: object = None,
    ) -> None:
        self.facts = facts


class HttpRequest:
    """One HTTP request with its whole body, content encoding already undone.

    Attributes:
        method: `GET`, `POST`, ...
        path: decoded path.
        path_params: named parts of the route's pattern.
        query: raw query string.
        headers: lower-case names; repeated ones joined with ", ".
        body: the body, within the configured limit.
        arrived_s: monotonic time of the last byte.
        peer: address of the client, for logs.
        head: shared with the requests whose heads are the same; None when they are not remembered.
    """

    __slots__ = (
        "arrived_s",
        "body",
        "head",
        "headers",
        "method",
        "path",
        "path_params",
        "peer",
        "query",
    )

    def __init__(
        self,
        method: str,
        path: str,
        path_params: Mapping[str, str],
        query: str,
        headers: Mapping[str, str],
        body: Buffer,
        arrived_s: float,
        peer: str = "",
        head: HttpHead | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.path_params = path_params
        self.query = query
        self.headers = headers
        self.body = body
        self.arrived_s = arrived_s
        self.peer = peer
        self.head = head


class HttpResponse:
    """One HTTP response.

    Attributes:
        status: status code.
        body: parts written one after the other; the transport sends their total as Content-Length.
        content_type: media type; empty sends none.
        headers: further headers.
        compressible: the transport may encode the body if the client accepts it (JSON; never tensors
            unless the operator opted in).
        stream: if set, sent chunked after `body`; closed when the client goes.
        kind: responses with the same object here differ in nothing but the bytes of their bodies, not even
            in their size, are not compressible and do not stream; None says nothing.
    """

    __slots__ = (
        "body",
        "compressible",
        "content_type",
        "headers",
        "kind",
        "status",
        "stream",
    )

    def __init__(
        self,
        status: int,
        body: Sequence[Buffer] = (),
        content_type: str = "application/json",
        headers: Headers = (),
        compressible: bool = True,
        stream: AsyncIterator[bytes] | None = None,
        kind: object = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.compressible = compressible
        self.stream = stream
        self.kind = kind


HttpReply: TypeAlias = Callable[[HttpResponse], None]
CancelHook: TypeAlias = Callable[[], object]
BeginHttp: TypeAlias = Callable[[HttpRequest, HttpReply], CancelHook]
"""Begins an exchange; calls the reply once, perhaps before it returns; the hook returned is called if the
client goes first."""
HttpHandler: TypeAlias = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Answers every request with a response, errors included; cancelled when the client goes."""


@dataclass(frozen=True)
class HttpRoute:
    """One route.

    Attributes:
        method: HTTP method.
        pattern: Starlette path pattern, `/v2/models/{model}/infer`.
        handler: coroutine handler, or None for a `begin` route.
        begin: callback handler, or None.
        operation_id: name in the OpenAPI document.
    """

    method: str
    pattern: str
    handler: HttpHandler | None = None
    begin: BeginHttp | None = None
    operation_id: str = ""
