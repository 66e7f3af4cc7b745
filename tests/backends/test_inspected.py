"""Inspections that are remembered, and what makes them be made again."""

import os
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from gateway.backends.onnxruntime.inspected import Inspections, fingerprint
from gateway.backends.onnxruntime.inspector import InspectionLimits
from gateway.core.errors import ModelLoadError
from gateway.core.types import Artifact


def identity(path: Path, name: str = "x") -> None:
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["batch", 1]) for end in (name, "y")]
    graph = helper.make_graph([helper.make_node("Identity", [name], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


async def test_unchanged_files_are_inspected_once(tmp_path: Path) -> None:
    """The second time gives the very report of the first; other limits or another digest ask again."""
    identity(tmp_path / "model.onnx")
    artifact = Artifact(tmp_path, tmp_path / "model.onnx", "d")
    inspections = Inspections()
    first = await inspections.inspect(artifact, InspectionLimits())
    assert await inspections.inspect(artifact, InspectionLimits()) is first
    assert await inspections.inspect(artifact, InspectionLimits(max_model_bytes=9999)) is not first
    other = Artifact(tmp_path, tmp_path / "model.onnx", "e")
    assert await inspections.inspect(other, InspectionLimits()) is not first


async def test_a_changed_file_is_inspected_again_whatever_its_digest_is_said_to_be(tmp_path: Path) -> None:
    """Even one of the same size with the old modification time, and the refusal is the new file's."""
    model = tmp_path / "model.onnx"
    identity(model)
    stat = model.stat()
    artifact = Artifact(tmp_path, model, "d")
    inspections = Inspections()
    await inspections.inspect(artifact, InspectionLimits())
    identity(model, "z")
    os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert model.stat().st_size == stat.st_size
    report = await inspections.inspect(artifact, InspectionLimits())
    assert report.inputs[0].name == "z"
    model.write_bytes(b"junk")
    with pytest.raises(ModelLoadError, match="not a complete ONNX file"):
        await inspections.inspect(artifact, InspectionLimits())


def test_fingerprints_see_every_file_and_trust_no_link(tmp_path: Path) -> None:
    """Files in folders count; where there is a link, or nothing, nothing can be told."""
    (tmp_path / "deep").mkdir()
    data = tmp_path / "deep" / "w.bin"
    data.write_bytes(b"a")
    before = fingerprint(tmp_path)
    assert before is not None
    assert before == fingerprint(tmp_path)
    data.write_bytes(b"ab")
    assert fingerprint(tmp_path) != before
    (tmp_path / "link").symlink_to(data)
    assert fingerprint(tmp_path) is None
    assert fingerprint(tmp_path / "absent") is None
