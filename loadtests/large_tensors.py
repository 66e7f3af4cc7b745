"""Models that do next to nothing with a large input, so that a load test sees what moving it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from loadtests.requests_on_file import BenchModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

IMAGES: Final[Mapping[str, int]] = {"image224": 3 * 224 * 224, "image912": 3 * 912 * 912}
"""Name -> FP32 values per row: pictures of three channels, 0.6 MB and 10 MB."""
STRIDE: Final = 4096
"""Of the input's values the model answers every so many: one in each page of memory or two."""


def image_model(name: str, folder: Path) -> BenchModel:
    """Write one of `IMAGES` into a folder of models, if it is not there yet, and return it."""
    model = BenchModel(name, folder / name, 1, "image", IMAGES[name])
    if not model.file.exists():
        model.file.parent.mkdir(parents=True, exist_ok=True)
        partial = model.file.with_suffix(".partial")
        partial.write_bytes(strided(model.features).SerializeToString())
        partial.replace(model.file)
    return model


def strided(features: int) -> onnx.ModelProto:
    """Return a model from `image` [rows, features] to `sample` [rows, ceil(features / STRIDE)]."""
    constants = {"starts": [0], "ends": [features], "axes": [1], "steps": [STRIDE]}
    sampled = -(-features // STRIDE)
    graph = helper.make_graph(
        [helper.make_node("Slice", ["image", *constants], ["sample"])],
        "strided",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", features])],
        [helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["rows", sampled])],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    return model
