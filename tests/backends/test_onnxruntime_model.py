"""What ONNX Runtime answers through the backend: every datatype, every failure, bit for bit."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gateway.backends.onnxruntime.backend import OnnxRuntimeBackend
from gateway.backends.onnxruntime.runner import Runner
from gateway.core.errors import BackendError, BackendUnavailable, InvalidRequest, ModelLoadError
from gateway.core.options import WarmUp
from gateway.core.types import Artifact, Datatype, TensorSpec
from tests.backends.graphs import FLOAT, batch, identity, load, model, one_op, save, tensor

ROOT = Path(__file__).resolve().parents[2]
ELEMENTS = {
    Datatype.BOOL: TensorProto.BOOL,
    Datatype.UINT8: TensorProto.UINT8,
    Datatype.UINT16: TensorProto.UINT16,
    Datatype.UINT32: TensorProto.UINT32,
    Datatype.UINT64: TensorProto.UINT64,
    Datatype.INT8: TensorProto.INT8,
    Datatype.INT16: TensorProto.INT16,
    Datatype.INT32: TensorProto.INT32,
    Datatype.INT64: TensorProto.INT64,
    Datatype.FP16: TensorProto.FLOAT16,
    Datatype.FP32: TensorProto.FLOAT,
    Datatype.FP64: TensorProto.DOUBLE,
    Datatype.BF16: TensorProto.BFLOAT16,
    Datatype.BYTES: TensorProto.STRING,
}
TEXTS = [b"", b"plain", "jäger".encode(), b"nul\0inside", "\U0001f98a".encode(), b"x" * 5000]


def _extremes(datatype: Datatype) -> Any:
    """Return six elements, the least and the greatest value among them."""
    if datatype is Datatype.BYTES:
        return np.array(TEXTS, np.object_)
    if datatype is Datatype.BOOL:
        return np.array([True, False, False, True, True, False])
    info = np.iinfo if datatype.dtype.kind in "iu" else ml_dtypes.finfo
    bounds = info(datatype.dtype)
    return np.array([bounds.min, bounds.max, 0, 1, 2, 3], datatype.dtype)


@pytest.mark.parametrize("binding", [False, True], ids=["run", "io_binding"])
@pytest.mark.parametrize("datatype", Datatype, ids=lambda d: d.value)
async def test_every_datatype_both_ways(tmp_path: Path, datatype: Datatype, binding: bool) -> None:
    """Every datatype of the protocol passes unchanged, at its extremes and with no rows at all."""
    artifact = save(tmp_path, identity(("batch", 2), ELEMENTS[datatype]))
    loaded = await load(artifact, backend_options={"io_binding": binding})
    spec = TensorSpec("x", datatype, (-1, 2), 0)
    assert loaded.signature.inputs == (spec,)
    for x in (_extremes(datatype).reshape(3, 2), np.empty((0, 2), datatype.dtype)):
        y = (await loaded.infer(batch({"x": x}, rows=len(x)))).outputs["y"]
        assert (y.dtype, y.shape) == (datatype.dtype, x.shape)
        assert y.tolist() == x.tolist()
        assert not np.shares_memory(x, y)
    await loaded.aclose()


@pytest.mark.parametrize("datatype", [Datatype.FP32, Datatype.BF16, Datatype.BYTES], ids=lambda d: d.value)
async def test_scalars(tmp_path: Path, datatype: Datatype) -> None:
    """A scalar goes in and comes out with no axes, and its model is not batched."""
    loaded = await load(save(tmp_path, identity((), ELEMENTS[datatype])))
    assert not loaded.signature.batchable
    x = np.array(_extremes(datatype)[1], datatype.dtype)
    y = (await loaded.infer(batch({"x": x}))).outputs["y"]
    assert (y.dtype, y.shape) == (datatype.dtype, ())
    assert y.item() == x.item()
    await loaded.aclose()


async def test_only_outputs_asked_for(tmp_path: Path) -> None:
    """Outputs nobody asked for are not computed into the result."""
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    sides = [tensor("x", ["n"])], [tensor("y", ["n"]), tensor("z", ["n"])]
    loaded = await load(save(tmp_path, model(nodes, *sides)))
    result = await loaded.infer(batch({"x": np.ones(1, np.float32)}, "z"))
    assert {name: array.tolist() for name, array in result.outputs.items()} == {"z": [-1.0]}
    await loaded.aclose()


async def test_overridable_initializer_as_optional_input(tmp_path: Path) -> None:
    """An initializer declared under optional_inputs may be sent, and has its default when it is not."""
    weight = numpy_helper.from_array(np.array([2, 3], np.float32), "w")
    inputs = [tensor("x", ["n", 2]), tensor("w", [2])]
    made = model(
        [helper.make_node("Mul", ["x", "w"], ["y"])], inputs, [tensor("y", ["n", 2])], initializers=[weight]
    )
    artifact = save(tmp_path, made)
    loaded = await load(artifact, backend_options={"optional_inputs": ["w"]})
    assert loaded.signature.batchable
    assert loaded.signature.inputs[1] == TensorSpec("w", Datatype.FP32, (2,), None, optional=True)
    x, w = np.ones((1, 2), np.float32), np.array([5, 7], np.float32)
    assert (await loaded.infer(batch({"x": x}))).outputs["y"].tolist() == [[2, 3]]
    assert (await loaded.infer(batch({"x": x, "w": w}))).outputs["y"].tolist() == [[5, 7]]
    await loaded.aclose()
    with pytest.raises(ModelLoadError, match="'v', which is no initializer"):
        await load(artifact, backend_options={"optional_inputs": ["v"]})


async def test_input_of_optional_type(tmp_path: Path) -> None:
    """An input of ONNX's optional type may be left out."""
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["n", 2]))
    there = helper.make_node("OptionalGetElement", ["o"], ["t"])
    absent = helper.make_node("Identity", ["x"], ["e"])
    choice = helper.make_node(
        "If",
        ["has"],
        ["y"],
        then_branch=helper.make_graph([there], "then", [], [tensor("t", ["n", 2])]),
        else_branch=helper.make_graph([absent], "else", [], [tensor("e", ["n", 2])]),
    )
    nodes = [helper.make_node("OptionalHasElement", ["o"], ["has"]), choice]
    inputs = [tensor("x", ["n", 2]), helper.make_value_info("o", kind)]
    loaded = await load(save(tmp_path, model(nodes, inputs, [tensor("y", ["n", 2])], opset=18)))
    assert [t.optional for t in loaded.signature.inputs] == [False, True]
    x = np.ones((1, 2), np.float32)
    assert (await loaded.infer(batch({"x": x}))).outputs["y"].tolist() == [[1, 1]]
    assert (await loaded.infer(batch({"x": x, "o": 3 * x}))).outputs["y"].tolist() == [[3, 3]]
    await loaded.aclose()


async def test_a_run_is_let_run_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lets it run is held up until it has ended, or for as long as they said."""
    loaded = await load(save(tmp_path, identity(("n",))))
    begun, may_end = threading.Event(), threading.Event()
    run = Runner.run

    def held(self: Runner, *args: Any) -> Any:
        begun.set()
        assert may_end.wait(30)
        return run(self, *args)

    monkeypatch.setattr(Runner, "run", held)
    loaded.let_run(30)  # there is none: nothing is waited for
    answer = asyncio.ensure_future(loaded.infer(batch({"x": np.ones(2, np.float32)}, rows=2)))
    await asyncio.to_thread(begun.wait, 30)
    loaded.let_run(0.001)  # comes back although the run goes on
    ending = threading.Timer(0.01, may_end.set)
    ending.start()
    loaded.let_run(30)
    assert may_end.is_set()
    assert not answer.done()  # the loop has not had a turn since
    await answer
    loaded.let_run(30)
    await loaded.aclose()


async def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """Bytes that are no text are their sender's mistake, the element is named, and the next run works."""
    loaded = await load(save(tmp_path, identity(("n",), TensorProto.STRING)))
    with pytest.raises(InvalidRequest, match="model 'm': element 1 of input 'x' is not UTF-8"):
        await loaded.infer(batch({"x": np.array([b"ok", b"\xff\xfe"], np.object_)}, rows=2))
    good = await loaded.infer(batch({"x": np.array([b"ok"], np.object_)}))
    assert good.outputs["y"].tolist() == [b"ok"]
    await loaded.aclose()


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"x": np.ones((1, 3), np.float32)}, "x.*Got: 3 Expected: 2"),
        ({"x": np.ones((1, 2), np.float64)}, r"Actual: \(tensor\(double\)\)"),
        ({"z": np.ones((1, 2), np.float32)}, "'x'"),
    ],
)
async def test_wrong_inputs_fail_their_run(tmp_path: Path, inputs: dict[str, Any], reason: str) -> None:
    """Inputs that do not fit give a BackendError that names the model and what is wrong, on one line."""
    loaded = await load(save(tmp_path, identity()))
    with pytest.raises(BackendError, match=reason) as caught:
        await loaded.infer(batch(inputs))
    assert not isinstance(caught.value, BackendUnavailable)
    assert str(caught.value).startswith("model 'm' failed to run: ")
    assert "\n" not in str(caught.value)
    await loaded.aclose()


async def test_failing_operator_names_itself_and_no_path(tmp_path: Path) -> None:
    """A failure inside the graph names operator and cause, without source paths of the library."""
    node = helper.make_node("Reshape", ["x", "s"], ["y"], name="/model/fold")
    inputs = [tensor("x", ["n", 3]), tensor("s", [2], TensorProto.INT64)]
    loaded = await load(save(tmp_path, model([node], inputs, [tensor("y", [None, None])])))
    feeds = {"x": np.ones((2, 3), np.float32), "s": np.array([4, 4])}
    with pytest.raises(BackendError, match=r"Reshape node '/model/fold': .*cannot be reshaped") as caught:
        await loaded.infer(batch(feeds))
    assert "onnxruntime_src" not in str(caught.value)
    assert "(const" not in str(caught.value)
    await loaded.aclose()


async def test_out_of_memory_is_the_backends_failure(tmp_path: Path) -> None:
    """An allocation that fails is no fault of a row."""
    inputs = [tensor("x", [1]), tensor("s", [2], TensorProto.INT64)]
    node = helper.make_node("Expand", ["x", "s"], ["y"])
    loaded = await load(save(tmp_path, model([node], inputs, [tensor("y", [None, None])])))
    feeds = {"x": np.ones(1, np.float32), "s": np.array([1 << 24, 1 << 24])}
    with pytest.raises(BackendUnavailable, match="allocate memory"):
        await loaded.infer(batch(feeds))
    await loaded.aclose()


async def test_cancelled_load_leaves_nothing(tmp_path: Path) -> None:
    """A load cancelled at any await raises CancelledError, and the next load of the file works."""
    artifact = save(tmp_path, identity())
    backend = OnnxRuntimeBackend()
    for turns in (0, 1, 3, 10, 200):
        loading = asyncio.ensure_future(load(artifact, backend))
        for _ in range(turns):
            await asyncio.sleep(0)
        if loading.cancel():
            with pytest.raises(asyncio.CancelledError):
                await loading
    await (await load(artifact, backend)).aclose()


async def test_close_waits_for_an_abandoned_run(tmp_path: Path) -> None:
    """Closing after a cancelled run neither breaks the run nor hangs."""
    loaded = await load(save(tmp_path, identity()))
    running = asyncio.ensure_future(loaded.infer(batch({"x": np.ones((1, 2), np.float32)})))
    await asyncio.sleep(0)
    running.cancel()
    await loaded.aclose()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "layout", "all"])
async def test_options_reach_the_session(tmp_path: Path, level: str) -> None:
    """A model loads and answers under every option that passes through to ONNX Runtime."""
    loaded = await load(
        save(tmp_path, identity()),
        instances=2,
        backend_options={
            "providers": ["cpu"],
            "intra_op_threads": 2,
            "inter_op_threads": "2",
            "execution_mode": "parallel",
            "graph_optimization_level": level,
            "session_options": {"session.intra_op.allow_spinning": False},
            "enable_mem_arena": "true",
            "enable_mem_pattern": False,
            "arena_shrinkage": True,
        },
    )
    assert (loaded.loaded.threads, loaded.instances) == ((2, 2), 2)
    assert loaded.loaded.providers == ("CPUExecutionProvider",)
    x = np.ones((1, 2), np.float32)
    assert (await loaded.infer(batch({"x": x}))).outputs["y"].tolist() == x.tolist()
    await loaded.aclose()


async def test_custom_operator_library_is_loaded_only_when_allowed(tmp_path: Path) -> None:
    """A library of custom operators is refused by default; when allowed, one that does not load says so."""
    artifact = save(tmp_path, identity())
    library = {"custom_op_libraries": [str(tmp_path / "absent.so")]}
    with pytest.raises(ModelLoadError, match="allow_custom_ops"):
        await load(artifact, backend_options=library)
    with pytest.raises(ModelLoadError, match=r"absent\.so"):
        await load(artifact, backend_options={**library, "allow_custom_ops": True})


SAMPLES = {
    "filetype": ROOT / "models/filetype/1/model.onnx",
    "digits": ROOT / "models/digits/1/model.onnx",
    "recogniser": ROOT / "build/test-models/recogniser/1/model.onnx",
    "silero_vad": ROOT / "build/test-models/silero_vad/1/model.onnx",
}


def _sample_inputs(name: str, rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    made: dict[str, dict[str, Any]] = {
        "filetype": {"bytes": rng.integers(0, 256, (rows, 2048)).astype(np.int32)},
        "digits": {"pixels": rng.random((rows, 64), np.float32)},
        "recogniser": {"x": rng.random((rows, 3, 48, 96), np.float32)},
        "silero_vad": {
            "input": rng.random((rows, 512), np.float32),
            "state": np.zeros((2, rows, 128), np.float32),
            "sr": np.array(16000),
        },
    }
    return made[name]


@pytest.mark.network
@pytest.mark.parametrize("name", SAMPLES)
async def test_real_models_answer_as_onnxruntime_does(name: str) -> None:
    """Real models give, bit for bit, what ONNX Runtime gives when called directly at the same batch size."""
    path = SAMPLES[name]
    loaded = await load(Artifact(path.parent, path, name), name=name)
    threads = onnxruntime.SessionOptions()
    threads.intra_op_num_threads = loaded.loaded.threads[0]
    direct = onnxruntime.InferenceSession(str(path), threads, providers=["CPUExecutionProvider"])
    outputs = [t.name for t in loaded.signature.outputs]
    for rows in (1, 3):
        inputs = _sample_inputs(name, rows)
        result = await loaded.infer(batch(inputs, *outputs, rows=rows))
        for output, expected in zip(outputs, direct.run(outputs, inputs), strict=True):
            np.testing.assert_array_equal(result.outputs[output], expected)
    await loaded.aclose()


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "batchable"), [("filetype", True), ("digits", True), ("recogniser", True), ("silero_vad", False)]
)
async def test_real_models_are_batched_only_where_that_is_right(name: str, batchable: bool) -> None:
    """Exporters' made-up axis names do not hinder batching; a scalar or a state with rows second does."""
    path = SAMPLES[name]
    loaded = await load(Artifact(path.parent, path, name), name=name)
    assert loaded.signature.batchable is batchable
    await loaded.aclose()


@pytest.mark.network
async def test_silero_with_declared_axes() -> None:
    """silero-vad is batched under declared axes, and a row's answer does not depend on its company."""
    path = SAMPLES["silero_vad"]
    loaded = await load(
        Artifact(path.parent, path, "d"),
        name="silero_vad",
        batch_axes={"state": 1, "stateN": 1, "sr": None},
        warm_up=WarmUp(shapes={"input": (-1, 512)}),
    )
    signature = loaded.signature
    assert [t.batch_axis for t in (*signature.inputs, *signature.outputs)] == [0, 1, None, 0, 1]
    assert signature.batchable
    both = _sample_inputs("silero_vad", 2)
    together = (await loaded.infer(batch(both, "output", "stateN", rows=2))).outputs
    for row in range(2):
        one = {**both, "input": both["input"][[row]], "state": both["state"][:, [row]]}
        alone = (await loaded.infer(batch(one, "output", "stateN"))).outputs
        np.testing.assert_allclose(together["output"][[row]], alone["output"], rtol=1e-5)
        np.testing.assert_allclose(together["stateN"][:, [row]], alone["stateN"], rtol=1e-5, atol=1e-6)
    await loaded.aclose()


async def test_unbatchable_op_is_served_anyway(tmp_path: Path) -> None:
    """A model whose first axis is fixed is served, unbatched."""
    loaded = await load(save(tmp_path, one_op("Neg", [1, 2], [1, 2])))
    assert not loaded.signature.batchable
    result = await loaded.infer(batch({"x": np.ones((1, 2), np.float32)}))
    assert result.outputs["y"].tolist() == [[-1, -1]]
    await loaded.aclose()
