"""Writes the models that the client tests call: small graphs, each with one property worth testing."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Final

import onnx
from onnx import TensorProto, helper

from tests.acceptance.process import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ELEMENT_TYPES: Final[Mapping[str, int]] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}
_FLOAT: Final = TensorProto.FLOAT
NEVER_S: Final = 3600
"""A delay that no test outlives: what waits for it goes only for another reason."""


def tensor(name: str, dims: Sequence[int | str], element: int = _FLOAT) -> onnx.ValueInfoProto:
    """Describe an input or output."""
    return helper.make_tensor_value_info(name, element, list(dims))


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """Build a model."""
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def identity(dims: Sequence[int | str], element: int = _FLOAT) -> onnx.ModelProto:
    """Build `y = x`."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return model([node], [tensor("x", dims, element)], [tensor("y", dims, element)])


def pair() -> onnx.ModelProto:
    """Build `sum = a + b`, `difference = a - b`."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
    ]
    inputs = [tensor(name, ["batch", 2]) for name in ("a", "b")]
    return model(nodes, inputs, [tensor(name, ["batch", 2]) for name in ("sum", "difference")])


def scaled(factor: float) -> onnx.ModelProto:
    """Build `y = x * factor`."""
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    constant = helper.make_tensor("factor", _FLOAT, [1], [factor])
    return model([node], [tensor("x", ["batch", 2])], [tensor("y", ["batch", 2])], [constant])


def shifted() -> onnx.ModelProto:
    """Build `y = x + shift`, where `shift` is 10 unless the request says otherwise."""
    node = helper.make_node("Add", ["x", "shift"], ["y"])
    default = helper.make_tensor("shift", _FLOAT, [1], [10.0])
    inputs = [tensor("x", ["batch", 2]), tensor("shift", [1])]
    return model([node], inputs, [tensor("y", ["batch", 2])], [default])


def counting() -> onnx.ModelProto:
    """Build `y = x + loops`, one addition after the other: how long it runs is the request's choice."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["value", "one"], ["next"]),
        ],
        "body",
        [
            tensor("i", [], TensorProto.INT64),
            tensor("go", [], TensorProto.BOOL),
            tensor("value", [1]),
        ],
        [tensor("go_on", [], TensorProto.BOOL), tensor("next", [1])],
        [helper.make_tensor("one", _FLOAT, [1], [1.0])],
    )
    node = helper.make_node("Loop", ["loops", "", "x"], ["y"], body=body)
    return model([node], [tensor("x", [1]), tensor("loops", [], TensorProto.INT64)], [tensor("y", [1])])


def save(repository: Path, name: str, content: onnx.ModelProto | bytes, version: int = 1) -> Path:
    """Write one version's file in Triton's layout; return its path."""
    path = repository / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def copy_sample(repository: Path, name: str) -> None:
    """Copy one of the sample models, labels and config.pbtxt included."""
    shutil.copytree(ROOT / "models" / name, repository / name)


def write_zoo(repository: Path) -> None:
    """Write every model of this module, and the sample `digits`, as one repository."""
    for datatype, element in ELEMENT_TYPES.items():
        save(repository, f"identity_{datatype.lower()}", identity(["batch", "n"], element))
    save(repository, "scalar", identity([]))
    save(repository, "pair", pair())
    save(repository, "scaled", scaled(2.0))
    save(repository, "optional", shifted())
    save(repository, "counting", counting())
    for name in ("patient", "ranked"):
        save(repository, name, identity(["batch", 1]))
    copy_sample(repository, "digits")


def zoo_config(repository: Path) -> dict[str, Any]:
    """Return a configuration that serves the zoo in mode explicit, everything loaded at start.

    `patient` and `ranked` run only when four rows are there: what waits in their queues waits until the
    test lets it go.
    """
    waits = {"max_batch_rows": 4, "max_delay_s": NEVER_S}
    ranks = {"priority_levels": 2, "default_priority": 2, "priority_ageing_s": NEVER_S}
    return {
        "repository": {"path": str(repository), "mode": "explicit", "load_at_start": ["*"]},
        "models": [
            {"name": "optional", "onnxruntime": {"optional_inputs": ["shift"]}},
            {"name": "patient", "batching": waits},
            {"name": "ranked", "batching": {**waits, **ranks}},
        ],
    }


def write_config(path: Path, config: Mapping[str, Any]) -> Path:
    """Write a configuration file, JSON being YAML too; return its path."""
    path.write_text(json.dumps(config))
    return path
