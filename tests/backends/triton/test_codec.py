"""Requests and responses in Triton's raw form, held against protobuf's own reading of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._proto import open_inference_pb2 as pb
from gateway.backends.triton.codec import CUT_BYTES, Answer, Target, WrongAnswer, decode, encode, size_of
from gateway.backends.triton.shared_memory import Placed
from gateway.backends.triton.wire import Malformed, cut, with_raw
from gateway.core.errors import InvalidRequest
from gateway.core.types import Array, Batch, Datatype, ModelSignature, TensorSpec

PLAIN = [datatype for datatype in Datatype if datatype is not Datatype.BYTES]


def target(datatype: Datatype = Datatype.FP32, **fields: Any) -> Target:
    inputs = (TensorSpec("x", datatype, (-1, -1)), TensorSpec("x2", datatype, (-1, -1), optional=True))
    decoupled = fields.pop("decoupled", False)
    signature = ModelSignature(inputs, (TensorSpec("y", datatype, (-1, -1)),), decoupled)
    return Target("mnist", "3", signature, **fields)


def batch(array: Array, **fields: Any) -> Batch:
    return Batch({"x": array}, len(array), ("y",), **fields)


def sent(batch: Batch, target: Target, **fields: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest.FromString(encode(batch, target, **fields))


def answer(
    array: Array, datatype: Datatype = Datatype.FP32, *, raw: bytes | None = None
) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name="mnist", model_version="3")
    response.outputs.add(name="y", datatype=datatype.value, shape=array.shape)
    response.raw_output_contents.append(array.tobytes() if raw is None else raw)
    return response


def read(response: pb.ModelInferResponse, datatype: Datatype = Datatype.FP32) -> Answer:
    return decode(response.SerializeToString(), target(datatype))


@pytest.mark.parametrize("datatype", PLAIN)
@pytest.mark.parametrize("columns", [3, 40_000])
def test_values_of_every_datatype_come_back(datatype: Datatype, columns: int) -> None:
    """What is sent is what protobuf reads, and what comes back is what was sent, large or small."""
    array = (np.arange(2 * columns) % 100).reshape(2, columns).astype(datatype.dtype)
    request = sent(batch(array), target(datatype))
    assert [(t.name, t.datatype, list(t.shape)) for t in request.inputs] == [
        ("x", datatype.value, [2, columns])
    ]
    assert request.raw_input_contents[0] == array.tobytes()
    got = read(answer(array, datatype), datatype).outputs["y"]
    assert got.dtype == datatype.dtype
    np.testing.assert_array_equal(got, array)
    assert not got.flags.writeable


def test_strings_come_back() -> None:
    """Elements may be empty, end in zeros, and be no UTF-8."""
    array = np.array([[b"a", b""], [b"\x00\xff", b"b\x00"]], object)
    request = sent(batch(array), target(Datatype.BYTES))
    raw = request.raw_input_contents[0]
    assert raw == b"\1\0\0\0a\0\0\0\0\2\0\0\0\x00\xff\2\0\0\0b\x00"
    assert (
        read(answer(array, Datatype.BYTES, raw=raw), Datatype.BYTES).outputs["y"].tolist() == array.tolist()
    )


def test_an_array_that_is_not_laid_out_for_the_wire_is_copied() -> None:
    """A transposed view is sent in row-major order."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert sent(batch(array), target()).raw_input_contents[0] == array.tobytes()


def test_who_is_asked() -> None:
    """Name, version, id and outputs are said, and inputs that were left out are not."""
    request = sent(batch(np.zeros((1, 2), np.float32), request_id="7"), target())
    assert (request.model_name, request.model_version, request.id) == ("mnist", "3", "7")
    assert [output.name for output in request.outputs] == ["y"]
    assert [tensor.name for tensor in request.inputs] == ["x"]
    assert not request.parameters


def test_parameters_are_made_anew() -> None:
    """Custom ones go on with their types; what Triton would take for its own does not."""
    custom = {"b": True, "i": -3, "f": 0.5, "s": "text"}
    own = {
        "triton_enable_empty_final_response": True,
        "sequence_id": 5,
        "priority": 1,
        "timeout": 2,
        "headers": "x",
        "binary_data_output": True,
        "shared_memory_region": "r",
    }
    request = sent(batch(np.zeros((1, 2), np.float32), parameters={**custom, **own}), target())
    assert {key: str(value).strip() for key, value in request.parameters.items()} == {
        "b": "bool_param: true",
        "i": "int64_param: -3",
        "f": "double_param: 0.5",
        "s": 'string_param: "text"',
    }


def test_a_number_that_is_too_large_is_the_requests_fault() -> None:
    """Triton takes no unsigned custom parameters."""
    with pytest.raises(InvalidRequest, match="'u' is 9223372036854775808"):
        sent(batch(np.zeros((1, 2), np.float32), parameters={"u": 1 << 63}), target())


def test_sequences_keep_theirs() -> None:
    """A model with sequences is told which."""
    parameters = {"sequence_id": "abc", "sequence_start": True, "sequence_end": False}
    request = sent(batch(np.zeros((1, 2), np.float32), parameters=parameters), target(sequences=True))
    assert request.parameters["sequence_id"].string_param == "abc"
    assert request.parameters["sequence_start"].bool_param
    assert request.parameters["sequence_end"].WhichOneof("parameter_choice") == "bool_param"


def test_priority_and_timeout_are_said_where_the_queue_takes_them() -> None:
    """A model without such a queue would refuse them, or ignore them."""
    urgent = batch(np.zeros((1, 2), np.float32), priority=2)
    request = sent(urgent, target(priorities=3, timeouts=True), timeout_us=1500)
    assert request.parameters["priority"].uint64_param == 2
    assert request.parameters["timeout"].int64_param == 1500
    assert not sent(urgent, target(), timeout_us=1500).parameters
    assert not sent(urgent, target(priorities=1)).parameters


def test_decoupled_models_are_asked_for_their_last_response() -> None:
    """Also when it is empty."""
    request = sent(batch(np.zeros((1, 2), np.float32)), target(decoupled=True))
    assert request.parameters["triton_enable_empty_final_response"].bool_param


def test_tensors_in_shared_memory_are_named_and_not_sent() -> None:
    """The others are sent as ever, in their order."""
    both = Batch({"x": np.zeros((1, 2), np.float32), "x2": np.ones((1, 2), np.float32)}, 1, ("y",))
    request = sent(both, target(), placed=Placed("r", {"x": (0, 8)}, {"y": (64, 8)}))
    assert [len(tensor.parameters) for tensor in request.inputs] == [2, 0]
    assert request.inputs[0].parameters["shared_memory_region"].string_param == "r"
    assert list(request.raw_input_contents) == [np.ones((1, 2), np.float32).tobytes()]
    assert request.outputs[0].parameters["shared_memory_offset"].int64_param == 64
    assert request.outputs[0].parameters["shared_memory_byte_size"].int64_param == 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: setattr(r, "model_version", "4"), "version 4 answered"),
        (lambda r: setattr(r.outputs[0], "name", "z"), "does not have"),
        (lambda r: setattr(r.outputs[0], "datatype", "FP64"), "datatype FP64"),
        (lambda r: r.outputs[0].shape.append(2), "in 16 bytes"),
        (lambda r: r.outputs[0].shape.__setitem__(0, -2), "of shape"),
        (lambda r: r.raw_output_contents.append(b""), "1 outputs with 2"),
        (lambda r: r.raw_output_contents.__delitem__(0), "1 outputs with 0"),
    ],
)
def test_wrong_answers_are_found(change: Any, words: str) -> None:
    """An answer of another version, or that is not as the signature says, is none."""
    response = answer(np.zeros((2, 2), np.float32))
    change(response)
    with pytest.raises(WrongAnswer, match=words):
        read(response)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\1\0\0\0",
        b"\1\0\0\0a\1\0",
        b"\1\0\0\0a\0\0\0\0\0\0\0\0",
        b"\xff\xff\xff\xffa\0\0\0\0",
    ],
)
def test_strings_that_are_cut_off_are_found(raw: bytes) -> None:
    """Too few, too many, or beyond the end."""
    with pytest.raises(WrongAnswer, match="'y'"):
        read(answer(np.zeros((1, 2), object), Datatype.BYTES, raw=raw), Datatype.BYTES)


def test_booleans_are_made_0_and_1() -> None:
    """NumPy relies on it."""
    array = read(answer(np.zeros((1, 3), np.bool_), Datatype.BOOL, raw=b"\0\1\7"), Datatype.BOOL).outputs["y"]
    assert array.view(np.uint8).tolist() == [[0, 1, 1]]


def test_bytes_that_are_no_message() -> None:
    """Garbage is a wrong answer, whatever its size."""
    for garbage in (b"\xff\xff", b"\x0b" * CUT_BYTES, b"\x32\xff\xff\xff\x7f" + bytes(CUT_BYTES)):
        with pytest.raises(WrongAnswer, match="not a ModelInferResponse"):
            decode(garbage, target())


def test_no_rows_and_no_columns() -> None:
    """Empty tensors have no bytes."""
    array = np.zeros((2, 0), np.float32)
    assert sent(batch(array), target()).raw_input_contents[0] == b""
    assert read(answer(array)).outputs["y"].shape == (2, 0)


def test_sizes_are_estimated() -> None:
    """Strings by a sample of them."""
    assert size_of(batch(np.zeros((2, 3), np.float32))) == 24
    strings = np.empty((1, 1000), object)
    strings[:] = b"12345678"
    assert size_of(batch(strings)) == 12_000


@given(st.lists(st.binary(max_size=300), max_size=5), st.text(max_size=200), st.integers(0, 3))
def test_cutting_and_joining_are_protobufs(raw: list[bytes], name: str, outputs: int) -> None:
    """The head is what remains without raw contents; these come out in order, wherever they stand."""
    response = pb.ModelInferResponse(model_name=name, id="i")
    for number in range(outputs):
        response.outputs.add(name=str(number), shape=[1, number])
    bare = response.SerializeToString()
    response.raw_output_contents.extend(raw)
    head, found = cut(response.SerializeToString())
    assert pb.ModelInferResponse.FromString(head) == pb.ModelInferResponse.FromString(bare)
    assert [bytes(view) for view in found] == raw
    request = pb.ModelInferRequest(model_name=name)
    joined = with_raw(request.SerializeToString(), raw)
    request.raw_input_contents.extend(raw)
    assert pb.ModelInferRequest.FromString(joined) == request


@given(st.binary(max_size=100))
def test_cutting_garbage_ends(garbage: bytes) -> None:
    """Bytes that are no message are refused, or cut somehow."""
    try:
        head, raw = cut(garbage)
    except Malformed:
        return
    assert len(head) + sum(map(len, raw)) <= len(garbage)
