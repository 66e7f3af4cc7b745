"""The head of a gRPC call: which method, which metadata, how long, how compressed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.core.calls import RpcStatus
from gateway.transport import grpc_native_status as statuses
from gateway.transport.http2.fields import request_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.core.calls import BeginRpc, RpcService, StreamRpc, UnaryRpc
    from gateway.transport.http2.fields import Field, RequestFields
    from gateway.transport.http2.hpack_decoder import DecodedBlock

# More than gRPC's protocol document allows, and what its C core takes: spaces, any number of digits.
_TIMEOUT: Final = re.compile(r" *(?=[0-9])0*([0-9]*) *([HMSmun]) *").fullmatch
_MOST_DIGITS: Final = 12
_UNIT_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_NOT_METADATA: Final = frozenset(
    {"te", "content-type", "content-length", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"}
)
_ENCODINGS: Final = frozenset({"identity", "gzip", "deflate"})
_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """A method with one message each way."""

    begin: BeginRpc


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A method with any number of responses, and of requests unless it is `single`."""

    run: StreamRpc
    single: bool


Method: TypeAlias = UnaryMethod | StreamMethod


@dataclass(slots=True, eq=False)
class CallHead:
    """What the head of a request says; shared by all calls whose header block is the same.

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


def head_builder(
    methods: Mapping[str, Method], *, accept_compression: bool, response_encoding: str
) -> Callable[[DecodedBlock], CallHead]:
    """Return what turns a decoded header block into a CallHead.

    Args:
        methods: by path.
        accept_compression: whether compressed messages are taken.
        response_encoding: how responses are compressed for clients that take it.
    """

    def build(block: DecodedBlock) -> CallHead:
        if block.too_large:
            status = RpcStatus(statuses.RESOURCE_EXHAUSTED, "received metadata is larger than the limit")
            return CallHead(refusal=_refusal(status), too_large=True)
        request = request_fields(block.fields)
        fields = {name: value for name, value, _, _ in request.regular}
        refusal = _http_refusal(request, fields)
        if refusal:
            return CallHead(refusal=refusal)
        method = methods.get(request.path)
        if method is None:
            status = RpcStatus(statuses.UNIMPLEMENTED, "Method not found!")
            return CallHead(refusal=_refusal(status))
        timeout = fields.get("grpc-timeout")
        if timeout is not None and _TIMEOUT(timeout) is None:
            status = RpcStatus(statuses.INTERNAL, "Error parsing 'grpc-timeout' metadata")
            return CallHead(refusal=_refusal(status))
        encoding = fields.get("grpc-encoding", "identity")
        if encoding not in _ENCODINGS or (encoding != "identity" and not accept_compression):
            return CallHead(refusal=_encoding_refusal(encoding, accept_compression=accept_compression))
        return CallHead(
            begin=method.begin if isinstance(method, UnaryMethod) else None,
            stream=method if isinstance(method, StreamMethod) else None,
            metadata=_metadata(request.regular),
            timeout_s=timeout_s(timeout),
            encoding=encoding,
            accepts=response_encoding in _listed(fields.get("grpc-accept-encoding", "")),
            content_length=request.content_length,
        )

    return build


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


def _encoding_refusal(encoding: str, *, accept_compression: bool) -> bytes:
    accepted = statuses.ACCEPTED_ENCODINGS if accept_compression else "identity"
    message = f"Compression algorithm '{encoding[:64]}' is not supported"
    status = RpcStatus(statuses.UNIMPLEMENTED, message)
    return _refusal(status) + statuses.field("grpc-accept-encoding", accepted)


def _metadata(fields: Sequence[Field]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value, _, _ in fields:
        if name not in _NOT_METADATA and not name.endswith("-bin"):
            found[name] = f"{found[name]}, {value}" if name in found else value
    return MappingProxyType(found)


def _listed(header: str) -> set[str]:
    return {name.strip() for name in header.split(",")}


def timeout_s(header: str | None) -> float | None:
    """Return the seconds a `grpc-timeout` gives; None without one, or with one beyond all times."""
    found = _TIMEOUT(header) if header else None
    if found is None or len(found[1]) > _MOST_DIGITS:
        return None
    return int(found[1] or "0") * _UNIT_S[found[2]]
