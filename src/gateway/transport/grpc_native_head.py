"""The head of a gRPC call: which method, which metadata, how long, how compressed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.core.calls import BeginRpc, RpcStatus, StreamRpc
from gateway.transport import grpc_native_status as statuses
from gateway.transport.http2.fields import FieldNames, request_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.core.calls import RpcService, UnaryRpc
    from gateway.transport.http2.fields import Field, RequestFields
    from gateway.transport.http2.hpack_decoder import DecodedBlock

# More than gRPC's protocol document allows, and what its C core takes: spaces, any number of digits.
# Possessive, as a client chooses how many zeros there are to go back over.
_TIMEOUT: Final = re.compile(r" *+(?=[0-9])0*+([0-9]*+) *+([HMSmun]) *+").fullmatch
_MOST_DIGITS: Final = 12
_UNIT_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# All else is metadata, but for the timeout, which calls whose heads are the same otherwise do not share.
_DECISIVE: Final = frozenset(
    {"te", "content-type", "content-length", "grpc-encoding", "grpc-accept-encoding"}
)
_MOST_OUTLINES: Final = 256
_MOST_KEYS: Final = 64
_MOST_KEY_CHARS: Final = 2048
_ENCODINGS: Final = frozenset({"identity", "gzip", "deflate"})
_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class UnaryMethod:
    """A method with one message each way."""

    begin: BeginRpc


@dataclass(frozen=True)
class StreamMethod:
    """A method with any number of responses, and of requests unless it is `single`."""

    run: StreamRpc
    single: bool


Method: TypeAlias = UnaryMethod | StreamMethod


@dataclass(eq=False)
class CallHead:
    """What the head of a request says; may be shared by calls whose header blocks are the same.

    It holds no deadline, only the time a call is given, and nothing was decided on its metadata.

    Attributes:
        begin: the unary method called, or None.
        stream: the streaming method called, or None; the call is refused if both are.
        metadata: as `RpcCall.metadata`.
        timeout_s: seconds from arrival to the deadline; None without one.
        encoding: how compressed messages are compressed.
        accepts: the client takes responses with the encoding that the server is configured for.
        content_length: as the request says, -1 if it does not.
        refusal: block that answers the call without looking at its messages.
        too_large: the head was too large to be read.
    """

    begin: BeginRpc | None = None
    stream: StreamMethod | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: _NO_METADATA)
    timeout_s: float | None = None
    encoding: str = "identity"
    accepts: bool = False
    content_length: int = -1
    refusal: bytes = b""
    too_large: bool = False


def methods_by_path(
    services: Sequence[RpcService], begun: Callable[[UnaryRpc], BeginRpc]
) -> dict[str, Method]:
    """Return every method under the path it is called by.

    Args:
        services: what is served.
        begun: makes a coroutine method one that is begun.
    """
    methods: dict[str, Method] = {}
    for service in services:
        prefix = f"/{service.name}/"
        methods |= {prefix + name: UnaryMethod(method) for name, method in service.begin.items()}
        methods |= {prefix + name: UnaryMethod(begun(method)) for name, method in service.unary.items()}
        methods |= {prefix + name: StreamMethod(run, False) for name, run in service.stream.items()}
        methods |= {prefix + name: StreamMethod(run, True) for name, run in service.server_stream.items()}
    return methods


class CallHeads:
    """Makes the heads of calls; the `HeadBuilder` of all connections.

    Most calls differ from others in what their heads say of themselves (timeout, trace context, ids). The
    outline of a head, all that does not come from such free fields, is remembered under the keys of the
    fields: what may be refused is judged once, and metadata, an authorisation above all, is not kept.
    Outlines of refused calls are not remembered.

    Bounds: `_MOST_OUTLINES`, each of at most `_MOST_KEYS` fields and `_MOST_KEY_CHARS` characters.

    Args:
        methods: by path.
        accept_compression: whether compressed messages are taken.
        response_encoding: how responses are compressed for clients that take it.

    Attributes:
        names: as `HeadBuilder.names`.
    """

    __slots__ = ("_accept_compression", "_methods", "_outlines", "_response_encoding", "names")

    def __init__(
        self, methods: Mapping[str, Method], *, accept_compression: bool, response_encoding: str
    ) -> None:
        self._methods = methods
        self._accept_compression = accept_compression
        self._response_encoding = response_encoding
        self._outlines: dict[tuple[str, ...], CallHead] = {}
        self.names = FieldNames(_DECISIVE)

    def build(self, block: DecodedBlock) -> CallHead:
        """Return the head that a block holds.

        Raises:
            MalformedRequest: it breaks a rule of HTTP/2.
        """
        if block.too_large:
            status = RpcStatus(statuses.RESOURCE_EXHAUSTED, "received metadata is larger than the limit")
            return CallHead(refusal=_refusal(status), too_large=True)
        fields = block.fields
        key = tuple([field.key for field in fields])
        outline = self._outlines.get(key)
        if outline is None:
            outline = self._outline(fields)
            if outline.refusal:
                return outline
            self._remember(key, outline)
        return _completed(outline, fields)

    def _remember(self, key: tuple[str, ...], outline: CallHead) -> None:
        if len(key) <= _MOST_KEYS and sum(map(len, key)) <= _MOST_KEY_CHARS:
            if len(self._outlines) >= _MOST_OUTLINES:
                self._outlines.clear()
            self._outlines[key] = outline

    def _outline(self, fields: Sequence[Field]) -> CallHead:
        """Return a head that is the same for all blocks whose fields have the same keys in the same order."""
        request = request_fields(fields)
        regular = {field.name: field.value for field in request.regular}
        refusal = _http_refusal(request, regular)
        if refusal:
            return CallHead(refusal=refusal)
        method = self._methods.get(request.path)
        if method is None:
            status = RpcStatus(statuses.UNIMPLEMENTED, "Method not found!")
            return CallHead(refusal=_refusal(status))
        encoding = regular.get("grpc-encoding", "identity")
        accepted = encoding == "identity" or (encoding in _ENCODINGS and self._accept_compression)
        return CallHead(
            begin=method.begin if isinstance(method, UnaryMethod) else None,
            stream=method if isinstance(method, StreamMethod) else None,
            encoding=encoding,
            accepts=self._response_encoding in _listed(regular.get("grpc-accept-encoding", "")),
            content_length=request.content_length,
            refusal=b"" if accepted else self._encoding_refusal(encoding),
        )

    def _encoding_refusal(self, encoding: str) -> bytes:
        accepted = statuses.ACCEPTED_ENCODINGS if self._accept_compression else "identity"
        message = f"Compression algorithm '{encoding[:64]}' is not supported"
        status = RpcStatus(statuses.UNIMPLEMENTED, message)
        return _refusal(status) + statuses.field("grpc-accept-encoding", accepted)


def _completed(outline: CallHead, fields: Sequence[Field]) -> CallHead:
    """Return an outline with what the free fields say."""
    metadata: dict[str, str] = {}
    timeout: str | None = None
    for line in fields:
        if line.key:
            continue
        name = line.name
        if name == "grpc-timeout":
            timeout = line.value
        elif name in metadata:
            metadata[name] = f"{metadata[name]}, {line.value}"
        elif name[-4:] != "-bin":
            metadata[name] = line.value
    given_s = timeout_s(timeout)
    if given_s is None and timeout is not None and _TIMEOUT(timeout) is None:
        status = RpcStatus(statuses.INTERNAL, "Error parsing 'grpc-timeout' metadata")
        return CallHead(refusal=_refusal(status))
    return CallHead(
        outline.begin,
        outline.stream,
        MappingProxyType(metadata),
        given_s,
        outline.encoding,
        outline.accepts,
        outline.content_length,
    )


def head_builder(
    methods: Mapping[str, Method], *, accept_compression: bool, response_encoding: str
) -> CallHeads:
    """Return what turns the decoded header blocks of all connections into heads; see `CallHeads`."""
    return CallHeads(methods, accept_compression=accept_compression, response_encoding=response_encoding)


def _http_refusal(request: RequestFields, fields: Mapping[str, str]) -> bytes:
    """Return how a request that is not gRPC's is answered, empty if it is."""
    if request.method != "POST":
        return statuses.http_refusal(405)
    content_type = fields.get("content-type", "")
    if content_type != "application/grpc" and not content_type.startswith(
        ("application/grpc+", "application/grpc;")
    ):
        return statuses.http_refusal(415)
    return b""


def _refusal(status: RpcStatus) -> bytes:
    return statuses.RESPONSE_HEAD + statuses.status_trailers(status)


def _listed(header: str) -> set[str]:
    return {name.strip() for name in header.split(",")}


def timeout_s(header: str | None) -> float | None:
    """Return the seconds a `grpc-timeout` gives; None without one, or with one beyond all times."""
    found = _TIMEOUT(header) if header else None
    if found is None or len(found[1]) > _MOST_DIGITS:
        return None
    return int(found[1] or "0") * _UNIT_S[found[2]]
