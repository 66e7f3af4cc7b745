from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.core.types import Datatype, InferResponse, ParameterValue, Tensor
from gateway.protocol.json_infer import ReplyForm
from gateway.protocol.json_response import ResponseHeads, encode_response
from tests.properties import examples
from tests.protocol.tensor_strategies import assert_same, bytes_array, response_of, tensors

JSON = ReplyForm({})
BINARY = ReplyForm({}, unlisted_binary=True)


def received(response: Any) -> Any:
    """Return what tritonclient reads from a response."""
    headers = dict(response.headers)
    length = headers.get("Inference-Header-Content-Length")
    assert (response.content_type == "application/octet-stream") == (length is not None)
    body = b"".join(bytes(part) for part in response.body)
    return triton.InferResult.from_response_body(body, header_length=length)


@given(st.lists(tensors(), max_size=3), st.lists(st.booleans(), min_size=3, max_size=3))
def test_tritonclient_reads_binary_outputs_bit_for_bit(outputs: list[Tensor], binary: list[bool]) -> None:
    """Binary outputs are read bit for bit, beside others in JSON."""
    named = [Tensor(f"y{i}", t.datatype, t.array) for i, t in enumerate(outputs)]
    extra = Tensor("j", Datatype.INT64, np.array([[1, -2]]))
    form = ReplyForm({"j": False}, unlisted_binary=True)
    result = received(encode_response(response_of(*named, extra), form))
    assert result.as_numpy("j").tolist() == [[1, -2]]
    for tensor in named:
        assert_same(Tensor(tensor.name, tensor.datatype, result.as_numpy(tensor.name)), tensor, bits=True)


@given(tensors(text=True))
@settings(max_examples=examples(300))
def test_json_outputs_are_read_to_the_very_values(tensor: Tensor) -> None:
    """Outputs in JSON, NaN and Infinity included, are read by tritonclient to the very values."""
    response = encode_response(response_of(tensor), JSON)
    assert response.content_type == "application/json"
    assert response.headers == ()
    value = received(response).as_numpy("x")
    if tensor.datatype is Datatype.BYTES:
        assert [text.encode() for text in value.reshape(-1).tolist()] == tensor.array.reshape(-1).tolist()
    else:
        assert_same(Tensor("x", tensor.datatype, value), tensor, bits=False)


def test_the_response_says_which_version_answered() -> None:
    """Name, version and id are there, and the id only if the request had one."""
    document = received(encode_response(response_of(request_id="q"), JSON)).get_response()
    assert document == {"id": "q", "model_name": "m", "model_version": "3", "outputs": []}
    assert "id" not in received(encode_response(response_of(), JSON)).get_response()


def test_response_parameters_are_sent() -> None:
    """Response parameters are there when there are any."""
    response = response_of()
    response.parameters = {"sequence_id": 4, "ok": True}
    document = received(encode_response(response, JSON)).get_response()
    assert document["parameters"] == {"sequence_id": 4, "ok": True}


def test_data_in_json_is_flat() -> None:
    """However many axes an output has, its data is one array and its shape says the rest."""
    array = np.arange(6, dtype=np.uint64).reshape(1, 2, 3)
    response = encode_response(response_of(Tensor("y", Datatype.UINT64, array)), JSON)
    (output,) = json.loads(bytes(response.body[0]))["outputs"]
    assert output == {"name": "y", "datatype": "UINT64", "shape": [1, 2, 3], "data": [0, 1, 2, 3, 4, 5]}


def test_non_finite_values_are_written_as_tokens() -> None:
    """NaN and the two infinities are the tokens that Triton writes, at their places."""
    array = np.array([np.nan, 1, np.inf, -np.inf, np.nan], np.float32)
    text = bytes(encode_response(response_of(Tensor("y", Datatype.FP32, array)), JSON).body[0])
    assert text.endswith(b'"data":[NaN,1.0,Infinity,-Infinity,NaN]}]}')


@pytest.mark.parametrize(
    ("datatype", "bits"),
    [
        (Datatype.FP16, b"\x01\x7c"),
        (Datatype.BF16, b"\x81\x7f"),
        (Datatype.FP32, b"\x01\x00\x80\x7f"),
        (Datatype.FP64, b"\x01" + bytes(5) + b"\xf0\x7f"),
    ],
)
def test_signalling_nan_is_nan_without_a_warning(datatype: Datatype, bits: bytes) -> None:
    """A NaN of any bit pattern is written as NaN, and warns of nothing."""
    tensor = Tensor("y", datatype, np.frombuffer(bits, datatype.dtype))
    assert b'"data":[NaN]' in bytes(encode_response(response_of(tensor), JSON).body[0])


def test_binary_outputs_that_are_all_empty_leave_plain_json() -> None:
    """With no byte of binary data there is no header and no octet stream, only the size 0."""
    response = encode_response(response_of(Tensor("y", Datatype.FP32, np.zeros((0, 2), np.float32))), BINARY)
    assert (response.content_type, response.headers) == ("application/json", ())
    assert received(response).as_numpy("y").shape == (0, 2)
    assert b'"binary_data_size":0' in bytes(response.body[0])


def test_binary_outputs_are_not_copied() -> None:
    """A contiguous output goes out as a view of its own memory, and such a body is not compressed."""
    array = np.arange(8, dtype=np.float32)
    response = encode_response(response_of(Tensor("y", Datatype.FP32, array)), BINARY)
    assert np.shares_memory(np.frombuffer(response.body[1], np.uint8), array)
    assert not response.compressible


def test_bytes_that_are_no_text_are_refused_in_json_with_advice() -> None:
    """A BYTES output that is not UTF-8 cannot be JSON: the error says to ask for binary data."""
    tensor = Tensor("y", Datatype.BYTES, bytes_array([b"ok", b"\xff\xfe"], (2,)))
    with pytest.raises(InvalidRequest, match=r"output 'y' of model 'm' .* 'binary_data': true"):
        encode_response(response_of(tensor), JSON)
    assert received(encode_response(response_of(tensor), BINARY)).as_numpy("y").tolist() == [
        b"ok",
        b"\xff\xfe",
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from(["FP32", "INT64", "BF16", "BOOL", "BYTES"]), st.integers(0, 2)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(["", "7"]),
    st.lists(
        st.sampled_from([{}, {"p": 1}, {"p": True}, {"p": "a"}, {"p": "b", "q": True}]),
        min_size=3,
        max_size=3,
    ),
    st.booleans(),
)
def test_a_remembered_head_changes_nothing(
    outputs: list[tuple[str, int]], request_id: str, said: list[dict[str, ParameterValue]], binary: bool
) -> None:
    """Whatever was written before, a response reads as if it were the first."""
    heads = ResponseHeads()
    form = ReplyForm({}, unlisted_binary=binary)
    for version, parameters in zip(("1", "2", "1"), said, strict=True):
        tensors = tuple(
            Tensor(
                str(i),
                Datatype(name),
                np.full((rows, 2), b"x" if name == "BYTES" else 1, Datatype(name).dtype),
            )
            for i, (name, rows) in enumerate(outputs)
        )
        response = InferResponse(
            model_name="m",
            model_version=version,
            request_id=request_id,
            outputs=tensors,
            parameters=parameters,
        )
        first, again = encode_response(response, form), encode_response(response, form, heads)
        assert b"".join(map(bytes, first.body)) == b"".join(map(bytes, again.body))
        assert (first.headers, first.content_type) == (again.headers, again.content_type)
        assert first.compressible == again.compressible


def test_heads_are_bounded() -> None:
    """Shapes that never repeat do not fill memory."""
    heads = ResponseHeads()
    for rows in range(1, 600):
        tensor = Tensor("y", Datatype.UINT8, np.zeros((rows,), np.uint8))
        response = InferResponse(model_name="m", model_version="1", outputs=(tensor,))
        encode_response(response, ReplyForm({}, unlisted_binary=True), heads)
    assert len(heads._heads) <= 512


@given(
    st.lists(tensors(), max_size=2),
    st.lists(st.one_of(st.text(max_size=8), st.text("ab9-", min_size=1, max_size=8)), min_size=1, max_size=4),
)
def test_responses_with_ids_are_the_same_with_and_without_memory(
    outputs: list[Tensor], ids: list[str]
) -> None:
    """Byte for byte; and those of one kind have heads and sizes that are the same."""
    heads, kinds = ResponseHeads(), dict[object, tuple[object, int]]()
    named = [Tensor(f"y{i}", tensor.datatype, tensor.array) for i, tensor in enumerate(outputs)]
    for request_id in ids:
        response = response_of(*named, request_id=request_id)
        known, made = encode_response(response, BINARY, heads), encode_response(response, BINARY)
        assert b"".join(map(bytes, known.body)) == b"".join(map(bytes, made.body))
        assert (known.headers, known.content_type) == (made.headers, made.content_type)
        if known.kind is not None:
            form = (known.headers, sum(map(len, known.body)))
            assert kinds.setdefault(known.kind, form) == form
