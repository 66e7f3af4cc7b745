import json
import math

import numpy as np
import pytest

from gateway.commands.failure import CommandFailed
from gateway.commands.samples import SampleOptions, sample_tensor
from gateway.commands.wire import HEADER_LENGTH, decode_response, encode_request, object_array
from gateway.core.types import Datatype, Tensor, TensorSpec


@pytest.mark.parametrize("shape", [(3, 2), (0, 2), (1,), ()])
@pytest.mark.parametrize("datatype", list(Datatype))
def test_a_request_read_as_an_answer_gives_the_tensors_back(
    datatype: Datatype, shape: tuple[int, ...]
) -> None:
    """Binary encoding and decoding agree for every datatype, with empty tensors and scalars."""
    sent = [
        sample_tensor(TensorSpec("a", datatype, shape, None), SampleOptions()),
        sample_tensor(TensorSpec("b", Datatype.INT32, (2,), None), SampleOptions()),
    ]
    headers, body = encode_request(sent)
    end = int(headers[HEADER_LENGTH])
    head = json.loads(body[:end])
    answer = json.dumps({"outputs": head["inputs"]}).encode()
    _, got = decode_response({HEADER_LENGTH: str(len(answer))}, answer + body[end:])
    for before, after in zip(sent, got, strict=True):
        assert (after.name, after.datatype) == (before.name, before.datatype)
        assert after.array.dtype == before.array.dtype
        np.testing.assert_array_equal(after.array, before.array)


def test_bytes_keep_trailing_zeros() -> None:
    """Strings that end in zero bytes, or are empty, arrive whole."""
    sent = Tensor("a", Datatype.BYTES, object_array([b"x\0\0", b"", b"\xff"]))
    headers, body = encode_request([sent])
    end = int(headers[HEADER_LENGTH])
    answer = json.dumps({"outputs": json.loads(body[:end])["inputs"]}).encode()
    _, (got,) = decode_response({HEADER_LENGTH: str(len(answer))}, answer + body[end:])
    assert got.array.tolist() == [b"x\0\0", b"", b"\xff"]


def test_json_outputs_are_read_too() -> None:
    """An answer without binary parts gives the same tensors, NaN included."""
    output = b'{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [NaN, 2]}'
    body = b'{"model_name": "m", "outputs": [' + output + b"]}"
    document, (tensor,) = decode_response({}, body)
    assert document == {"model_name": "m"}
    assert math.isnan(tensor.array[0, 0])
    assert tensor.array[0, 1] == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"outputs": [{"name": "y", "datatype": "FP31", "shape": [1], "data": [1]}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [3], "data": [1]}]}',
        b'{"outputs": [{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}',
        b'{"outputs": [{"name":"y","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":2}}]}ab',
    ],
)
def test_answers_that_break_the_protocol_say_so(body: bytes) -> None:
    """Whatever the server sent, the command ends with a message and not with a traceback."""
    headers = {HEADER_LENGTH: str(len(body) - 2)} if body.endswith(b"ab") else {}
    with pytest.raises(CommandFailed, match="does not follow the protocol"):
        decode_response(headers, body)
