"""Write a multi-layer perceptron as an ONNX model with a symbolic batch axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]

# Old enough for every ONNX Runtime that the package admits, and for the servers it is compared with.
_OPSET = 17
_IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class Names:
    """What the model's graph, input and output are called."""

    graph: str
    input: str
    output: str


def mlp(names: Names, layers: Sequence[tuple[Floats, Floats]], *, softmax: bool) -> onnx.ModelProto:
    """Build Gemm, Relu, Gemm, ... from weights, closed by Softmax where asked.

    Args:
        names: Graph, input and output names.
        layers: Per layer the weights `[fan_in, fan_out]` and the bias `[fan_out]`, float32.
        softmax: Turn the last layer's sums into probabilities.

    Returns:
        A checked model: float32 `[batch, fan_in]` to float32 `[batch, fan_out]`, the first axis symbolic.

    Raises:
        ValueError: No layer was given.
        onnx.checker.ValidationError: The layers' shapes do not fit each other.
    """
    if not layers:
        raise ValueError(f"{names.graph}: a perceptron needs at least one layer")
    graph = helper.make_graph(
        _nodes(names, len(layers), softmax=softmax),
        names.graph,
        [_rows(names.input, layers[0][0].shape[0])],
        [_rows(names.output, layers[-1][0].shape[1])],
        [tensor for i, layer in enumerate(layers) for tensor in _initialisers(i, layer)],
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="gateway")
    onnx.checker.check_model(model, full_check=True)
    return model


def _nodes(names: Names, depth: int, *, softmax: bool) -> list[onnx.NodeProto]:
    nodes = []
    last_sum = "logits" if softmax else names.output
    value = names.input
    for i in range(depth):
        total = last_sum if i == depth - 1 else f"sum{i}"
        nodes.append(helper.make_node("Gemm", [value, f"weight{i}", f"bias{i}"], [total]))
        if i < depth - 1:
            value = f"hidden{i}"
            nodes.append(helper.make_node("Relu", [total], [value]))
    if softmax:
        nodes.append(helper.make_node("Softmax", [last_sum], [names.output], axis=-1))
    return nodes


def _rows(name: str, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])


def _initialisers(index: int, layer: tuple[Floats, Floats]) -> list[onnx.TensorProto]:
    weight, bias = layer
    return [
        numpy_helper.from_array(weight, f"weight{index}"),
        numpy_helper.from_array(bias, f"bias{index}"),
    ]
