"""What decoding may take: memory charged as it is held, counts refused before anything is built of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gateway._proto import open_inference_pb2 as pb
from gateway.core.errors import GatewayError, InvalidRequest, PayloadTooLarge
from gateway.core.types import Datatype, InferRequest, ModelSignature, TensorSpec
from gateway.protocol.generate import decode_generate
from gateway.protocol.json_infer import HEADER_LENGTH, HttpInferCall
from gateway.protocol.json_infer import decode_request as decode_http
from gateway.protocol.limits import DEFAULT_LIMITS, ProtocolLimits
from gateway.protocol.protobuf_infer import LARGE_BYTES, decode_request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORDS = ModelSignature((TensorSpec("x", Datatype.BYTES, (-1,)),), ())
COUNT = LARGE_BYTES
TWO = b"\2\0\0\0ab"


def grpc(message: bytes, limits: ProtocolLimits = DEFAULT_LIMITS) -> InferRequest:
    return decode_request(message, arrived_s=0.0, limits=limits)


def typed(field: str, values: Sequence[object], datatype: str, shape: list[int] | None = None) -> bytes:
    message = pb.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[len(values)] if shape is None else shape)
    getattr(tensor.contents, field).extend(values)
    return message.SerializeToString()


def raw_bytes(count: int) -> bytes:
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="BYTES", shape=[count])
    message.raw_input_contents.append(TWO * count)
    return message.SerializeToString()


def http(body: bytes, head_bytes: int | None = None, limits: ProtocolLimits = DEFAULT_LIMITS) -> InferRequest:
    headers = {} if head_bytes is None else {HEADER_LENGTH: str(head_bytes)}
    call = HttpInferCall(model_name="m", headers=headers)
    return decode_http(body, call, signature=lambda: WORDS, limits=limits).request


def http_binary(count: int) -> tuple[bytes, int]:
    size = {"binary_data_size": len(TWO) * count}
    tensor = {"name": "x", "shape": [count], "datatype": "BYTES", "parameters": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + TWO * count, len(head)


def held(request: InferRequest, size: int) -> int:
    """Return what the body and the elements of the one BYTES input take."""
    array = request.inputs[0].array
    return size + array.nbytes + sum(sys.getsizeof(element) for element in array.tolist())


@pytest.mark.parametrize("count", [3, COUNT])
def test_strings_are_charged_as_they_are_held(count: int) -> None:
    """Each element of a BYTES tensor is an object: it is charged beside the body, whatever way it came."""
    message = raw_bytes(count)
    assert grpc(message).received_bytes == held(grpc(message), len(message))
    message = typed("bytes_contents", [b"ab"] * count, "BYTES")
    assert grpc(message).received_bytes == held(grpc(message), len(message))
    body, head_bytes = http_binary(count)
    assert http(body, head_bytes).received_bytes == held(http(body, head_bytes), len(body))
    assert http(body, 0).received_bytes == held(http(body, 0), len(body))


@pytest.mark.parametrize("count", [3, COUNT])
def test_typed_contents_and_json_are_charged_beside_the_body(count: int) -> None:
    """Both the message and what was made of it stay in memory."""
    message = typed("int64_contents", [1] * count, "INT64")
    assert grpc(message).received_bytes == len(message) + 8 * count
    tensor = {"name": "x", "shape": [count], "datatype": "FP32", "data": [1] * count}
    body = json.dumps({"inputs": [tensor]}).encode()
    assert http(body).received_bytes == len(body) + 4 * count
    body = json.dumps({"x": ["ab"] * count}).encode()
    request = decode_generate(body, HttpInferCall(model_name="m"), WORDS)
    assert request.received_bytes == held(request, len(body))


def test_raw_tensors_are_charged_once() -> None:
    """A view takes no memory beside the body."""
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="FP32", shape=[COUNT])
    message.raw_input_contents.append(bytes(4 * COUNT))
    data = message.SerializeToString()
    assert grpc(data).received_bytes == len(data)


def test_strings_are_counted_before_they_are_read() -> None:
    """One BYTES element more than allowed is refused in every form, and none less is."""
    few = replace(DEFAULT_LIMITS, max_bytes_elements=COUNT)
    for count, fits in ((COUNT, True), (COUNT + 1, False)):
        tensor = {"name": "x", "shape": [count], "datatype": "BYTES", "data": ["ab"] * count}
        words = json.dumps({"x": ["ab"] * count}).encode()
        ways: list[Callable[[], InferRequest]] = [
            partial(grpc, raw_bytes(count), few),
            partial(grpc, typed("bytes_contents", [b"ab"] * count, "BYTES"), few),
            partial(http, *http_binary(count), few),
            partial(http, json.dumps({"inputs": [tensor]}).encode(), None, few),
            partial(decode_generate, words, HttpInferCall(model_name="m"), WORDS, limits=few),
        ]
        for way in ways:
            if fits:
                assert way().inputs[0].array.size == count
            else:
                with pytest.raises(PayloadTooLarge):
                    way()


def test_more_typed_strings_than_the_shape_says_are_counted_too() -> None:
    """The wire is counted, whatever the shape says."""
    few = replace(DEFAULT_LIMITS, max_bytes_elements=COUNT)
    with pytest.raises(PayloadTooLarge, match="typed contents"):
        grpc(typed("bytes_contents", [b""] * (COUNT + 1), "BYTES", [1]), few)


@pytest.mark.parametrize(
    ("field", "datatype", "width"),
    [("int64_contents", "INT64", 8), ("int_contents", "INT8", 4), ("uint_contents", "UINT32", 4)],
)
def test_typed_contents_may_not_outgrow_the_body_limit(field: str, datatype: str, width: int) -> None:
    """Integers are refused when they would take more memory than a body may have bytes, and no sooner."""
    message = typed(field, [1] * COUNT, datatype)
    enough = replace(DEFAULT_LIMITS, max_body_bytes=width * COUNT)
    np.testing.assert_array_equal(grpc(message, enough).inputs[0].array, np.ones(COUNT))
    with pytest.raises(PayloadTooLarge, match="typed contents"):
        grpc(message, replace(enough, max_body_bytes=width * COUNT - 1))


@pytest.mark.parametrize(
    ("field", "datatype", "values"),
    [
        ("bool_contents", "BOOL", [True, False]),
        ("int64_contents", "INT64", [-(1 << 63), (1 << 63) - 1]),
        ("uint64_contents", "UINT64", [0, (1 << 64) - 1]),
        ("fp32_contents", "FP32", [0.5, -2.0]),
        ("fp64_contents", "FP64", [0.1, -2.0]),
        ("bytes_contents", "BYTES", [b"", b"x" * 127, b"y" * 300]),
    ],
)
def test_large_typed_contents_keep_their_values(field: str, datatype: str, values: list[object]) -> None:
    """What the guard looks at is decoded as it was sent."""
    values = values * (COUNT // 2)
    assert grpc(typed(field, values, datatype)).inputs[0].array.tolist() == values


def delimited(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14])


def with_input(content: bytes) -> bytes:
    """Return a message for model `m` whose one input `x` holds `content` beside its name."""
    return delimited(1, b"m") + delimited(5, delimited(1, b"x") + content)


@pytest.mark.parametrize(
    ("message", "error", "said"),
    [
        (with_input(delimited(3, b"\1" * COUNT)), PayloadTooLarge, "axes"),
        (with_input(b"\x18\1" * COUNT), PayloadTooLarge, "axes"),
        (with_input(delimited(5, b"\x18\1" * COUNT)), InvalidRequest, "invalid datatype"),
        (delimited(1, b"m") + b"\x40\1" * COUNT, InvalidRequest, "fields"),
        (with_input(delimited(5, b"\x42\0" * COUNT + b"\x42\xff\xff\x7f")), InvalidRequest, "truncated"),
    ],
    ids=["packed shape", "unpacked shape", "unpacked contents", "unknown fields", "cut-off string"],
)
def test_hostile_messages_are_refused(message: bytes, error: type[GatewayError], said: str) -> None:
    """Shapes and fields without end, and lengths that lie, end in an error of the client's."""
    with pytest.raises(error, match=said):
        grpc(message)


def test_a_shape_is_counted_before_it_is_copied() -> None:
    """A long shape in a small message is refused for its axes."""
    with pytest.raises(PayloadTooLarge, match="has 33 axes"):
        grpc(typed("fp32_contents", [1.0], "FP32", [1] * 33))
