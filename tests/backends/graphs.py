"""Tiny ONNX models for tests, and what loads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper

from gateway.backends.onnxruntime.backend import OnnxRuntimeBackend
from gateway.core.options import LoadOptions, ModelSpec
from gateway.core.types import Artifact, Batch

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.backends.onnxruntime.model import OnnxRuntimeModel

Dims = Sequence[int | str | None] | None
FLOAT = TensorProto.FLOAT


def tensor(name: str, dims: Dims, element: int = FLOAT) -> onnx.ValueInfoProto:
    """Describe an input or output."""
    return helper.make_tensor_value_info(name, element, dims)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    *,
    initializers: Sequence[onnx.TensorProto] = (),
    opset: int = 17,
    ir_version: int = 8,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """Build a model."""
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(initializers))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, functions=list(functions))


def one_op(op: str, x: Dims, y: Dims, element: int = FLOAT, **attributes: Any) -> onnx.ModelProto:
    """Build `y = op(x)`."""
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    return model([node], [tensor("x", x, element)], [tensor("y", y, element)])


def identity(dims: Dims = ("batch", 2), element: int = FLOAT) -> onnx.ModelProto:
    """Build `y = x`."""
    return one_op("Identity", dims, dims, element)


def save(folder: Path, content: onnx.ModelProto | bytes, name: str = "model.onnx") -> Artifact:
    """Write a model file into a version directory."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return Artifact(folder, path, "digest")


async def load(
    artifact: Artifact, backend: OnnxRuntimeBackend | None = None, instances: int = 0, **spec: Any
) -> OnnxRuntimeModel:
    """Load it on whatever device there is, with fields of ModelSpec."""
    options = LoadOptions(spec=ModelSpec(**{"name": "m", **spec}), instances=instances)
    return await (backend or OnnxRuntimeBackend()).load(artifact, options)


def batch(inputs: Mapping[str, Any], *outputs: str, rows: int = 1) -> Batch:
    """Build a batch."""
    return Batch(inputs, rows, outputs or ("y",))
