"""What load tests do to requests of the Open Inference Protocol: give them an id, and frame them for gRPC."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway._proto import open_inference_pb2 as pb

if TYPE_CHECKING:
    from loadtests.peers.base import WireRequest

_HEAD_LENGTH: Final = "inference-header-content-length"


def identified(protocol: str, request: WireRequest, request_id: str) -> WireRequest:
    """Return an infer request with an id, where a client would have put it.

    Raises:
        ValueError: the request is not of the Open Inference Protocol.
    """
    match protocol:
        case "grpc" | "grpc-stream":
            message = pb.ModelInferRequest.FromString(request.body)
            message.id = request_id
            return replace(request, body=message.SerializeToString())
        case "http-json" | "http-binary":
            headers = dict(request.headers)
            end = int(headers.get(_HEAD_LENGTH, len(request.body)))
            head = json.dumps({"id": request_id} | json.loads(request.body[:end])).encode()
            if _HEAD_LENGTH in headers:
                headers[_HEAD_LENGTH] = str(len(head))
            return replace(request, headers=tuple(headers.items()), body=head + request.body[end:])
    raise ValueError(f"requests over {protocol} have no id")


def framed(message: bytes) -> bytes:
    """Return a gRPC message with its five-byte prefix, not compressed."""
    return struct.pack(">BI", 0, len(message)) + message
