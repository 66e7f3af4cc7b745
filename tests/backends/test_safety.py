"""Crafted files that try to reach what is not theirs are refused before ONNX Runtime sees them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateway.backends.onnxruntime.backend import OnnxRuntimeBackend
from gateway.backends.onnxruntime.external import Refused
from gateway.backends.onnxruntime.inspection import Request, inspect
from gateway.backends.onnxruntime.inspector import InspectionLimits, inspect_file
from gateway.core.errors import ModelLoadError
from gateway.core.types import Artifact
from tests.backends.graphs import FLOAT, batch, load, model, save, tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

WEIGHTS = np.arange(64, dtype=np.float32)
INSIDE = [("location", "w.bin"), ("offset", "0"), ("length", "256")]
OUTSIDE = [("location", "../w.bin"), *INSIDE[1:]]


def _external(entries: Sequence[tuple[str, str]], dims: Sequence[int] = (2, 32)) -> TensorProto:
    weight = TensorProto(name="w", dims=dims, data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in entries:
        weight.external_data.add(key=key, value=value)
    return weight


def _matmul(*initializers: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model([node], [tensor("x", ["n", 2])], [tensor("y", ["n", 32])], initializers=initializers)


def _constant(weight: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["w"], value=weight)


def _scan(node: onnx.NodeProto) -> onnx.NodeProto:
    """Hide a node in the body of a Scan."""
    body = helper.make_graph([node], "body", [tensor("row", [2])], [tensor(node.output[0], None)])
    return helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)


def _loop(node: onnx.NodeProto) -> onnx.NodeProto:
    """Hide a node in the body of a Loop."""
    sides = [tensor("i", [], TensorProto.INT64), tensor("go", [], TensorProto.BOOL)]
    passing = helper.make_node("Identity", ["go"], ["on"])
    outputs = [tensor("on", [], TensorProto.BOOL), tensor(node.output[0], None)]
    body = helper.make_graph([node, passing], "body", sides, outputs)
    return helper.make_node("Loop", ["", "go"], ["y"], body=body)


def _if(node: onnx.NodeProto) -> onnx.NodeProto:
    """Hide a node in the second branch of an If."""
    plain = helper.make_graph([helper.make_node("Identity", ["x"], ["a"])], "then", [], [tensor("a", None)])
    hiding = helper.make_graph([node], "else", [], [tensor(node.output[0], None)])
    return helper.make_node("If", ["c"], ["y"], then_branch=plain, else_branch=hiding)


def _listed(weight: TensorProto) -> onnx.NodeProto:
    """Hide a tensor in a list of graphs of a list of tensors, which no operator has today."""
    holding = helper.make_node("Identity", ["x"], ["a"], tensors=[_external(INSIDE), weight])
    graph = helper.make_graph([holding], "listed", [], [tensor("a", None)])
    return helper.make_node("Identity", ["x"], ["y"], graphs=[graph])


def _with_node(node: onnx.NodeProto, functions: Sequence[onnx.FunctionProto] = ()) -> onnx.ModelProto:
    sides = [tensor("x", ["n", 2])], [tensor("y", None)]
    return model([node], *sides, domains=["local", "evil", "com.microsoft"], functions=functions)


def _in_function(node: onnx.NodeProto) -> onnx.ModelProto:
    """Hide a node in a local function that another local function calls."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1), helper.make_opsetid("evil", 1)]
    inner = helper.make_function("local", "inner", ["x"], ["y"], [node], imports)
    call = helper.make_node("inner", ["x"], ["y"], domain="local")
    outer = helper.make_function("local", "outer", ["x"], ["y"], [call], imports)
    return _with_node(helper.make_node("outer", ["x"], ["y"], domain="local"), [outer, inner])


def _default_of_function(weight: TensorProto) -> onnx.ModelProto:
    """Give a local function an attribute whose default is a tensor outside."""
    imports = [helper.make_opsetid("", 17)]
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.add(name="value", ref_attr_name="value", type=onnx.AttributeProto.TENSOR)
    function = helper.make_function("local", "f", ["x"], ["y"], [node], imports)
    function.attribute_proto.append(helper.make_attribute("value", weight))
    return _with_node(helper.make_node("f", ["x"], ["y"], domain="local"), [function])


def _sparse(weight: TensorProto) -> onnx.ModelProto:
    made = _with_node(helper.make_node("Identity", ["x"], ["y"]))
    indices = numpy_helper.from_array(np.arange(64, dtype=np.int64), "i")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(weight, indices, [128]))
    return made


def _training(weight: TensorProto) -> onnx.ModelProto:
    made = _with_node(helper.make_node("Identity", ["x"], ["y"]))
    made.training_info.add().algorithm.initializer.append(weight)
    return made


def _context(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", **attributes)


def _nested(depth: int) -> bytes:
    """Nest subgraphs deeper than the libraries build them: graph > node > attribute > graph > ..."""
    graph = b""
    for _ in range(depth):
        for number in (6, 5, 1):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            size = len(graph)
            graph = bytes([number << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + graph
    plain = _with_node(helper.make_node("Identity", ["x"], ["y"])).SerializeToString()
    size = len(graph)
    return plain + bytes([7 << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + graph


def _no_text(content: onnx.ModelProto, name: bytes) -> bytes:
    """Put bytes that are no text in the place of a name."""
    whole = content.SerializeToString()
    assert name in whole
    return whole.replace(name, b"\xff" * len(name))


def _loud(name: str) -> onnx.ModelProto:
    weight = _external(OUTSIDE)
    weight.name = name
    return _matmul(weight)


EVIL = helper.make_node("Run", ["x"], ["y"], domain="evil")
LEAVES = "leaves the version directory"
CUSTOM = "custom operator 'evil::Run'"
PRECOMPILED = "EPContext node, a precompiled program for one device: not allowed"

REFUSED: dict[str, tuple[onnx.ModelProto | bytes, str]] = {
    "outside, in a Scan": (_with_node(_scan(_constant(_external(OUTSIDE)))), LEAVES),
    "outside, in a Loop": (_with_node(_loop(_constant(_external(OUTSIDE)))), LEAVES),
    "outside, in an If in a Loop": (_with_node(_loop(_if(_constant(_external(OUTSIDE))))), LEAVES),
    "outside, in a function": (_in_function(_constant(_external(OUTSIDE))), LEAVES),
    "outside, as a function's default": (_default_of_function(_external(OUTSIDE)), LEAVES),
    "outside, in lists": (_with_node(_listed(_external(OUTSIDE))), LEAVES),
    "outside, sparse": (_sparse(_external(OUTSIDE, [64])), LEAVES),
    "outside, for training": (_training(_external(OUTSIDE)), LEAVES),
    "custom, in a Scan": (_with_node(_scan(EVIL)), CUSTOM),
    "custom, in a Loop": (_with_node(_loop(EVIL)), CUSTOM),
    "custom, in a function of a function": (_in_function(EVIL), CUSTOM),
    "precompiled, by path": (_with_node(_context(embed_mode=0, ep_cache_context="../../x")), PRECOMPILED),
    "precompiled, embedded": (_with_node(_context(embed_mode=1, ep_cache_context=b"\0" * 9)), PRECOMPILED),
    "precompiled, in an If": (_with_node(_if(_context(ep_cache_context="/etc/x"))), PRECOMPILED),
    "precompiled, in a function": (_in_function(_context(ep_cache_context="/etc/x")), PRECOMPILED),
    "location twice": (
        _matmul(_external([*OUTSIDE, *INSIDE[:1]])),
        "external data of tensor 'w' gives 'location' twice",
    ),
    "offset twice": (_matmul(_external([*INSIDE, ("offset", "")])), "gives 'offset' twice"),
    "packed weights": (
        _matmul(_external([*INSIDE, ("prepacked_0", "k|0;256;")])),
        "packed for one machine; save the model without session.save_external_prepacked",
    ),
    "offset of underscores": (_matmul(_external([INSIDE[0], ("offset", "1_0")])), "is not a number"),
    "offset of other digits": (_matmul(_external([INSIDE[0], ("offset", "٨")])), "is not a number"),
    "offset huge": (_matmul(_external([INSIDE[0], ("offset", str(2**63))])), "of a file of 256: cut short"),
    "length huge": (_matmul(_external([*INSIDE[:2], ("length", str(2**64 - 1))])), "of a file of 256"),
    "offset endless": (_matmul(_external([INSIDE[0], ("offset", "9" * 9999)])), "is not a number"),
    "location endless": (_matmul(_external([("location", "a" * 999)])), "cannot be read: File name too long"),
    "location through a file": (_matmul(_external([("location", "w.bin/x")])), "is missing from the version"),
    "shape larger than the data": (
        _matmul(_external(INSIDE, [1 << 40, 1 << 20])),
        "holds 256 bytes, the tensor",
    ),
    "shape without data": (
        _matmul(TensorProto(name="w", dims=[1 << 40], data_type=FLOAT)),
        "tensor 'w' holds no data, its shape needs 1099511627776 elements",
    ),
    "negative sizes": (
        _matmul(TensorProto(name="w", dims=[-2, -32], data_type=FLOAT, raw_data=bytes(256))),
        "tensor 'w' has a negative size",
    ),
    "nested endlessly": (_nested(60), "nested too deeply"),
    "domain that is no text": (
        _no_text(_with_node(EVIL), b"evil"),
        r"custom operator '\\xff\\xff\\xff\\xff::Run",
    ),
    "input that is no text": (
        _no_text(_matmul(_external(INSIDE)), b"x"),
        r"not a valid ONNX file: '\\xff' is a name that is not UTF-8 text",
    ),
    "size that is no text": (_no_text(_matmul(_external(INSIDE)), b"n"), "is a name that is not UTF-8 text"),
    "location that is no text": (
        _no_text(_matmul(_external(INSIDE)), b"w.bin"),
        "name that is not UTF-8 text",
    ),
    "endless name": (_loud("n" * 100_000), "tensor 'n{119}…' at '../w.bin' leaves"),
    "name for a terminal": (_loud("\x1b[31m\nw\u202e"), r"tensor '\\x1b\[31m\\nw\\u202e' at"),
}


def _layout(folder: Path) -> Path:
    """Lay out a version directory with weights, and others outside it."""
    directory = folder / "secret-place" / "1"
    directory.mkdir(parents=True)
    for path in (directory / "w.bin", directory.parent / "w.bin"):
        path.write_bytes(WEIGHTS.tobytes())
    return directory


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(tmp_path: Path, content: onnx.ModelProto | bytes, reason: str) -> None:
    """The refusal says what the file does, on one printable line that names no path of the server."""
    artifact = save(_layout(tmp_path), content)
    with pytest.raises(Refused, match=reason) as caught:
        inspect(Request(str(artifact.directory), str(artifact.model_file)))
    told = str(caught.value)
    assert "secret-place" not in told
    assert told.isprintable()
    assert len(told) < 500


def test_allowing_custom_operators_allows_nothing_else(tmp_path: Path) -> None:
    """`allow_custom_ops` lets neither precompiled programs nor data from outside through."""
    directory = _layout(tmp_path)
    for content, reason in (
        (_with_node(_context(ep_cache_context="x")), PRECOMPILED),
        (_with_node(helper.make_node("Run", ["x"], ["y"], domain="evil", w=_external(OUTSIDE))), LEAVES),
    ):
        path = save(directory, content).model_file
        with pytest.raises(Refused, match=reason):
            inspect(Request(str(directory), str(path), allow_custom_ops=True))


async def test_external_data_beside_a_nested_model_file(tmp_path: Path) -> None:
    """Data is looked for beside the model file, where ONNX Runtime looks, not at the version's root."""
    directory = _layout(tmp_path)
    made = _matmul(_external(INSIDE))
    nested = save(directory / "onnx", made)
    artifact = Artifact(directory, nested.model_file, "d")
    with pytest.raises(ModelLoadError, match=r"'w\.bin' is missing from the version directory"):
        await inspect_file(artifact, InspectionLimits())
    (directory / "onnx" / "w.bin").write_bytes((WEIGHTS * 2).tobytes())
    loaded = await load(artifact)
    x = np.ones((1, 2), np.float32)
    result = await loaded.infer(batch({"x": x}))
    np.testing.assert_array_equal(result.outputs["y"], x @ (WEIGHTS * 2).reshape(2, 32))
    await loaded.aclose()
    save(directory / "onnx", _matmul(_external(OUTSIDE)))
    with pytest.raises(ModelLoadError, match=LEAVES):
        await inspect_file(artifact, InspectionLimits())


async def test_directory_of_the_model_file_that_leads_out(tmp_path: Path) -> None:
    """A model file behind a linked directory is refused, though a second link leads back inside."""
    directory = _layout(tmp_path)
    real = save(directory, _matmul(_external(INSIDE)), "real.onnx")
    (directory / "sub").symlink_to(directory.parent)
    (directory.parent / "model.onnx").symlink_to(real.model_file)
    artifact = Artifact(directory, directory / "sub" / "model.onnx", "d")
    with pytest.raises(ModelLoadError, match="link that leaves the version directory"):
        await inspect_file(artifact, InspectionLimits())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
async def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A model file without read permission is told without its path."""
    artifact = save(tmp_path / "secret-place", _matmul(_external(INSIDE)))
    artifact.model_file.chmod(0)
    with pytest.raises(ModelLoadError, match="it cannot be read: Permission denied"):
        await inspect_file(artifact, InspectionLimits())


async def test_settings_in_metadata_are_ignored_and_told(tmp_path: Path) -> None:
    """Session settings that the author put into the file change nothing, and the operator learns of it."""
    made = _with_node(helper.make_node("Identity", ["x"], ["y"]))
    wanted = {"session_options": {"intra_op_num_threads": 7, "custom_ops_library": "/tmp/evil.so"}}
    made.metadata_props.add(key="ort_config", value=json.dumps(wanted))
    made.metadata_props.add(key="author", value="a person")
    told: list[str] = []
    loaded = await load(save(tmp_path, made), OnnxRuntimeBackend(told.append), name="m")
    await loaded.aclose()
    (notice,) = [text for text in told if "metadata" in text]
    assert notice.startswith("model 'm': the file's metadata 'ort_config' is ignored: how the server runs")


@pytest.mark.parametrize(
    "make",
    [
        lambda size: b"\x3a" + b"\xff\xff\xff\xff\x07" + bytes(size),
        lambda size: b"\x72\x00" * (size // 2),
        lambda size: b"\x42\x00" * (size // 2),
    ],
    ids=["one field of 2 GiB", "a million metadata entries", "a million opset imports"],
)
async def test_malformed_protobuf_stays_in_the_child(tmp_path: Path, make: Callable[[int], bytes]) -> None:
    """Files made to exhaust a parser are refused within the child's bounds."""
    with pytest.raises(ModelLoadError, match=r"not a complete ONNX file|takes more memory than allowed"):
        await inspect_file(save(tmp_path, make(2_000_000)), InspectionLimits())
