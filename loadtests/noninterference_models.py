"""Versions that a shadow may run: equal, different, slow, crashing, and answering garbage.

Version 1 is the stable one, `y = x + 1` for FP32 `x` `[batch, 4]`; all others take the same input.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from loadtests.soak_models import OFFSET, WIDTH, offset_model, publish

if TYPE_CHECKING:
    from pathlib import Path

STABLE: Final = 1
SAME: Final = 2
"""Answers as stable does."""
OTHER: Final = 3
"""Answers otherwise."""
SLOW: Final = 4
"""Answers as stable does, after some 0.1 s of work."""
CRASHING: Final = 5
"""Fails in every run."""
NANS: Final = 6
"""Answers NaN."""
MISSHAPEN: Final = 7
"""Answers another shape of another datatype."""
ABSENT: Final = 99
"""Is not there."""

_OPSET: Final = 17
_IR_VERSION: Final = 8
_SLOW_SIDE: Final = 1536
_SLOW_STEPS: Final = 40


def repository_of(directory: Path, *versions: int) -> Path:
    """Write a repository that holds these versions; return its path."""
    repository = directory / "repository"
    for version in versions:
        publish(repository, OFFSET, version, _MODELS[version]())
    return repository


def _slow() -> onnx.ModelProto:
    """Pass zeros through a chain of products with one weight, and add what is left of them to the answer."""
    weights = [
        numpy_helper.from_array(np.ones(WIDTH, np.float32), "shift"),
        numpy_helper.from_array(np.zeros((WIDTH, _SLOW_SIDE), np.float32), "widen"),
        numpy_helper.from_array(np.zeros((_SLOW_SIDE, _SLOW_SIDE), np.float32), "weight"),
        numpy_helper.from_array(np.zeros((_SLOW_SIDE, WIDTH), np.float32), "narrow"),
    ]
    chain = [f"h{step}" for step in range(_SLOW_STEPS + 1)]
    steps = [helper.make_node("MatMul", [a, "weight"], [b]) for a, b in pairwise(chain)]
    nodes = [
        helper.make_node("MatMul", ["x", "widen"], [chain[0]]),
        *steps,
        helper.make_node("MatMul", [chain[-1], "narrow"], ["nothing"]),
        helper.make_node("Add", ["x", "shift"], ["shifted"]),
        helper.make_node("Add", ["shifted", "nothing"], ["y"]),
    ]
    return _model(nodes, weights)


def _crashing() -> onnx.ModelProto:
    """Pick a column that there is not, and say so only when it is run."""
    far = numpy_helper.from_array(np.full(1, WIDTH * WIDTH, np.int64), "far")
    nodes = [
        helper.make_node("Gather", ["x", "far"], ["column"], axis=1),
        helper.make_node("Add", ["x", "column"], ["y"]),
    ]
    return _model(nodes, [far])


def _nans() -> onnx.ModelProto:
    nodes = [helper.make_node("Sub", ["x", "x"], ["zero"]), helper.make_node("Div", ["zero", "zero"], ["y"])]
    return _model(nodes, [])


def _misshapen() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["wide"], axis=1),
        helper.make_node("Cast", ["wide"], ["y"], to=TensorProto.DOUBLE),
    ]
    return _model(nodes, [], TensorProto.DOUBLE, 2 * WIDTH)


def _model(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
    element: int = TensorProto.FLOAT,
    width: int = WIDTH,
) -> onnx.ModelProto:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])
    answered = helper.make_tensor_value_info("y", element, ["batch", width])
    graph = helper.make_graph(nodes, "shadow", [given], [answered], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


_MODELS: Final = {
    STABLE: lambda: offset_model(1),
    SAME: lambda: offset_model(1),
    OTHER: lambda: offset_model(2),
    SLOW: _slow,
    CRASHING: _crashing,
    NANS: _nans,
    MISSHAPEN: _misshapen,
}
