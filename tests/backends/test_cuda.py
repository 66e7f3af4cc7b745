"""The same answers on a CUDA device, through IO binding; skipped where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto

from gateway.backends.onnxruntime.backend import OnnxRuntimeBackend
from gateway.backends.onnxruntime.session import CudaLibraries, available_providers
from gateway.core.options import LoadOptions, ModelSpec
from gateway.core.types import Datatype, Device
from tests.backends.graphs import batch, identity, save

if TYPE_CHECKING:
    from pathlib import Path

CUDA = "CUDAExecutionProvider"


@pytest.fixture(scope="module", autouse=True)
def _cuda() -> None:
    if CUDA not in available_providers():
        pytest.skip("this build of onnxruntime has no CUDA")
    if problem := CudaLibraries().problem(CUDA):
        pytest.skip(f"CUDA does not load: {problem}")


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("datatype", "element"),
    [
        (Datatype.FP32, TensorProto.FLOAT),
        (Datatype.FP16, TensorProto.FLOAT16),
        (Datatype.BF16, TensorProto.BFLOAT16),
        (Datatype.INT64, TensorProto.INT64),
        (Datatype.BYTES, TensorProto.STRING),
    ],
)
async def test_outputs_are_fresh_on_a_device(tmp_path: Path, datatype: Datatype, element: int) -> None:
    """On a CUDA device every kind of tensor comes back unchanged, and no later run overwrites it."""
    artifact = save(tmp_path, identity(("batch", 2), element))
    options = LoadOptions(
        spec=ModelSpec(name="m", backend_options={"arena_shrinkage": True}), device=Device("cuda", 0)
    )
    loaded = await OnnxRuntimeBackend().load(artifact, options)
    assert loaded.device == Device("cuda", 0)
    first = (
        np.array([[b"1", b"2"]], np.object_)
        if datatype is Datatype.BYTES
        else np.ones((1, 2), datatype.dtype)
    )
    later = (
        np.array([[b"3", b"4"]], np.object_)
        if datatype is Datatype.BYTES
        else np.zeros((1, 2), datatype.dtype)
    )
    kept = (await loaded.infer(batch({"x": first}))).outputs["y"]
    await loaded.infer(batch({"x": later}))
    assert kept.tolist() == first.tolist()
    await loaded.aclose()
