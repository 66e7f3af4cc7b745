"""Which models are batched, along which axes, and which never."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateway.backends.onnxruntime.backend import OnnxRuntimeBackend
from gateway.backends.onnxruntime.graph import GraphReport, GraphTensor
from gateway.backends.onnxruntime.signature import Claim, read_signature
from gateway.core.errors import ModelLoadError
from gateway.core.options import BatchingOptions, ModelSpec, WarmUp
from tests.backends.graphs import batch, load, model, one_op, save, tensor

if TYPE_CHECKING:
    from pathlib import Path

    import onnx


def _tensors(shapes: dict[str, Any]) -> tuple[GraphTensor, ...]:
    return tuple(GraphTensor(name, "FP32", "tensor(float)", dims) for name, dims in shapes.items())


def _report(inputs: dict[str, Any], outputs: dict[str, Any]) -> GraphReport:
    return GraphReport(_tensors(inputs), _tensors(outputs), (), 0)


@pytest.mark.parametrize(
    ("inputs", "outputs", "claim"),
    [
        ({"x": ("n", 2)}, {"y": ("n",)}, Claim.NAMED),
        ({"x": ("n", 2), "z": ("n",)}, {"y": ("n", 3)}, Claim.NAMED),
        ({"x": (None, 2)}, {"y": (None, 2)}, Claim.GUESSED),
        ({"x": ("n", 2)}, {"y": (None, 2)}, Claim.GUESSED),
        ({"x": ("n", 2)}, {"y": ("m", 2)}, Claim.GUESSED),
        ({"x": ("unk__1", 2), "z": ("unk__2", 2)}, {"y": ("unk__3",)}, Claim.GUESSED),
        ({"x": ("batch", 2), "z": ("unk__2", 2)}, {"y": ("batch",)}, Claim.GUESSED),
        ({"x": ("images", 2), "z": ("boxes", 4)}, {"y": ("images",)}, Claim.NONE),
        ({"x": (1, 2)}, {"y": (1, 2)}, Claim.NONE),
        ({"x": ("n", 2)}, {"y": (1, 2)}, Claim.NONE),
        ({"x": ("n", 2), "sr": ()}, {"y": ("n",)}, Claim.NONE),
        ({"x": ("n", 2), "state": (2, "n", 8)}, {"y": ("n",)}, Claim.NONE),
        ({"x": ("n", 2)}, {"y": ()}, Claim.NONE),
        ({"x": ("n", 2)}, {"y": None}, Claim.NONE),
        ({}, {"y": ("n",)}, Claim.NONE),
    ],
)
def test_claim_of_a_file(inputs: dict[str, Any], outputs: dict[str, Any], claim: Claim) -> None:
    """A file claims to be batchable only when all first axes are variable and may be one size."""
    reading = read_signature(_report(inputs, outputs), ModelSpec(name="m"))
    assert reading.claim is claim
    tensors = (*reading.signature.inputs, *reading.signature.outputs)
    assert {t.batch_axis for t in tensors} == ({None} if claim is Claim.NONE else {0})


STATEFUL = _report(
    {"x": ("n", None), "state": (2, "n", 8), "sr": ()}, {"y": ("n", 1), "next": (None, None, None)}
)


def test_declared_axes() -> None:
    """Declared axes are taken per tensor; what is not declared has its first, and a scalar none."""
    spec = ModelSpec(name="m", batch_axes={"state": 1, "next": 1})
    reading = read_signature(STATEFUL, spec)
    tensors = (*reading.signature.inputs, *reading.signature.outputs)
    assert reading.claim is Claim.DECLARED
    assert [t.batch_axis for t in tensors] == [0, 1, None, 0, 1]


@pytest.mark.parametrize(
    ("axes", "reason"),
    [
        ({"state": 0}, "axis 0 of 'state' has the fixed size 2"),
        ({"state": 3}, "axis 3 of 'state' is not one of its 3 axes"),
        ({"state": -1}, "axis -1 of 'state' is not one of its 3 axes"),
        ({"state": 1, "sr": 0}, "axis 0 of 'sr' is not one of its 0 axes"),
        ({"x": 0}, "axis 0 of 'state' has the fixed size 2"),
        ({"stat": 1}, "'stat', which the model does not have; did you mean 'state'"),
    ],
)
def test_declared_axes_that_do_not_fit(axes: dict[str, int], reason: str) -> None:
    """A declared axis that the file contradicts refuses the load and names tensor and axis."""
    with pytest.raises(ModelLoadError, match=reason):
        read_signature(STATEFUL, ModelSpec(name="m", batch_axes=axes))


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(name="m", batch_axes={"x": None}),
        ModelSpec(name="m", batch_axes={"y": None}),
        ModelSpec(name="m", max_batch_size=0),
    ],
)
def test_batching_declined(spec: ModelSpec) -> None:
    """Settings that say there is no batch axis are obeyed, for every tensor."""
    reading = read_signature(_report({"x": ("n", 2)}, {"y": ("n", 2)}), spec)
    assert reading.claim is Claim.NONE
    assert not reading.signature.batchable
    assert reading.signature.inputs[0].batch_axis is None


def test_max_batch_size_declares_the_first_axis() -> None:
    """A positive max_batch_size declares every first axis, and a fixed one contradicts it."""
    spec = ModelSpec(name="m", max_batch_size=8)
    assert read_signature(_report({"x": ("a",)}, {"y": ("b",)}), spec).claim is Claim.DECLARED
    with pytest.raises(ModelLoadError, match="axis 0 of 'x' has the fixed size 1"):
        read_signature(_report({"x": (1, 2)}, {"y": (1, 2)}), spec)


def test_types_the_protocol_has_not() -> None:
    """An output that is no tensor is left out with a warning; as an input, or the only output, it refuses."""
    sequence = GraphTensor("maps", None, "sequence", None)
    good = _tensors({"x": ("n",)})
    reading = read_signature(GraphReport(good, (*good, sequence), (), 0), ModelSpec(name="m"))
    assert [t.name for t in reading.signature.outputs] == ["x"]
    assert "output 'maps' of type sequence is left out" in reading.warnings[0]
    with pytest.raises(ModelLoadError, match="no output is a tensor"):
        read_signature(GraphReport(good, (sequence,), (), 0), ModelSpec(name="m"))
    with pytest.raises(ModelLoadError, match="input 'maps' is of type sequence"):
        read_signature(GraphReport((sequence,), good, (), 0), ModelSpec(name="m"))


def _centred(rows: str | None) -> onnx.ModelProto:
    """Subtract the mean over rows: a point cloud's model, say, whose rows belong together."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return model(nodes, [tensor("x", [rows, 2])], [tensor("y", [rows, 2])])


def _unstable(rows: str | None) -> onnx.ModelProto:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], scale=1.0),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    return model(nodes, [tensor("x", [rows, 2])], [tensor("y", [rows, 2])])


def _picky() -> onnx.ModelProto:
    """Take only 5,7-element rows, which nobody guesses."""
    shape = numpy_helper.from_array(np.array([-1, 5, 7]), "s")
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    outputs = [tensor("y", ["m", 5, 7])]
    return model([node], [tensor("x", ["n", None])], outputs, initializers=[shape])


def _pairwise() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    return model(nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", "n"])])


BATCHABLE = {
    "elementwise, named": (one_op("Relu", ["n", 2], ["n", 2]), {}, True),
    "elementwise, unnamed": (one_op("Relu", [None, 2], [None, 2]), {}, True),
    "integers": (one_op("Neg", [None, 2], [None, 2], TensorProto.INT64), {}, True),
    "text": (one_op("Identity", [None], [None], TensorProto.STRING), {}, True),
    "variable axes": (one_op("Relu", [None, None, None], [None, None, None]), {}, True),
    "inferred rank": (one_op("Relu", ["n", 2], None), {}, True),
    "softmax of features": (one_op("Softmax", ["n", 5], ["n", 5], axis=1), {}, True),
    "softmax over rows": (one_op("Softmax", ["n", 5], ["n", 5], axis=0), {}, False),
    "centred, named": (_centred("n"), {}, False),
    "centred, unnamed": (_centred(None), {}, False),
    "centred, declared": (_centred("n"), {"batch_axes": {"x": 0, "y": 0}}, True),
    "pairwise": (_pairwise(), {}, False),
    "unstable, named": (_unstable("n"), {}, True),
    "unstable, unnamed": (_unstable(None), {}, False),
    "picky": (_picky(), {}, False),
    "picky, shape declared": (_picky(), {"warm_up": WarmUp(shapes={"x": (-1, 35)})}, True),
    "picky, unchecked": (_picky(), {"backend_options": {"row_check": False}}, True),
    "picky, never merged": (_picky(), {"batching": BatchingOptions(enabled=False)}, True),
}


@pytest.mark.parametrize(("made", "spec", "batchable"), BATCHABLE.values(), ids=BATCHABLE.keys())
async def test_batched_only_where_rows_are_independent(
    tmp_path: Path, made: onnx.ModelProto, spec: dict[str, Any], batchable: bool
) -> None:
    """Running a model decides: rows that influence each other, or may, are never merged unless declared."""
    said: list[str] = []
    loaded = await load(save(tmp_path, made), OnnxRuntimeBackend(said.append), **spec)
    assert loaded.signature.batchable is batchable
    assert batchable or any("served unbatched" in sentence for sentence in said)
    await loaded.aclose()


async def test_declared_against_the_evidence_warns(tmp_path: Path) -> None:
    """Rows that influence each other are merged when that is declared, and it is said, once."""
    said: list[str] = []
    backend = OnnxRuntimeBackend(said.append)
    for _ in range(2):
        await (await load(save(tmp_path, _centred("n")), backend, max_batch_size=4)).aclose()
    assert len(said) == 1
    assert "model 'm': batched as declared, though its rows influence each other" in said[0]


async def test_outputs_of_an_unbatched_model_keep_their_rank(tmp_path: Path) -> None:
    """An output whose rank only ONNX Runtime knows has it in the signature."""
    loaded = await load(save(tmp_path, one_op("Relu", [3, 2], None)))
    assert loaded.signature.outputs[0].shape == (3, 2)
    result = await loaded.infer(batch({"x": np.ones((3, 2), np.float32)}))
    assert result.outputs["y"].shape == (3, 2)
    await loaded.aclose()
