"""Calls over gRPC in bytes, so that messages can be sent that no stub would make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import grpc.aio

if TYPE_CHECKING:
    from collections.abc import Sequence

# As serializers are left out, both are bytes.
Unary: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"

BytesStream: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"

SERVICE: Final = "inference.GRPCInferenceService"
_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # each channel a connection of its own
)


def channel(port: int) -> grpc.aio.Channel:
    """Return a channel with a connection of its own; used with `async with`."""
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS)


def unary(over: grpc.aio.Channel, method: str = "ModelInfer") -> Unary:
    """Return a method of the inference service, from bytes to bytes."""
    return cast("Unary", over.unary_unary(f"/{SERVICE}/{method}"))


def stream_infer(over: grpc.aio.Channel) -> BytesStream:
    """Open a stream of infer requests, from bytes to bytes."""
    return cast("BytesStream", over.stream_stream(f"/{SERVICE}/ModelStreamInfer")())


def failure(error: grpc.aio.AioRpcError) -> str:
    """Return code and message of a failed call in one line."""
    return f"{error.code().name}: {error.details()}"
