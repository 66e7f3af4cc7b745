"""Makes the models that the long counts serve, and publishes versions of them as a careful operator does."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

OFFSET: Final = "offset"
"""FP32 `x` `[batch, 4]` -> `y = x + version`: an answer shows which version really gave it."""
TEXT: Final = "text"
"""BYTES `x` `[batch]` -> `y = x`."""
NUMBERS: Final = "numbers"
"""INT8 `x` `[batch, 2]` -> `y = x`."""
WIDTH: Final = 4

# Old enough for every ONNX Runtime that the package admits.
_OPSET: Final = 17
_IR_VERSION: Final = 8
_SIDE: Final = 4096  # of the square weights of a large model: 64 MiB each


def offset_model(version: int) -> onnx.ModelProto:
    """Build the model whose answers name the version."""
    shift = numpy_helper.from_array(np.full(WIDTH, version, np.float32), "shift")
    node = helper.make_node("Add", ["x", "shift"], ["y"])
    return _model([node], TensorProto.FLOAT, ["batch", WIDTH], [shift])


def identity_model(element: int, shape: list[str | int]) -> onnx.ModelProto:
    """Build `y = x` for elements of an ONNX type."""
    return _model([helper.make_node("Identity", ["x"], ["y"])], element, shape, [])


def large_model(size_bytes: int) -> onnx.ModelProto:
    """Build a chain of square matrix products with weights of about `size_bytes`."""
    weight = np.zeros((_SIDE, _SIDE), np.float32)
    count = max(1, round(size_bytes / weight.nbytes))
    weights = [numpy_helper.from_array(weight, f"w{i}") for i in range(count)]
    values = ["x", *(f"h{i}" for i in range(count - 1)), "y"]
    nodes = [helper.make_node("MatMul", [values[i], f"w{i}"], [values[i + 1]]) for i in range(count)]
    return _model(nodes, TensorProto.FLOAT, ["batch", _SIDE], weights)


def _model(
    nodes: list[onnx.NodeProto], element: int, shape: list[str | int], initializers: list[onnx.TensorProto]
) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, element, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "soak", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)


def publish(repository: Path, model: str, version: int, content: onnx.ModelProto) -> Path:
    """Write a version beside the repository and rename it into place, so that it is never seen half written.

    Returns:
        The version's directory.
    """
    staging = repository.with_name(repository.name + ".staging") / f"{model}-{version}"
    staging.mkdir(parents=True)
    (staging / "model.onnx").write_bytes(content.SerializeToString())
    target = repository / model / str(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(target)
    return target


def withdraw(repository: Path, model: str, version: int) -> None:
    """Take a version away: out of the repository by one rename, then off the disk."""
    doomed = repository.with_name(repository.name + ".staging") / f"{model}-{version}-withdrawn"
    doomed.parent.mkdir(parents=True, exist_ok=True)
    (repository / model / str(version)).rename(doomed)
    shutil.rmtree(doomed)


def small_repository(directory: Path) -> Path:
    """Write a repository with version 1 of each small model; return its path."""
    repository = directory / "repository"
    publish(repository, OFFSET, 1, offset_model(1))
    publish(repository, TEXT, 1, identity_model(TensorProto.STRING, ["batch"]))
    publish(repository, NUMBERS, 1, identity_model(TensorProto.INT8, ["batch", 2]))
    return repository
