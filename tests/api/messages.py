"""Request messages that the tests send, and readers of the answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway._proto import open_inference_pb2 as pb


def infer(
    values: list[list[float]] | None = None,
    *,
    model: str = "rows",
    request_id: str = "",
    version: str = "",
    classes: int = 0,
    **parameters: bool,
) -> bytes:
    """Return a ModelInferRequest with one FP32 input `x` of two columns."""
    array = np.array([[1.0, 2.0]] if values is None else values, np.float32)
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    message.inputs.add(name="x", datatype="FP32", shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    if classes:
        message.outputs.add(name="x").parameters["classification"].int64_param = classes
    for name, value in parameters.items():
        message.parameters[name].bool_param = value
    return message.SerializeToString()


def rows_of(message: pb.ModelInferResponse) -> Any:
    """Return the values of the first output as nested lists."""
    array = np.frombuffer(message.raw_output_contents[0], np.float32)
    return array.reshape(message.outputs[0].shape).tolist()


def stream_response(message: bytes) -> pb.ModelStreamInferResponse:
    """Read one response of a stream."""
    return pb.ModelStreamInferResponse.FromString(message)
