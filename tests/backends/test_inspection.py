"""Files that must not be loaded are refused with a reason; everything else is let through."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateway.backends.onnxruntime.inspector import InspectionLimits, inspect_file
from gateway.core.errors import ModelLoadError
from gateway.core.types import Artifact
from tests.backends.graphs import FLOAT, batch, identity, load, model, save, tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHT = numpy_helper.from_array(np.arange(64, dtype=np.float32).reshape(2, 32), "w")


def _matmul(weight: onnx.TensorProto) -> onnx.ModelProto:
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor("x", ["n", 2])],
        [tensor("y", ["n", 32])],
        initializers=[weight],
    )


def _external(location: str, **entries: Any) -> onnx.ModelProto:
    weight = onnx.TensorProto(name="w", dims=[2, 32], data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": 0, "length": 256, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    return _matmul(weight)


def _in_branch(node: onnx.NodeProto) -> onnx.ModelProto:
    """Hide a node two subgraphs deep."""
    for depth in range(2):
        branches = [
            helper.make_graph([n], f"b{depth}", [], [tensor(n.output[0], ["n", 2])])
            for n in (node, helper.make_node("Identity", ["x"], [f"else{depth}"]))
        ]
        node = helper.make_node("If", ["c"], [f"if{depth}"], then_branch=branches[0], else_branch=branches[1])
    outputs = [tensor(node.output[0], ["n", 2])]
    return model([node], [tensor("x", ["n", 2]), tensor("c", [], TensorProto.BOOL)], outputs)


def _in_function(node: onnx.NodeProto) -> onnx.ModelProto:
    function = helper.make_function("local", "f", ["x"], ["y"], [node], [helper.make_opsetid("evil", 1)])
    call = helper.make_node("f", ["x"], ["y"], domain="local")
    sides = [tensor("x", ["n", 2])], [tensor("y", ["n", 2])]
    return model([call], *sides, domains=["local", "evil"], functions=[function])


_EVIL = helper.make_node("Run", ["x"], ["y"], domain="evil")
_CONTEXT = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
_NODE_OF = identity().graph.node[0]


def _evil_in_plain_sight() -> onnx.ModelProto:
    return model([_EVIL], [tensor("x", ["n", 2])], [tensor("y", ["n", 2])], domains=["evil"])


def _context() -> onnx.ModelProto:
    return model([_CONTEXT], [tensor("x", ["n"])], [tensor("y", ["n"])], domains=["com.microsoft"])


def _external_in_attribute() -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["w"], value=_external("../w.bin").graph.initializer[0])
    return model(
        [node, helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor("x", ["n", 2])],
        [tensor("y", ["n", 32])],
    )


def _short_weight() -> onnx.ModelProto:
    weight = onnx.TensorProto()
    weight.CopyFrom(WEIGHT)
    weight.raw_data = weight.raw_data[:-4]
    return _matmul(weight)


_WHOLE = _matmul(WEIGHT).SerializeToString()

REFUSED = {
    "empty": (b"", "truncated"),
    "junk": (b"<html>404</html>", "truncated, corrupt, or of another format"),
    "cut in the middle": (_WHOLE[: len(_WHOLE) // 2], "truncated"),
    "cut near the end": (_WHOLE[:-3], "truncated"),
    "cut at the opset": (_matmul(WEIGHT).graph.SerializeToString(), "truncated, corrupt|no graph"),
    "short weight": (_short_weight(), "tensor 'w' holds 252 bytes, its shape needs 256"),
    "custom operator": (_evil_in_plain_sight(), "custom operator 'evil::Run'.*allow_custom_ops"),
    "custom operator in a subgraph": (_in_branch(_EVIL), "custom operator 'evil::Run'"),
    "custom operator in a function": (_in_function(_EVIL), "custom operator 'evil::Run'"),
    "precompiled context": (_context(), "EPContext"),
    "external, parent": (_external("../w.bin"), "'w' at '../w.bin' leaves the version directory"),
    "external, parent inside": (_external("sub/../../w.bin"), "leaves the version directory"),
    "external, absolute": (_external("/etc/passwd"), "must be relative"),
    "external, drive": (_external("C:\\w.bin"), "must be relative"),
    "external, memory": (_external("*/_ORT_MEM_ADDR_/*"), "not a file name"),
    "external, nowhere": (_external(""), "not a file name"),
    "external, missing": (_external("absent.bin"), "'absent.bin' is missing from the version directory"),
    "external, link": (_external("link.bin"), "symbolic link"),
    "external, link above": (_external("linked/w.bin"), "symbolic link"),
    "external, directory": (_external("sub"), "not a plain file"),
    "external, pipe": (_external("pipe"), "not a plain file"),
    "external, cut short": (_external("w.bin", offset=8), "needs bytes 8 to 264 of a file of 256"),
    "external, too little": (_external("w.bin", length=128), "holds 128 bytes, the tensor needs 256"),
    "external, negative": (_external("w.bin", offset=-8), "negative"),
    "external, no number": (_external("w.bin", offset="x"), "not a number"),
    "external in an attribute": (_external_in_attribute(), "leaves the version directory"),
}


def _surroundings(folder: Path) -> Path:
    """Lay out a version directory with everything a model might point at, and a secret beside it."""
    folder = folder / "secret-place" / "1"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "w.bin", folder.parent / "w.bin"):
        path.write_bytes(WEIGHT.raw_data)
    (folder / "link.bin").symlink_to(folder.parent / "w.bin")
    (folder / "linked").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_refused_with_a_reason(tmp_path: Path, content: onnx.ModelProto | bytes, reason: str) -> None:
    """A file that must not be loaded is refused, and the reason names no path of the server."""
    artifact = save(_surroundings(tmp_path), content)
    with pytest.raises(ModelLoadError, match=reason) as caught:
        await inspect_file(artifact, InspectionLimits())
    assert "secret-place" not in str(caught.value)


async def test_backend_names_the_model_and_disturbs_nobody(tmp_path: Path) -> None:
    """A refusal by the backend names the model; one that is loaded goes on answering."""
    good = await load(save(tmp_path / "good", identity()))
    with pytest.raises(ModelLoadError, match="model 'bad': it uses the custom operator 'evil::Run'"):
        await load(save(tmp_path / "bad", _evil_in_plain_sight()), name="bad")
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal((await good.infer(batch({"x": x}))).outputs["y"], x)
    await good.aclose()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"opset": 999}, "Opset 999 is under development"),
        ({"ir_version": 999}, "Unsupported model IR version: 999"),
    ],
)
async def test_unknown_versions_are_refused(tmp_path: Path, changes: dict[str, int], reason: str) -> None:
    """A file from the future is refused by ONNX Runtime in words that name the version, on one line."""
    made = model([_NODE_OF], [tensor("x", ["n"])], [tensor("y", ["n"])], **changes)  # type: ignore[arg-type]
    with pytest.raises(ModelLoadError, match=reason) as caught:
        await load(save(tmp_path, made))
    assert "\n" not in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)


async def test_external_data_inside_is_served(tmp_path: Path) -> None:
    """External data in the version directory, in a folder of it too, is loaded and counted."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(b"12345678" + WEIGHT.raw_data)
    artifact = save(tmp_path, _external("weights/w.bin", offset=8))
    loaded = await load(artifact)
    x = np.array([[1, 2]], np.float32)
    result = await loaded.infer(batch({"x": x}))
    np.testing.assert_array_equal(result.outputs["y"], x @ numpy_helper.to_array(WEIGHT))
    assert loaded.memory_bytes >= artifact.model_file.stat().st_size + 264
    await loaded.aclose()


async def test_custom_operators_pass_when_allowed(tmp_path: Path) -> None:
    """With allow_custom_ops the inspection lets unknown domains through."""
    artifact = save(tmp_path, _evil_in_plain_sight())
    report = await inspect_file(artifact, InspectionLimits(allow_custom_ops=True))
    assert [t.name for t in report.inputs] == ["x"]


async def test_local_functions_are_no_custom_operators(tmp_path: Path) -> None:
    """A function defined in the file itself may have a domain of its own."""
    node = helper.make_node("Identity", ["x"], ["y"])
    function = helper.make_function("local", "f", ["x"], ["y"], [node], [helper.make_opsetid("", 17)])
    call = helper.make_node("f", ["x"], ["y"], domain="local")
    sides = [tensor("x", ["n", 2])], [tensor("y", ["n", 2])]
    loaded = await load(save(tmp_path, model([call], *sides, domains=["local"], functions=[function])))
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal((await loaded.infer(batch({"x": x}))).outputs["y"], x)
    await loaded.aclose()


async def test_size_limit_counts_external_data(tmp_path: Path) -> None:
    """The limit on a model's size covers the file and its external data."""
    (tmp_path / "w.bin").write_bytes(WEIGHT.raw_data)
    artifact = save(tmp_path, _external("w.bin"))
    total = artifact.model_file.stat().st_size + 256
    assert (await inspect_file(artifact, InspectionLimits(max_model_bytes=total))).total_bytes == total
    with pytest.raises(
        ModelLoadError, match=f"the model has {total} bytes, max_model_bytes allows {total - 1}"
    ):
        await inspect_file(artifact, InspectionLimits(max_model_bytes=total - 1))


def _linked(folder: Path) -> Artifact:
    outside = save(folder / "outside", identity())
    inside = folder / "1" / "model.onnx"
    inside.parent.mkdir()
    inside.symlink_to(outside.model_file)
    return Artifact(inside.parent, inside, "d")


def _absent(folder: Path) -> Artifact:
    return Artifact(folder, folder / "model.onnx", "d")


@pytest.mark.parametrize(
    ("make", "reason"), [(_linked, "leaves the version directory"), (_absent, "no file 'model.onnx'")]
)
async def test_model_file_must_be_there(
    tmp_path: Path, make: Callable[[Path], Artifact], reason: str
) -> None:
    """A model file that is missing, or a link out of its version directory, is refused."""
    with pytest.raises(ModelLoadError, match=reason):
        await inspect_file(make(tmp_path), InspectionLimits())


async def test_inspection_is_bounded_in_time(tmp_path: Path) -> None:
    """An inspection that takes too long is ended and says so."""
    with pytest.raises(ModelLoadError, match="took more than"):
        await inspect_file(save(tmp_path, identity()), InspectionLimits(timeout_s=1e-6))


async def test_cancelled_inspection_ends(tmp_path: Path) -> None:
    """Cancelling an inspection ends it; the next one works."""
    artifact = save(tmp_path, identity())
    running = asyncio.ensure_future(inspect_file(artifact, InspectionLimits()))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await inspect_file(artifact, InspectionLimits())).inputs


async def test_modules_beside_a_model_are_not_imported(tmp_path: Path) -> None:
    """A model directory that is the working directory supplies no Python modules to the inspection."""
    (tmp_path / "onnx.py").write_text("raise SystemExit('imported from the working directory')")
    artifact = save(tmp_path, identity())
    with contextlib.chdir(tmp_path):
        assert (await inspect_file(artifact, InspectionLimits())).inputs


async def test_listed_initializers_are_no_inputs(tmp_path: Path) -> None:
    """Initializers that an exporter lists as inputs are left out, whatever the IR version."""
    for ir_version, opset in ((3, 8), (8, 17)):
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        inputs = [tensor("x", ["n", 2]), tensor("w", [2, 32])]
        made = model(
            [node],
            inputs,
            [tensor("y", ["n", 32])],
            initializers=[WEIGHT],
            opset=opset,
            ir_version=ir_version,
        )
        report = await inspect_file(save(tmp_path, made), InspectionLimits())
        assert [t.name for t in report.inputs] == ["x"]


async def test_symbolic_names_and_unnamed_sizes_are_told_apart(tmp_path: Path) -> None:
    """The report keeps sizes, names of symbolic sizes, unnamed ones and missing ranks apart."""
    made = model(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["x"], ["z"])],
        [tensor("x", ["n", None, 3])],
        [tensor("y", None), tensor("z", [])],
    )
    report = await inspect_file(save(tmp_path, made), InspectionLimits())
    assert report.inputs[0].dims == ("n", None, 3)
    assert [t.dims for t in report.outputs] == [None, ()]
