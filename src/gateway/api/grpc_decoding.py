"""ModelInferRequest messages to requests: at once, or in a thread when that takes long."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway._proto.open_inference_pb2 import ModelInferRequest
from gateway.api.decoding import HEAVY_BYTES, takes_bytes
from gateway.api.errors import parse
from gateway.core.errors import GatewayError
from gateway.core.types import InferRequest
from gateway.protocol.protobuf_infer import LARGE_BYTES, Arrival, LargeRequest, decode_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.api.context import ApiContext
    from gateway.core.calls import Buffer


class RpcDecoding(NamedTuple):
    """A large message that can be decoded.

    Attributes:
        decode: returns the request, on any thread.
        heavy: it takes too long for the event loop.
    """

    decode: Callable[[], InferRequest]
    heavy: bool


def is_large(message: Buffer) -> bool:
    """Whether to look at whom the message is for, with `large_request`, before it is decoded."""
    return len(message) >= LARGE_BYTES


def small_request(context: ApiContext, message: Buffer, arrival: Arrival) -> InferRequest:
    """Decode a message that is not large; raises as `decode_request`."""
    arrived_s, deadline_s, metadata = arrival
    limits = context.limits
    return decode_request(
        message, arrived_s=arrived_s, deadline_s=deadline_s, metadata=metadata, limits=limits
    )


def large_request(context: ApiContext, message: Buffer, arrival: Arrival) -> RpcDecoding:
    """Look a large message's model up, and tell how to decode it.

    The head is decoded element by element where it holds typed contents; raw data only where it is BYTES.

    Raises:
        InvalidRequest: the bytes are no ModelInferRequest.
        PayloadTooLarge: beyond a limit.
        NotFound, NotReady: as `ModelCatalog.get`.
    """
    large = LargeRequest(message, context.limits)
    parts = large.parts
    signature = context.catalog.get(parts.model_name, parts.model_version).signature
    datatypes = {spec.name: spec.datatype for spec in signature.inputs}
    heavy = len(parts.head) >= HEAVY_BYTES or takes_bytes(signature)
    return RpcDecoding(lambda: large.decode(arrival, datatypes), heavy)


def large_asked(context: ApiContext, message: Buffer, arrival: Arrival) -> InferRequest:
    """Return what a large message says of whom it is for, and how long it may wait."""
    parts = LargeRequest(message, context.limits).parts
    return InferRequest(
        model_name=parts.model_name,
        model_version=parts.model_version,
        inputs=(),
        deadline_s=arrival.deadline_s,
        received_bytes=len(message),
    )


def request_id(context: ApiContext, message: Buffer) -> str:
    """Return the id in a message that could not be decoded; empty if there is none to be found."""
    try:
        if is_large(message):
            return LargeRequest(message, context.limits).parts.request_id
        return parse(ModelInferRequest, message).id
    except GatewayError:
        return ""
