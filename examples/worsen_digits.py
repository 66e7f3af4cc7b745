"""Make version 3 of the sample model `digits` out of version 2, worse in the way you say."""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

MODELS = Path(__file__).resolve().parent.parent / "models"
SLOW_MATRIX = 768
SLOW_TIMES = 6


def main() -> None:
    """Write models/digits/3/model.onnx, whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("how", choices=["errors", "slow", "disagrees"])
    parser.add_argument("--models", type=Path, default=MODELS)
    arguments = parser.parse_args()

    folder = arguments.models / "digits"
    model = onnx.load(folder / "2" / "model.onnx")
    {"errors": add_errors, "slow": add_work, "disagrees": shuffle}[arguments.how](model.graph)
    onnx.checker.check_model(model)
    version = folder / "3"
    version.mkdir(exist_ok=True)
    onnx.save(model, version / ".model.onnx")
    (version / ".model.onnx").replace(version / "model.onnx")
    print(f"{version / 'model.onnx'}: as version 2, but {arguments.how}")


def add_errors(graph: onnx.GraphProto) -> None:
    """Fail for images with much ink, about one in twenty: a lookup out of range."""
    constant(graph, "much_ink", np.array(365, np.float32))
    constant(graph, "one_entry", np.zeros(1, np.float32))
    constant(graph, "of_each_row", np.array([1], np.int64))
    pixels = graph.input[0].name
    graph.node.extend(
        [
            helper.make_node("ReduceSum", [pixels, "of_each_row"], ["ink"]),
            helper.make_node("Greater", ["ink", "much_ink"], ["too_much"]),
            helper.make_node("Cast", ["too_much"], ["entry"], to=onnx.TensorProto.INT64),
            helper.make_node("Gather", ["one_entry", "entry"], ["nothing"]),
        ]
    )
    add_to_output(graph, "nothing")


def add_work(graph: onnx.GraphProto) -> None:
    """Multiply large matrices besides, to no end."""
    constant(graph, "matrix", np.full((SLOW_MATRIX, SLOW_MATRIX), 1 / SLOW_MATRIX, np.float32))
    constant(graph, "zero", np.zeros((), np.float32))
    pixels = graph.input[0].name
    graph.node.append(helper.make_node("ReduceSum", [pixels], ["ink"], keepdims=0))
    graph.node.append(helper.make_node("Mul", ["matrix", "ink"], ["product_0"]))
    for index in range(SLOW_TIMES):
        factors = [f"product_{index}", "matrix"]
        graph.node.append(helper.make_node("MatMul", factors, [f"product_{index + 1}"]))
    graph.node.append(helper.make_node("ReduceMax", [f"product_{SLOW_TIMES}"], ["largest"], keepdims=0))
    graph.node.append(helper.make_node("Mul", ["largest", "zero"], ["nothing"]))
    add_to_output(graph, "nothing")


def shuffle(graph: onnx.GraphProto) -> None:
    """Take one digit for the next."""
    constant(graph, "shifted", np.roll(np.arange(10), 1))
    inner = rename_output(graph)
    graph.node.append(helper.make_node("Gather", [inner, "shifted"], [graph.output[0].name], axis=1))


def add_to_output(graph: onnx.GraphProto, name: str) -> None:
    """Add what is 0 to the output, so that it is computed."""
    inner = rename_output(graph)
    graph.node.append(helper.make_node("Add", [inner, name], [graph.output[0].name]))


def rename_output(graph: onnx.GraphProto) -> str:
    """Give the tensor that was the output another name, and return that."""
    name = graph.output[0].name
    for node in graph.node:
        for index, output in enumerate(node.output):
            if output == name:
                node.output[index] = f"{name}_before"
    return f"{name}_before"


def constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> None:
    """Add a constant."""
    graph.initializer.append(numpy_helper.from_array(value, name))


if __name__ == "__main__":
    main()
