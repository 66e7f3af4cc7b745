"""A repository of real ONNX files on the real backend, through a life of faults and fixes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

from gateway.backends.onnxruntime.backend import OnnxRuntimeBackend
from gateway.core.types import Batch, VersionState
from gateway.models.repository import ControlOptions, RepositoryController, RepositoryMode
from gateway.registry.filesystem import FileSystemSource, SourceOptions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.models.stage import Stage

CONFIG = """
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: %d }
output { name: "y" data_type: TYPE_FP32 dims: 3 }
"""


def double() -> bytes:
    """Return the model `y = x + x` over `[rows, 3]`."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
    opset = helper.make_opsetid("", 13)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


async def test_faults_and_fixes_of_a_real_repository(stage: Stage, tmp_path: Path) -> None:
    """Wrong dims refuse, the fix serves, a truncated successor fails with a reason and disturbs nothing."""
    model = tmp_path / "double"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.onnx").write_bytes(double())
    (model / "config.pbtxt").write_text(CONFIG % 5)
    source = FileSystemSource("repository", tmp_path, options=SourceOptions(settle_s=0))
    async with stage.manager(backends={"onnxruntime": OnnxRuntimeBackend()}) as manager:
        async with RepositoryController(
            manager,
            [source],
            RepositoryMode.EXPLICIT,
            private=lambda path: source,
            options=ControlOptions(load_at_start=["*"]),
        ) as control:
            await manager.wait_settled()
            assert "dims [5] do not match the model's [3]" in manager.index()[0].reason
            (model / "config.pbtxt").write_text(CONFIG % 3)
            await control.load("double")
            served = manager.get("double")
            assert (served.platform, served.spec.max_batch_size) == ("onnxruntime_onnx", 4)
            (model / "2").mkdir()
            (model / "2" / "model.onnx").write_bytes(double()[:-20])
            manager.apply("operator", await source.versions("double"))
            await manager.wait_settled()
            states = [(row.id.number, row.state) for row in manager.index()]
            assert states == [(1, VersionState.READY), (2, VersionState.FAILED)]
            assert str(tmp_path) not in manager.index()[1].reason
            assert manager.get("double") is served
        batch = Batch({"x": np.ones((2, 3), "f4")}, 2, ("y",))
        result = await stage.batchers[-1].model.infer(batch)
        np.testing.assert_array_equal(result.outputs["y"], np.full((2, 3), 2, "f4"))


async def test_a_golden_test_decides_on_the_real_backend(stage: Stage, tmp_path: Path) -> None:
    """A version whose answers are not those it brings never serves; the one before does."""
    for number, answer in ((1, [2, 4, 6]), (2, [2, 4, 5])):
        version = tmp_path / "double" / str(number)
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(double())
        case = {"inputs": {"x": [[1, 2, 3]]}, "outputs": {"y": [answer]}}
        (version / "golden.jsonl").write_text(json.dumps(case))
    arrays: dict[str, Any] = {"input:x": np.ones((9, 3)), "output:y": np.full((9, 3), 2)}
    np.savez(tmp_path / "double" / "1" / "golden.npz", **arrays)
    source = FileSystemSource("repository", tmp_path, options=SourceOptions(settle_s=0))
    async with stage.manager(backends={"onnxruntime": OnnxRuntimeBackend()}) as manager:
        manager.apply("operator", await source.versions("double", '{"versionPolicy": {"all": {}}}'))
        await manager.wait_settled()
        assert manager.ready_versions("double") == (1,)
        assert manager.index()[1].reason.startswith(
            "golden test: golden.jsonl case 1: output 'y' at [0, 2]: got 6, expected 5"
        )
