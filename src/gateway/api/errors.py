"""The one place where errors become answers, by the one table in `gateway.protocol.status`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message

from gateway.api.http_bodies import json_response
from gateway.core.calls import RpcFailure, RpcStatus
from gateway.core.errors import GatewayError, InvalidRequest
from gateway.protocol.status import StatusProfile, status_of

if TYPE_CHECKING:
    from gateway.core.calls import (
        Buffer,
        HttpHandler,
        HttpRequest,
        HttpResponse,
        RpcCall,
        RpcStream,
        StreamRpc,
        UnaryRpc,
    )

_log = logging.getLogger(__name__)

MessageT = TypeVar("MessageT", bound=Message)


class ErrorTranslator:
    """Turns exceptions into gRPC statuses and HTTP responses.

    Args:
        profile: which codes overload and expiry get.
    """

    def __init__(self, profile: StatusProfile) -> None:
        self._profile = profile

    def rpc_status(self, error: Exception) -> RpcStatus:
        """Return the status for an error; an unforeseen one is logged and gives nothing away."""
        if isinstance(error, RpcFailure):
            return error.status
        _log_unforeseen(error)
        _forget_frames(error)
        status = status_of(error, self._profile)
        return RpcStatus(status.grpc_code, status.message, status.grpc_metadata)

    def http_response(self, error: Exception) -> HttpResponse:
        """Return `{"error": "..."}` with its status; an unforeseen one is logged and gives nothing away."""
        _log_unforeseen(error)
        _forget_frames(error)
        status = status_of(error, self._profile)
        return json_response({"error": status.message}, status.http_status, status.http_headers)

    def unary(self, method: UnaryRpc) -> UnaryRpc:
        """Wrap a unary method so that it raises nothing but RpcFailure (and cancellation)."""

        async def guarded(call: RpcCall) -> bytes:
            try:
                return await method(call)
            except Exception as error:
                raise RpcFailure(self.rpc_status(error)) from error

        return guarded

    def stream(self, method: StreamRpc) -> StreamRpc:
        """Wrap a streaming method likewise."""

        async def guarded(stream: RpcStream) -> None:
            try:
                await method(stream)
            except Exception as error:
                raise RpcFailure(self.rpc_status(error)) from error

        return guarded

    def http(self, handler: HttpHandler) -> HttpHandler:
        """Wrap an HTTP handler so that it answers errors too."""

        async def guarded(request: HttpRequest) -> HttpResponse:
            try:
                return await handler(request)
            except Exception as error:  # noqa: BLE001 - this is where every error becomes a response
                return self.http_response(error)

        return guarded


def _forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error that has become an answer.

    Their frames hold the request's body, and refer to the error by way of whoever passed it on: a cycle that
    would keep megabytes until the garbage collector comes by.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:  # an error may be its own cause, by way of others
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__


def _log_unforeseen(error: Exception) -> None:
    if not isinstance(error, GatewayError):
        _log.error("a protocol method failed unexpectedly", exc_info=error)


def parse(message_type: type[MessageT], buffer: Buffer) -> MessageT:
    """Parse a protobuf message.

    Raises:
        InvalidRequest: it is truncated or of another type.
    """
    try:
        return message_type.FromString(bytes(buffer))
    except DecodeError as error:
        raise InvalidRequest(f"the message is no valid {message_type.DESCRIPTOR.full_name}") from error


async def only_message(stream: RpcStream) -> Buffer:
    """Return the one request message of a server-streaming call.

    Raises:
        InvalidRequest: the client half-closed without one.
    """
    async for message in stream:
        return message
    raise InvalidRequest("the call ended before its request message")
