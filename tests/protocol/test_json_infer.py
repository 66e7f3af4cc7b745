from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http._utils import _get_inference_request

from gateway.core.errors import GatewayError, InvalidRequest, PayloadTooLarge, Unsupported
from gateway.core.types import Datatype, ModelSignature, Tensor, TensorSpec
from gateway.protocol.json_infer import DecodedRequest, HttpInferCall, decode_request
from gateway.protocol.limits import DEFAULT_LIMITS, ProtocolLimits
from tests.properties import examples
from tests.protocol.tensor_strategies import assert_same, bytes_array, tensors

JSON_TYPES = tuple(d for d in Datatype if d is not Datatype.BF16)  # which tritonclient sends as binary only


def signature_of(*inputs: TensorSpec) -> ModelSignature:
    return ModelSignature(inputs, ())


def no_signature() -> ModelSignature:
    raise AssertionError("the signature is for raw binary requests only")


def decode(
    body: bytes | bytearray | memoryview,
    header_length: int | str | None = None,
    limits: ProtocolLimits = DEFAULT_LIMITS,
    deadline_s: float | None = None,
) -> DecodedRequest:
    headers = {} if header_length is None else {"inference-header-content-length": str(header_length)}
    call = HttpInferCall(model_name="m", arrived_s=100.0, deadline_s=deadline_s, headers=headers)
    return decode_request(body, call, signature=no_signature, limits=limits)


def triton_body(
    inputs: list[Any], outputs: list[Any] | None = None, **options: Any
) -> tuple[bytes, int | None]:
    defaults: dict[str, Any] = {
        "request_id": "",
        "sequence_id": 0,
        "sequence_start": False,
        "sequence_end": False,
        "priority": 0,
        "timeout": None,
        "custom_parameters": None,
    }
    return _get_inference_request(inputs=inputs, outputs=outputs, **(defaults | options))  # type: ignore[no-any-return]


def triton_input(tensor: Tensor, *, binary: bool) -> Any:
    value = triton.InferInput(tensor.name, list(tensor.array.shape), tensor.datatype.value)
    value.set_data_from_numpy(tensor.array, binary_data=binary)
    return value


@given(tensor=tensors(), second=tensors(name="z"), mixed=st.booleans())
def test_tritonclients_binary_tensors_arrive_bit_for_bit(tensor: Tensor, second: Tensor, mixed: bool) -> None:
    """Binary tensors behind the JSON are read bit for bit, also beside one in JSON."""
    inputs = [triton_input(tensor, binary=True), triton_input(second, binary=True)]
    if mixed:
        middle = Tensor("j", Datatype.INT64, np.array([1, -2]))
        inputs.insert(1, triton_input(middle, binary=False))
    body, length = triton_body(inputs)
    got = decode(body, length).request.inputs
    assert_same(got[0], tensor, bits=True)
    assert_same(got[-1], second, bits=True)
    assert len(got) == len(inputs)


@given(tensor=tensors(JSON_TYPES, text=True))
@settings(max_examples=examples(300))
def test_tritonclients_json_tensors_arrive_unchanged(tensor: Tensor) -> None:
    """Tensors in JSON, NaN and Infinity included, are read to the very values."""
    body, length = triton_body([triton_input(tensor, binary=False)])
    assert length is None
    (got,) = decode(body).request.inputs
    assert_same(got, tensor, bits=False)
    assert not got.array.flags.writeable


@given(tensor=tensors(tuple(d for d in Datatype if d is not Datatype.BYTES), finite=True))
def test_nested_data_is_read_like_flat_data(tensor: Tensor) -> None:
    """Nested arrays give the same tensor as flat ones, BF16 included."""
    array = tensor.array.astype(np.float32) if tensor.datatype is Datatype.BF16 else tensor.array
    data = array.tolist() if array.ndim else [array.item()]
    (got,) = decode(
        one_input(datatype=tensor.datatype.value, shape=list(array.shape), data=data)
    ).request.inputs
    assert_same(got, tensor, bits=False)


def test_everything_tritonclient_may_say_is_understood() -> None:
    """Id, priority, timeout, sequence and custom parameters and outputs reach request and reply form."""
    outputs = [
        triton.InferRequestedOutput("y", binary_data=True),
        triton.InferRequestedOutput("z", binary_data=False, class_count=3),
    ]
    tensor = Tensor("x", Datatype.INT8, np.zeros((2, 3), np.int8))
    body, length = triton_body(
        [triton_input(tensor, binary=True)],
        outputs,
        request_id="id-1",
        sequence_id=9,
        sequence_end=True,
        priority=2,
        timeout=1_500_000,
        custom_parameters={"tag": "blue", "scale": 0.5},
    )
    request, form = decode(body, length, deadline_s=200.0)
    assert (request.request_id, request.priority, request.deadline_s) == ("id-1", 2, 101.5)
    assert dict(request.parameters) == {
        "sequence_id": 9,
        "sequence_start": False,
        "sequence_end": True,
        "tag": "blue",
        "scale": 0.5,
    }
    assert [(o.name, o.classification) for o in request.outputs] == [("y", 0), ("z", 3)]
    assert [form.is_binary(name) for name in "yzw"] == [True, False, False]
    assert request.received_bytes == len(body)


def test_without_outputs_tritonclient_gets_them_all_binary() -> None:
    """binary_data_output makes every output binary that the request does not list."""
    body, length = triton_body([triton_input(Tensor("x", Datatype.INT8, np.zeros(1, np.int8)), binary=True)])
    request, form = decode(body, length)
    assert form.is_binary("anything")
    assert not request.parameters


def test_binary_data_output_leaves_listed_outputs_in_json() -> None:
    """An output that is listed without binary_data stays JSON, as in Triton's code."""
    body = request_json(outputs=[{"name": "y"}], parameters={"binary_data_output": True})
    form = decode(body).form
    assert not form.is_binary("y")
    assert form.is_binary("z")


def request_json(**members: Any) -> bytes:
    default = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2.5]}]}
    return json.dumps(default | members).encode()


def one_input(**members: Any) -> bytes:
    default = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2.5]}
    fields = {k: v for k, v in (default | members).items() if v is not None}
    return json.dumps({"inputs": [fields]}).encode()


def test_integers_among_floats_are_floats() -> None:
    """`[1, 2.5]` is valid floating-point data."""
    (got,) = decode(request_json()).request.inputs
    assert got.array.tolist() == [1.0, 2.5]


def test_whole_numbers_as_javascript_writes_them_are_floats() -> None:
    """Integers beyond 64 bits are valid floating-point data."""
    body = one_input(datatype="FP64", data=[10**20, -(10**20)])
    assert decode(body).request.inputs[0].array.tolist() == [1e20, -1e20]


def data_error(datatype: str, data: str, shape: str = "[1]") -> bytes:
    return f'{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}'.encode()


DATA_ERRORS = [
    ("INT8", "[128]", "out of range for INT8"),
    ("INT8", "[-129]", "out of range for INT8"),
    ("UINT8", "[256]", "out of range for UINT8"),
    ("UINT8", "[-1]", "out of range for UINT8"),
    ("INT32", "[2147483648]", "out of range for INT32"),
    ("INT64", "[9223372036854775808]", "out of range for INT64"),
    ("UINT64", "[-1]", "out of range for UINT64"),
    ("UINT64", "[18446744073709551616]", "must be integers, as datatype UINT64"),
    ("INT64", "[1.0]", "must be integers, as datatype INT64"),
    ("INT64", "[true]", "must be integers"),
    ("INT64", "[NaN]", "must be integers"),
    ("FP32", "[1e39]", "out of range for FP32"),
    ("FP32", "[-1e39]", "out of range for FP32"),
    ("FP16", "[70000]", "out of range for FP16"),
    ("BF16", "[1e39]", "out of range for BF16"),
    ("FP32", '["a"]', "must be numbers, as datatype FP32"),
    ("FP32", "[null]", "must be numbers"),
    ("FP32", "[{}]", "must be numbers"),
    ("FP32", "1", "must be an array"),
    ("FP32", "null", "must be an array"),
    ("FP32", "[1,2]", "expects 1 elements, got 2 or more"),
    ("FP32", "[[1,2]]", "expects 1 elements, got 2 or more"),
    ("FP32", "[]", "expects 1 elements, got 0"),
    ("BOOL", "[1]", "must be booleans"),
    ("BOOL", "[true,[false,true]]", "expects 1 elements, got 2 or more"),
    ("BYTES", "[1]", "must be strings"),
    ("BYTES", '["a","b"]', "expects 1 elements, got 2 or more"),
    ("BYTES", "[]", "expects 1 elements, got 0"),
]


@pytest.mark.parametrize(("datatype", "data", "message"), DATA_ERRORS)
def test_data_that_does_not_fit_is_refused(datatype: str, data: str, message: str) -> None:
    """Wrong kinds, counts and ranges are refused by name; no value is wrapped or rounded to infinity."""
    with pytest.raises(InvalidRequest, match=message) as caught:
        decode(data_error(datatype, data))
    assert "'x' for model 'm'" in str(caught.value)


def test_a_flood_of_empty_arrays_is_not_walked_to_its_end() -> None:
    """Strings are looked for in a bounded number of arrays, however large the body."""
    with pytest.raises(InvalidRequest, match="input 'x' for model 'm' has too many nested arrays"):
        decode(data_error("BYTES", "[[" + "[]," * 1_000_001 + '"a"]]'))


@pytest.mark.parametrize(("datatype", "value"), [("FP16", 65504.0), ("FP32", 3.4028234663852886e38)])
def test_the_largest_finite_value_is_not_out_of_range(datatype: str, value: float) -> None:
    """The range check refuses nothing that the datatype holds, and Infinity stays allowed."""
    body = data_error(datatype, f"[{value},Infinity]", "[2]")
    assert decode(body).request.inputs[0].array.tolist() == [value, float("inf")]


SHARED = {"shared_memory_region": "r", "shared_memory_byte_size": 4}

REFUSED: list[tuple[bytes, type[GatewayError], str]] = [
    (b"", InvalidRequest, "empty body"),
    (b"{}", InvalidRequest, "must have an array of 'inputs'"),
    (request_json(inputs={}), InvalidRequest, "must have an array of 'inputs'"),
    (request_json(inputs=[1]), InvalidRequest, "an input for model 'm' must be a JSON object"),
    (request_json(id=5), InvalidRequest, "the id for model 'm' must be a string"),
    (request_json(id="i" * 1025), PayloadTooLarge, "longer than 1024 bytes"),
    (request_json(parameters=[]), InvalidRequest, "'parameters' of the request for model 'm' must be a JSON"),
    (request_json(parameters={"k": None}), InvalidRequest, "parameter 'k' for model 'm' must be a boolean"),
    (request_json(parameters={"k": [1]}), InvalidRequest, "parameter 'k' for model 'm' must be a boolean"),
    (request_json(parameters={"triton_x": 1}), InvalidRequest, "reserved"),
    (
        request_json(parameters={"priority": -1}),
        InvalidRequest,
        "'priority' for model 'm' must be an integer",
    ),
    (request_json(parameters={"timeout": 1.5}), InvalidRequest, "'timeout' for model 'm' must be an integer"),
    (request_json(parameters={"binary_data_output": 1}), InvalidRequest, "must be a boolean"),
    (request_json(parameters={str(i): 1 for i in range(129)}), PayloadTooLarge, "129 members in"),
    (request_json(outputs={}), InvalidRequest, "'outputs' of the request for model 'm' must be an array"),
    (request_json(outputs=[{}]), InvalidRequest, "an output's name"),
    (request_json(outputs=[{"name": "y"}] * 2), InvalidRequest, "output 'y' already exists in request"),
    (request_json(outputs=[{"name": str(i)} for i in range(257)]), PayloadTooLarge, "257 outputs"),
    (
        request_json(outputs=[{"name": "y", "parameters": {"classification": True}}]),
        InvalidRequest,
        "must be a positive integer",
    ),
    (request_json(outputs=[{"name": "y", "parameters": {"binary_data": 1}}]), InvalidRequest, "a boolean"),
    (request_json(outputs=[{"name": "y", "parameters": SHARED}]), Unsupported, "shared memory is disabled"),
    (one_input(parameters=SHARED, data=None), Unsupported, "shared memory is disabled"),
    (one_input(name=""), InvalidRequest, "an input without a name"),
    (one_input(name=None), InvalidRequest, "an input's name for model 'm' must be a string"),
    (one_input(datatype="STRING"), InvalidRequest, "invalid datatype 'STRING' of input 'x' for model 'm'"),
    (one_input(datatype=None), InvalidRequest, "the datatype of input 'x'"),
    (one_input(shape=None), InvalidRequest, "the shape of input 'x' for model 'm' must be an array"),
    (one_input(shape=[2.0]), InvalidRequest, "must be an array of integers"),
    (one_input(shape=[True]), InvalidRequest, "must be an array of integers"),
    (one_input(shape=[-1]), InvalidRequest, "invalid dimensions"),
    (one_input(shape=[2**32, 2**32, 2**32]), PayloadTooLarge, "more than the"),
    (one_input(shape=[1] * 33), PayloadTooLarge, "33 axes"),
    (one_input(data=None), InvalidRequest, "exactly one of 'data' and"),
    (one_input(parameters={"binary_data_size": 8}), InvalidRequest, "exactly one of 'data' and"),
    (one_input(parameters={"binary_data_size": 8}, data=None), InvalidRequest, "from 0 to the 0 bytes left"),
    (one_input(parameters={"binary_data_size": "8"}, data=None), InvalidRequest, "got '8'"),
    (request_json(inputs=[json.loads(one_input())["inputs"][0]] * 2), InvalidRequest, "'x' already exists"),
    (b'{"id":"a","id":"b","inputs":[]}', InvalidRequest, "has a member twice"),
    (b'{"id\\u0000":"a","inputs":[]}', InvalidRequest, "has a member with a zero in its name"),
    (
        data_error("FP32", "[NaN]").replace(b'"name"', b'"k":NaN,"name"'),
        InvalidRequest,
        "NaN and Infinity are",
    ),
]


@pytest.mark.parametrize(("body", "error", "message"), REFUSED)
def test_what_can_never_be_served_is_refused(body: bytes, error: type[GatewayError], message: str) -> None:
    """Each malformed request gets its error with a message that names the fault."""
    with pytest.raises(error, match=message):
        decode(body)


BINARY = one_input(parameters={"binary_data_size": 8}, data=None)


@pytest.mark.parametrize(
    ("tail", "length", "message"),
    [
        (b"\0" * 8, "-1", "integer from 0 to"),
        (b"\0" * 8, "+5", "integer from 0 to"),
        (b"\0" * 8, "9" * 5000, "integer from 0 to"),
        (b"\0" * 8, len(BINARY) + 9, "integer from 0 to"),
        (b"\0" * 7, len(BINARY), "from 0 to the 7 bytes left, got 8"),
        (b"\0" * 9, len(BINARY), "unexpected additional input data for model 'm': 1 bytes"),
        (b"\0" * 8, len(BINARY) - 1, "failed to parse"),
    ],
)
def test_header_and_tail_that_disagree_are_refused(tail: bytes, length: int | str, message: str) -> None:
    """A header length or a tail that does not fit the inputs is refused."""
    with pytest.raises(InvalidRequest, match=message):
        decode(BINARY + tail, length)


def test_a_binary_tensor_of_the_wrong_size_is_refused() -> None:
    """A binary_data_size that is not what datatype and shape ask for is refused."""
    body = one_input(parameters={"binary_data_size": 7}, data=None)
    with pytest.raises(InvalidRequest, match=r"Expected 8 bytes for datatype FP32 and shape .2., got 7"):
        decode(body + bytes(7), len(body))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_binary_tensors_are_views_over_the_body(kind: type) -> None:
    """A binary tensor is read where it arrived, read-only, and charged the whole body it keeps alive."""
    body = kind(BINARY + np.array([1, 2], np.float32).tobytes())
    request = decode(body, len(BINARY)).request
    (got,) = request.inputs
    assert np.shares_memory(got.array, np.frombuffer(body, np.uint8))
    assert not got.array.flags.writeable
    assert request.received_bytes == len(body)


def test_a_body_beyond_the_limit_is_refused_unread() -> None:
    """The size limit comes before any parsing."""
    with pytest.raises(PayloadTooLarge, match="request of 20 bytes exceeds"):
        decode(b"x" * 20, limits=ProtocolLimits(max_body_bytes=10))


def raw_request(body: bytes, *inputs: TensorSpec) -> DecodedRequest:
    call = HttpInferCall(model_name="m", headers={"inference-header-content-length": "0"})
    return decode_request(body, call, signature=lambda: signature_of(*inputs))


@pytest.mark.parametrize(
    ("spec", "body", "expected"),
    [
        (TensorSpec("x", Datatype.FP32, (-1, 2)), bytes(8), np.zeros((1, 2), np.float32)),
        (TensorSpec("x", Datatype.INT16, (-1, -1, 2)), bytes(12), np.zeros((1, 3, 2), np.int16)),
        (TensorSpec("x", Datatype.UINT8, (3,), batch_axis=None), bytes(3), np.zeros(3, np.uint8)),
        (TensorSpec("x", Datatype.UINT8, (-1,), batch_axis=None), b"", np.zeros(0, np.uint8)),
        (TensorSpec("x", Datatype.BYTES, (-1, 1)), b"\x89PNG\0", bytes_array([b"\x89PNG\0"], (1, 1))),
    ],
)
def test_a_raw_binary_request_is_the_models_only_input(spec: TensorSpec, body: bytes, expected: Any) -> None:
    """With a header length of 0 the body is one row of the only input, and every output is binary."""
    request, form = raw_request(body, spec)
    assert_same(request.inputs[0], Tensor("x", spec.datatype, expected), bits=True)
    assert form.is_binary("y")


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ((), "needs a model with one input, model 'm' has 0"),
        ((TensorSpec("x", Datatype.FP32, (1,)), TensorSpec("z", Datatype.FP32, (1,))), "has 2"),
        ((TensorSpec("x", Datatype.FP32, (-1, -1, -1)),), "more than one axis"),
        ((TensorSpec("x", Datatype.FP32, (-1, 3)),), "Expected 12 bytes"),
        ((TensorSpec("x", Datatype.FP32, (-1, -1, 3)),), "Expected 0 bytes .* got 5"),
        ((TensorSpec("x", Datatype.BYTES, (-1, 2)),), "must take one BYTES element"),
    ],
)
def test_a_raw_binary_request_that_cannot_be_told_is_refused(
    specs: tuple[TensorSpec, ...], message: str
) -> None:
    """A body whose shape does not follow from the signature is refused."""
    with pytest.raises(InvalidRequest, match=message):
        raw_request(bytes(5), *specs)


VALID = (
    b'{"id":"a","parameters":{"priority":1},"inputs":[{"name":"x","shape":[2,1],"datatype":"FP32","data":[[1],[NaN]]},'
    b'{"name":"s","shape":[1],"datatype":"BYTES","data":["\\u00e9"]},'
    b'{"name":"b","shape":[4],"datatype":"UINT8","parameters":{"binary_data_size":4}}],'
    b'"outputs":[{"name":"y","parameters":{"classification":2,"binary_data":true}}]}'
)


def test_the_message_that_is_mutated_is_valid() -> None:
    """The fuzz test below starts from a request that decodes."""
    assert len(decode(VALID + b"abcd", len(VALID)).request.inputs) == 3


@given(
    noise=st.binary(max_size=12)
    | st.sampled_from([b"[", b"]", b'"', b"9" * 25, b"-", b"NaN", b"null", b"1e999"]),
    place=st.integers(0, 10**6),
    cut=st.integers(0, 12),
    shift=st.integers(-3, 3),
)
@settings(max_examples=examples(500))
def test_mutated_requests_are_refused_or_understood(noise: bytes, place: int, cut: int, shift: int) -> None:
    """Any mutation of a valid request gives a request or one of our errors, never another exception."""
    at = place % len(VALID)
    head = VALID[:at] + noise + VALID[at + cut :]
    try:
        request, _ = decode(head + b"abcd", len(head) + shift)
    except (InvalidRequest, Unsupported):
        return
    assert sum(t.array.size for t in request.inputs) <= len(head) + 4
