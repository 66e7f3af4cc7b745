"""The payloads that peers take: the Open Inference Protocol, and plain rows where it is not spoken."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from google.protobuf.message import DecodeError

from gateway._proto import open_inference_pb2 as pb
from gateway.commands.failure import CommandFailed
from gateway.commands.wire import HEADER_LENGTH, decode_response, encode_request
from gateway.core.types import Datatype, Tensor
from loadtests.peers.base import WireAnswer, WireRequest
from loadtests.requests_on_file import grpc_message

if TYPE_CHECKING:
    from loadtests.peers.base import Floats
    from loadtests.requests_on_file import BenchModel

_SERVICE: Final = "/inference.GRPCInferenceService"
_HEAD: Final = struct.Struct("<I")


class Wire(Protocol):
    """How a peer is asked, and how its answers are read: `Peer.request` and `Peer.read`."""

    def request(self, protocol: str, model: BenchModel, array: Floats) -> WireRequest:
        """Return the request that asks for `array`, of shape [rows, features]."""
        ...

    def read(self, protocol: str, answer: WireAnswer) -> Floats:
        """Return the first output of a good answer, of shape [rows, ...]; ValueError if it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class OpenInference:
    """The Open Inference Protocol: HTTP with JSON or binary tensors, gRPC with raw contents."""

    def request(self, protocol: str, model: BenchModel, array: Floats) -> WireRequest:
        """Return the request that asks for `array`, of shape [rows, features]."""
        tensor = Tensor(model.input_name, Datatype.FP32, array)
        if protocol == "grpc":
            return WireRequest(f"{_SERVICE}/ModelInfer", (), grpc_message(model, tensor))
        if protocol == "grpc-stream":
            return WireRequest(f"{_SERVICE}/ModelStreamInfer", (), grpc_message(model, tensor))
        path = f"/v2/models/{model.name}/infer"
        if protocol == "http-json":
            return WireRequest(path, (("content-type", "application/json"),), _json_body(tensor))
        headers, body = encode_request([tensor])
        return WireRequest(path, tuple(headers.items()), body)

    def read(self, protocol: str, answer: WireAnswer) -> Floats:
        """Return the first output of a good answer, of shape [rows, ...]; ValueError if it cannot be read."""
        try:
            if protocol == "grpc":
                return _first_output(pb.ModelInferResponse.FromString(answer.body))
            if protocol == "grpc-stream":
                return _streamed(pb.ModelStreamInferResponse.FromString(answer.body))
            if protocol == "http-json":
                output = json.loads(answer.body)["outputs"][0]
                return np.array(output["data"], np.float32).reshape(output["shape"])
            return _floats(decode_response(answer.headers, answer.body)[1][0].array)
        except (DecodeError, CommandFailed, KeyError, IndexError, TypeError) as exc:
            raise ValueError(f"no answer of the Open Inference Protocol: {answer.body[:200]!r}") from exc


def _json_body(tensor: Tensor) -> bytes:
    data = tensor.array.reshape(-1).tolist()
    described = {"name": tensor.name, "shape": tensor.array.shape, "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [described]}).encode()


def _streamed(message: Any) -> Floats:
    if message.error_message:
        raise ValueError(message.error_message)
    return _first_output(message.infer_response)


def _first_output(response: Any) -> Floats:
    output = response.outputs[0]
    if response.raw_output_contents:
        return _floats(np.frombuffer(response.raw_output_contents[0], "<f4")).reshape(tuple(output.shape))
    return np.array(output.contents.fp32_contents, np.float32).reshape(tuple(output.shape))


def _floats(array: Any) -> Floats:
    return np.asarray(array, np.float32)


@dataclass(frozen=True, slots=True)
class BareRows:
    """Rows as bytes, both ways: their number (uint32), then FP32 values row by row, all little-endian.

    It is the least that a peer can be asked to parse, so it flatters peers without the protocol.

    Attributes:
        path: where the peer takes it.
    """

    path: str

    def request(self, protocol: str, model: BenchModel, array: Floats) -> WireRequest:
        """Return the request that asks for `array`, of shape [rows, features]."""
        del protocol, model
        body = _HEAD.pack(len(array)) + np.ascontiguousarray(array, "<f4").tobytes()
        return WireRequest(self.path, (("content-type", "application/octet-stream"),), body)

    def read(self, protocol: str, answer: WireAnswer) -> Floats:
        """Return the first output of a good answer, of shape [rows, ...]; ValueError if it cannot be read."""
        del protocol
        if len(answer.body) < _HEAD.size:
            raise ValueError(f"no rows: {answer.body!r}")
        (rows,) = _HEAD.unpack_from(answer.body)
        return _floats(np.frombuffer(answer.body, "<f4", offset=_HEAD.size)).reshape(rows, -1)


@dataclass(frozen=True, slots=True)
class RowsAsJson:
    """Rows as nested lists of JSON: an object with one field there, the bare list back.

    Attributes:
        path: where the peer takes it.
        field: the name of the rows.
    """

    path: str
    field: str

    def request(self, protocol: str, model: BenchModel, array: Floats) -> WireRequest:
        """Return the request that asks for `array`, of shape [rows, features]."""
        del protocol, model
        body = json.dumps({self.field: array.tolist()}).encode()
        return WireRequest(self.path, (("content-type", "application/json"),), body)

    def read(self, protocol: str, answer: WireAnswer) -> Floats:
        """Return the first output of a good answer, of shape [rows, ...]; ValueError if it cannot be read."""
        del protocol
        try:
            return np.array(json.loads(answer.body), np.float32)
        except TypeError as exc:
            raise ValueError(f"no rows: {answer.body[:200]!r}") from exc


@dataclass(frozen=True, slots=True)
class Echoed:
    """Requests of the Open Inference Protocol, sent back as they are: `read` returns the input."""

    def request(self, protocol: str, model: BenchModel, array: Floats) -> WireRequest:
        """Return the request that asks for `array`, of shape [rows, features]."""
        return OpenInference().request(protocol, model, array)

    def read(self, protocol: str, answer: WireAnswer) -> Floats:
        """Return the input in an answer, of shape [rows, features]; ValueError if it cannot be read."""
        try:
            if protocol == "grpc":
                message = pb.ModelInferRequest.FromString(answer.body)
                raw, shape = message.raw_input_contents[0], tuple(message.inputs[0].shape)
            else:
                end = int(answer.headers[HEADER_LENGTH])
                raw, shape = answer.body[end:], json.loads(answer.body[:end])["inputs"][0]["shape"]
        except (DecodeError, KeyError, IndexError) as exc:
            raise ValueError(f"no request came back: {answer.body[:200]!r}") from exc
        return _floats(np.frombuffer(raw, "<f4")).reshape(shape)
