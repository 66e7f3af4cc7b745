from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gateway.core.errors import GatewayError, InvalidRequest, PayloadTooLarge
from gateway.core.types import Datatype, InferRequest, ModelSignature, Tensor, TensorSpec
from gateway.protocol.generate import decode_generate, generate_json
from gateway.protocol.json_infer import HttpInferCall
from gateway.protocol.limits import ProtocolLimits
from tests.protocol.tensor_strategies import bytes_array, response_of

SIGNATURE = ModelSignature(
    inputs=(
        TensorSpec("text_input", Datatype.BYTES, (-1, 1)),
        TensorSpec("tokens", Datatype.INT32, (-1, -1)),
        TensorSpec("scale", Datatype.FP32, (1,), batch_axis=None),
        TensorSpec("stop", Datatype.BOOL, (-1, 2)),
    ),
    outputs=(),
)


def decode(body: bytes) -> InferRequest:
    return decode_generate(body, HttpInferCall(model_name="m", arrived_s=5.0), SIGNATURE)


def test_members_named_like_inputs_are_tensors_and_others_parameters() -> None:
    """Values become tensors in the signature's shape; the rest, nested parameters included, parameters."""
    body = {
        "text_input": "héllo",
        "tokens": [[1, 2], [3]],
        "scale": 2,
        "id": "q",
        "temperature": 0.5,
        "parameters": {"stop": [True, False], "stream": True, "priority": 1, "timeout": 1000},
    }
    request = decode(json.dumps(body).encode())
    got = {t.name: (t.datatype, t.array.shape, t.array.tolist()) for t in request.inputs}
    assert got == {
        "text_input": (Datatype.BYTES, (1, 1), [["héllo".encode()]]),
        "tokens": (Datatype.INT32, (1, 3), [[1, 2, 3]]),
        "scale": (Datatype.FP32, (1,), [2.0]),
        "stop": (Datatype.BOOL, (1, 2), [[True, False]]),
    }
    assert request.request_id == "q"
    assert dict(request.parameters) == {"temperature": 0.5, "stream": True}
    assert (request.priority, request.deadline_s) == (1, 5.001)


def test_a_value_alone_may_be_nan() -> None:
    """NaN is read in a value alone as it is in an array."""
    (got,) = decode(b'{"scale":NaN}').inputs
    assert np.isnan(got.array).tolist() == [True]


REFUSED: list[tuple[bytes, type[GatewayError], str]] = [
    (b"", InvalidRequest, "empty body"),
    (b"[]", InvalidRequest, "must be an object"),
    (b'{"tokens":"a"}', InvalidRequest, "input 'tokens' for model 'm' must be integers"),
    (b'{"tokens":null}', InvalidRequest, "must be a boolean, a number, a string or an array"),
    (b'{"tokens":{}}', InvalidRequest, "must be a boolean, a number, a string or an array"),
    (b'{"scale":[1,2]}', InvalidRequest, "2 elements do not fill shape .1."),
    (b'{"stop":[true]}', InvalidRequest, "1 elements do not fill shape .-1, 2."),
    (b'{"k":[1]}', InvalidRequest, "parameter 'k' for model 'm' must be"),
    (b'{"k":1,"parameters":{"k":2}}', InvalidRequest, "has member 'k' twice"),
    (b'{"parameters":1}', InvalidRequest, "'parameters' for model 'm' must be a JSON object"),
    (b'{"id":1}', InvalidRequest, "the id for model 'm' must be a string"),
    (b'{"temperature":NaN}', InvalidRequest, "floating-point inputs only"),
]


@pytest.mark.parametrize(("body", "error", "message"), REFUSED)
def test_what_can_never_be_served_is_refused(body: bytes, error: type[GatewayError], message: str) -> None:
    """Each malformed request is refused with a message that names the fault."""
    with pytest.raises(error, match=message):
        decode(body)


def test_a_body_beyond_the_limit_is_refused_unread() -> None:
    """The size limit comes before any parsing."""
    with pytest.raises(PayloadTooLarge):
        decode_generate(
            b"x" * 9, HttpInferCall(model_name="m"), SIGNATURE, limits=ProtocolLimits(max_body_bytes=8)
        )


def test_the_response_is_one_object_of_outputs() -> None:
    """An output of one element is a value, others are flat arrays, beside model name and version."""
    response = response_of(
        Tensor("text_output", Datatype.BYTES, bytes_array([b"hi"], (1, 1))),
        Tensor("scores", Datatype.FP32, np.array([[0.5, np.nan]], np.float32)),
        Tensor("none", Datatype.INT8, np.zeros(0, np.int8)),
        request_id="q",
    )
    got: dict[str, Any] = json.loads(generate_json(response))
    assert np.isnan(got["scores"].pop())
    assert got == {
        "id": "q",
        "model_name": "m",
        "model_version": "3",
        "text_output": "hi",
        "scores": [0.5],
        "none": [],
    }
