from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request

from gateway._proto import open_inference_pb2 as pb
from gateway.core.errors import GatewayError, InvalidRequest, PayloadTooLarge, Unsupported
from gateway.core.types import Datatype, InferRequest, Tensor
from gateway.protocol.limits import DEFAULT_LIMITS, DecodeContext, ProtocolLimits
from gateway.protocol.protobuf_infer import (
    decode_request,
    encode_response,
    encode_stream_error,
    encode_stream_response,
)
from gateway.protocol.protobuf_split import split
from tests.properties import examples
from tests.protocol.tensor_strategies import assert_same, bytes_array, response_of, tensors

if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXT = DecodeContext("m", DEFAULT_LIMITS)


def decode(message: bytes, **options: Any) -> InferRequest:
    return decode_request(message, arrived_s=100.0, **options)


def triton_request(inputs: list[Any], outputs: list[Any] | None = None, **options: Any) -> bytes:
    defaults: dict[str, Any] = {
        "model_version": "",
        "request_id": "",
        "sequence_id": 0,
        "sequence_start": False,
        "sequence_end": False,
        "priority": 0,
        "timeout": None,
        "parameters": None,
    }
    message = _get_inference_request(model_name="m", inputs=inputs, outputs=outputs, **(defaults | options))
    return bytes(message.SerializeToString())


def triton_input(tensor: Tensor) -> Any:
    value = triton.InferInput(tensor.name, list(tensor.array.shape), tensor.datatype.value)
    value.set_data_from_numpy(tensor.array)
    return value


def small_request() -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="7")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([1, 2], np.float32).tobytes())
    return request


@given(tensor=tensors())
def test_tritonclients_tensors_arrive_bit_for_bit(tensor: Tensor) -> None:
    """Every datatype and shape that tritonclient sends over gRPC is read bit for bit."""
    (got,) = decode(triton_request([triton_input(tensor)])).inputs
    assert_same(got, tensor, bits=True)
    assert not got.array.flags.writeable or tensor.datatype is Datatype.BYTES


@given(st.lists(tensors(), max_size=3), st.text(max_size=5))
def test_tritonclient_reads_our_tensors_bit_for_bit(outputs: list[Tensor], request_id: str) -> None:
    """Every datatype and shape of a response is read bit for bit by tritonclient."""
    named = [Tensor(f"y{i}", t.datatype, t.array) for i, t in enumerate(outputs)]
    message = encode_response(response_of(*named, request_id=request_id))
    parsed = service_pb2.ModelInferResponse.FromString(message)
    assert (parsed.model_name, parsed.model_version, parsed.id) == ("m", "3", request_id)
    assert len(parsed.raw_output_contents) == len(named)
    result = triton.InferResult(parsed)
    for tensor in named:
        got = result.as_numpy(tensor.name)
        assert_same(Tensor(tensor.name, tensor.datatype, got), tensor, bits=True)


def test_everything_tritonclient_may_say_is_understood() -> None:
    """Version, id, priority, timeout, sequence and custom parameters and outputs reach the request."""
    outputs = [triton.InferRequestedOutput("y"), triton.InferRequestedOutput("z", class_count=3)]
    message = triton_request(
        [triton_input(Tensor("x", Datatype.INT8, np.zeros((2, 3), np.int8)))],
        outputs,
        model_version="4",
        request_id="id-1",
        sequence_id=9,
        sequence_start=True,
        priority=2,
        timeout=1_500_000,
        parameters={"tag": "blue", "scale": 0.5, "flag": True, "n": 3},
    )
    request = decode(message, metadata={"k": "v"})
    assert (request.model_name, request.model_version, request.request_id) == ("m", "4", "id-1")
    assert (request.priority, request.deadline_s, request.arrived_s) == (2, 101.5, 100.0)
    assert dict(request.parameters) == {
        "sequence_id": 9,
        "sequence_start": True,
        "sequence_end": False,
        "tag": "blue",
        "scale": 0.5,
        "flag": True,
        "n": 3,
    }
    assert [(o.name, o.classification) for o in request.outputs] == [("y", 0), ("z", 3)]
    assert request.received_bytes == len(message)
    assert request.headers == {"k": "v"}


@pytest.mark.parametrize(("deadline_s", "expected_s"), [(None, 102.0), (101.0, 101.0), (103.0, 102.0)])
def test_the_earlier_of_deadline_and_timeout_counts(deadline_s: float | None, expected_s: float) -> None:
    """The timeout parameter can bring the call's deadline forward and never put it back."""
    request = small_request()
    request.parameters["timeout"].int64_param = 2_000_000
    assert decode(request.SerializeToString(), deadline_s=deadline_s).deadline_s == expected_s


TYPED: dict[Datatype, tuple[str, list[Any]]] = {
    Datatype.BOOL: ("bool_contents", [True, False]),
    Datatype.INT8: ("int_contents", [-128, 127]),
    Datatype.INT16: ("int_contents", [-32768, 32767]),
    Datatype.INT32: ("int_contents", [-(2**31), 2**31 - 1]),
    Datatype.INT64: ("int64_contents", [-(2**63), 2**63 - 1]),
    Datatype.UINT8: ("uint_contents", [0, 255]),
    Datatype.UINT16: ("uint_contents", [0, 65535]),
    Datatype.UINT32: ("uint_contents", [0, 2**32 - 1]),
    Datatype.UINT64: ("uint64_contents", [0, 2**64 - 1]),
    Datatype.FP32: ("fp32_contents", [1.5, float("nan")]),
    Datatype.FP64: ("fp64_contents", [0.1, float("-inf")]),
    Datatype.BYTES: ("bytes_contents", [b"a\x00", b""]),
}


def typed_request(datatype: str, field: str, values: list[Any], shape: list[int]) -> bytes:
    request = pb.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    getattr(tensor.contents, field).extend(values)
    return request.SerializeToString()


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_are_read(datatype: Datatype) -> None:
    """Each datatype is read from its own list of contents, extreme values included."""
    field, values = TYPED[datatype]
    (got,) = decode(typed_request(datatype.value, field, values, [2, 1])).inputs
    expected = (
        bytes_array(values, (2, 1))
        if datatype is Datatype.BYTES
        else np.array(values, datatype.dtype).reshape(2, 1)
    )
    assert_same(got, Tensor("x", datatype, expected), bits=False)


@pytest.mark.parametrize("datatype", list(Datatype))
def test_contents_of_another_type_are_refused(datatype: Datatype) -> None:
    """No datatype is read from another datatype's list, and FP16 and BF16 from none."""
    own = TYPED.get(datatype, ("", []))[0]
    for field, values in TYPED.values():
        if field != own:
            with pytest.raises(InvalidRequest, match="'x' for model 'm'"):
                decode(typed_request(datatype.value, field, values, [2]))


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [("INT8", "int_contents", 128), ("INT16", "int_contents", -40000), ("UINT8", "uint_contents", 256)],
)
def test_a_typed_value_that_does_not_fit_is_refused(datatype: str, field: str, value: int) -> None:
    """A value beyond the datatype's width is refused instead of wrapped."""
    with pytest.raises(InvalidRequest, match=f"out of range for {datatype}"):
        decode(typed_request(datatype, field, [value], [1]))


def test_an_empty_tensor_needs_no_data() -> None:
    """A tensor without elements is complete without contents of either kind."""
    (got,) = decode(typed_request("FP32", "fp32_contents", [], [0, 4])).inputs
    assert got.array.shape == (0, 4)


def _with(change: Callable[[pb.ModelInferRequest], object]) -> bytes:
    request = small_request()
    change(request)
    return request.SerializeToString()


def _second_input(request: pb.ModelInferRequest, name: str) -> None:
    request.inputs.add(name=name, datatype="FP32", shape=[1])
    request.raw_input_contents.append(b"\0\0\0\0")


def _set(field: str, value: Any) -> Callable[[pb.ModelInferRequest], None]:
    return lambda r: setattr(r.inputs[0], field, value)


def _shape(*sizes: int) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        request.inputs[0].shape[:] = sizes

    return change


def _parameter(key: str, **value: Any) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        for field, item in value.items():
            setattr(request.parameters[key], field, item)

    return change


REFUSED: list[tuple[Callable[[pb.ModelInferRequest], object], type[GatewayError], str]] = [
    (lambda r: r.raw_input_contents.append(b""), InvalidRequest, "each of the 1 inputs for model 'm', got 2"),
    (lambda r: r.inputs.add(name="z", datatype="FP32"), InvalidRequest, "unable to match data"),
    (
        lambda r: r.ClearField("raw_input_contents"),
        InvalidRequest,
        "unable to find data for input tensor 'x'",
    ),
    (lambda r: r.inputs[0].contents.fp32_contents.append(1), InvalidRequest, "contents field must not be"),
    (_set("datatype", "FP31"), InvalidRequest, "invalid datatype 'FP31' of input 'x' for model 'm'"),
    (_set("datatype", "FP64"), InvalidRequest, "Expected 16 bytes for datatype FP64 and shape .1, 2., got 8"),
    (_set("name", ""), InvalidRequest, "an input without a name"),
    (_shape(1, -1), InvalidRequest, "contains one or more invalid dimensions"),
    (_shape(3), InvalidRequest, "Expected 12 bytes"),
    (_shape(2**32, 2**32, 2**32), PayloadTooLarge, "more than the"),
    (_shape(0, 2**40), PayloadTooLarge, "more than the"),
    (_shape(*[1] * 33), PayloadTooLarge, "33 axes"),
    (lambda r: _second_input(r, "x"), InvalidRequest, "input 'x' already exists in request"),
    (
        lambda r: [r.outputs.add(name="y") for _ in "ab"],
        InvalidRequest,
        "output 'y' already exists in request",
    ),
    (lambda r: r.outputs.add(), InvalidRequest, "an output without a name"),
    (
        lambda r: r.outputs.add(name="y", parameters={"classification": pb.InferParameter(int64_param=0)}),
        InvalidRequest,
        "must be a positive integer",
    ),
    (
        lambda r: r.outputs.add(
            name="y", parameters={"shared_memory_region": pb.InferParameter(string_param="r")}
        ),
        Unsupported,
        "Client shared memory is disabled",
    ),
    (_parameter("triton_x", bool_param=True), InvalidRequest, "reserved"),
    (_parameter("priority", int64_param=-1), InvalidRequest, "'priority' for model 'm' must be an integer"),
    (_parameter("timeout", string_param="1"), InvalidRequest, "'timeout' for model 'm' must be an integer"),
    (_parameter("sequence_start", int64_param=1), InvalidRequest, "must be a boolean"),
    (_parameter("sequence_id", double_param=1.5), InvalidRequest, "must be an integer or a string"),
    (lambda r: r.parameters["k"].SetInParent(), InvalidRequest, "'k' for model 'm' has no value"),
    (_parameter("k", string_param="x" * 70000), PayloadTooLarge, "longer than 65536 bytes"),
    (lambda r: setattr(r, "id", "i" * 1025), PayloadTooLarge, "the id of a request"),
    (lambda r: setattr(r, "model_name", "m" * 1025), PayloadTooLarge, "the model's name"),
    (lambda r: [r.outputs.add(name=f"y{i}") for i in range(257)], PayloadTooLarge, "257 outputs"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED)
def test_what_can_never_be_served_is_refused(
    change: Callable[[pb.ModelInferRequest], object], error: type[GatewayError], message: str
) -> None:
    """Each malformed request gets its error with a message that names the fault."""
    with pytest.raises(error, match=message):
        decode(_with(change))


def test_shared_memory_inputs_are_refused_in_tritons_words() -> None:
    """An input in shared memory, which has no raw entry, is refused for that and not for the count."""
    value = triton.InferInput("x", [1], "FP32")
    value.set_shared_memory("region", 4)
    other = triton_input(Tensor("z", Datatype.INT8, np.zeros(1, np.int8)))
    for inputs in ([value], [value, other]):
        with pytest.raises(Unsupported, match=r"Start the server with '--allow-client-shm=true' to enable\."):
            decode(triton_request(inputs))


def test_the_empty_final_response_flag_is_kept() -> None:
    """The one reserved parameter that is allowed stays with the request."""
    message = _with(_parameter("triton_enable_empty_final_response", bool_param=True))
    assert decode(message).parameters == {"triton_enable_empty_final_response": True}


def test_booleans_other_than_one_become_one() -> None:
    """A raw BOOL byte of any value but zero is true, with the bit pattern NumPy relies on."""
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"\x00\x02\xff"])
    request.inputs.add(name="x", datatype="BOOL", shape=[3])
    (got,) = decode(request.SerializeToString()).inputs
    assert got.array.tobytes() == b"\x00\x01\x01"


@given(st.binary(max_size=60), st.integers(0, 10**6), st.integers(0, 2))
@settings(max_examples=examples(300))
def test_mutated_messages_are_refused_or_understood(noise: bytes, place: int, kind: int) -> None:
    """Any mutation of a valid message gives a request or one of our errors, never another exception."""
    message = bytearray(VALID)
    at = place % len(message)
    message[at : at + (0, len(noise), len(message))[kind]] = noise
    try:
        request = decode(bytes(message))
    except InvalidRequest:
        return
    except Unsupported:
        return
    assert sum(t.array.size for t in request.inputs) <= len(message)


def _rich() -> bytes:
    request = small_request()
    request.parameters["a"].double_param = 1.5
    request.outputs.add(name="y").parameters["classification"].int64_param = 2
    request.inputs.add(name="b", datatype="BYTES", shape=[2])
    request.raw_input_contents.append(b"\x01\0\0\0a\0\0\0\0")
    return request.SerializeToString()


VALID = _rich()


@given(st.binary(max_size=40), st.integers(0, 10**6), st.booleans())
@settings(max_examples=examples(300))
def test_splitting_agrees_with_the_general_parser(noise: bytes, place: int, replace: bool) -> None:
    """Whatever the protobuf runtime accepts, head and raw views say the same as the whole message."""
    message = bytearray(VALID)
    at = place % len(message)
    message[at : at + (len(noise) if replace else 0)] = noise
    try:
        whole = pb.ModelInferRequest.FromString(bytes(message))
    except Exception:  # noqa: BLE001 - whatever the runtime raises means "not a message"
        return
    try:
        parts = split(bytes(message), CONTEXT)
    except InvalidRequest:
        # The split is stricter in one thing only: groups, which no message of the protocol has.
        assert whole.ByteSize()
        return
    head = pb.ModelInferRequest.FromString(parts.head)
    assert [bytes(view) for view in parts.raw] == list(whole.raw_input_contents)
    whole.ClearField("raw_input_contents")
    assert head == whole


def test_tensors_of_a_large_message_are_views_over_it() -> None:
    """A large message's tensors are read where they arrived, read-only even over a mutable buffer."""
    array = np.arange(1 << 16, dtype=np.float32)
    message = bytearray(triton_request([triton_input(Tensor("x", Datatype.FP32, array))]))
    (got,) = decode_request(message, arrived_s=0.0).inputs
    np.testing.assert_array_equal(got.array, array)
    assert np.shares_memory(got.array, np.frombuffer(message, np.uint8))
    assert not got.array.flags.writeable


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\x2a\x00" * 50_000, "257 inputs, at most 256"),
        (b"\x32\x00" * 50_000, "257 outputs, at most 256"),
        (b"\x3a\x00" * 50_000, "257 raw input contents, at most 256"),
        (b"\x22\x00" * 50_000, "129 parameters, at most 128"),
        (b"\x2a\xc0\x9a\x0c" + b"\x22\x00" * 100_000, "129 parameters of one tensor"),
    ],
)
def test_a_flood_of_empty_messages_is_counted_before_it_is_built(message: bytes, expected: str) -> None:
    """Empty nested messages, tiny on the wire and large in memory, are refused by count."""
    with pytest.raises(PayloadTooLarge, match=expected):
        decode(message)


@pytest.mark.parametrize("message", [b"\xff" * 20, b"\x0a\x05ab", b"\x0b" * 4, b"{}" * 40_000, b"\x00" * 9])
def test_foreign_bytes_are_refused(message: bytes) -> None:
    """Bytes that are no ModelInferRequest are refused, small or large."""
    with pytest.raises(InvalidRequest, match="truncated or is no ModelInferRequest"):
        decode(message)


def test_a_message_beyond_the_limit_is_refused_unread() -> None:
    """The size limit comes before any parsing."""
    with pytest.raises(PayloadTooLarge, match="request of 20 bytes exceeds the maximum allowed size of 10"):
        decode(b"\xff" * 20, limits=ProtocolLimits(max_body_bytes=10))


def test_response_parameters_keep_their_kinds() -> None:
    """Response parameters reach the client as the kinds they have here."""
    response = response_of()
    response.parameters = {"b": True, "i": -3, "u": 2**64 - 1, "f": 0.5, "s": "x"}
    parsed = service_pb2.ModelInferResponse.FromString(encode_response(response))
    got = {k: (v.WhichOneof("parameter_choice"), getattr(v, v.WhichOneof("parameter_choice")))
           for k, v in parsed.parameters.items()}  # fmt: skip
    assert got == {
        "b": ("bool_param", True),
        "i": ("int64_param", -3),
        "u": ("uint64_param", 2**64 - 1),
        "f": ("double_param", 0.5),
        "s": ("string_param", "x"),
    }


def test_outputs_that_are_not_contiguous_are_sent_in_row_major_order() -> None:
    """A strided view over a batch's output is written in the order of its axes."""
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, :, ::2].transpose(1, 0, 2)
    parsed = service_pb2.ModelInferResponse.FromString(
        encode_response(response_of(Tensor("y", Datatype.FP32, array)))
    )
    np.testing.assert_array_equal(triton.InferResult(parsed).as_numpy("y"), array)


def test_stream_messages_carry_a_response_or_an_error() -> None:
    """A stream message holds the whole response, or an error with the id of its request."""
    response = response_of(Tensor("y", Datatype.INT32, np.arange(300, dtype=np.int32)), request_id="q")
    good = service_pb2.ModelStreamInferResponse.FromString(encode_stream_response(response))
    assert not good.error_message
    assert math.prod(triton.InferResult(good.infer_response).as_numpy("y").shape) == 300
    bad = service_pb2.ModelStreamInferResponse.FromString(encode_stream_error("no such model", "q"))
    assert (bad.error_message, bad.infer_response.id) == ("no such model", "q")
