"""Golden tests: their files, how a model's answers are compared, and what stands in the way of READY."""

from __future__ import annotations

import io
import json
import os
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from gateway.core.errors import ModelLoadError
from gateway.core.options import BatchingOptions, InstanceGroup, ModelSpec
from gateway.core.types import Datatype, Device, ModelSignature, TensorSpec, VersionState
from gateway.models.golden.comparison import Tolerance, difference
from gateway.models.golden.run import golden_files, run_golden
from gateway.testing import FakeLoadedModel, identity_signature
from tests.models.providers import FakeProvider, registered
from tests.models.stage import Stage, wanted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gateway.core.options import LoadOptions
    from gateway.core.types import Array, Artifact

TWO = identity_signature(features=2)


def signature(datatype: Datatype = Datatype.FP32, *, batched: bool = True) -> ModelSignature:
    shape, axis = ((-1, 2), 0) if batched else ((2,), None)
    return ModelSignature(
        (TensorSpec("x", datatype, shape, axis),), (TensorSpec("y", datatype, shape, axis),)
    )


def put_jsonl(directory: Path, *cases: Any) -> None:
    text = "\n".join(case if isinstance(case, str) else json.dumps(case) for case in cases)
    (directory / "golden.jsonl").write_text(text)


def put_npz(directory: Path, arrays: Mapping[str, Any]) -> None:
    np.savez_compressed(directory / "golden.npz", **dict(arrays))


def case(x: Any, y: Any, **more: Any) -> dict[str, Any]:
    return {"inputs": {"x": x}, "outputs": {"y": y}, **more}


async def run(
    directory: Path, model: FakeLoadedModel | None = None, **batching: Any
) -> tuple[int, FakeLoadedModel]:
    model = model or FakeLoadedModel(TWO)
    spec = ModelSpec(name="m", batching=BatchingOptions(**batching))
    return await run_golden(model, spec, golden_files(directory)), model


async def failure(directory: Path, model: FakeLoadedModel | None = None, **batching: Any) -> str:
    with pytest.raises(ModelLoadError) as caught:
        await run(directory, model, **batching)
    return str(caught.value)


async def test_expected_answers_pass(tmp_path: Path) -> None:
    """Every case is run as one batch of its rows; nothing is looked for but what a case expects."""
    put_jsonl(
        tmp_path,
        case([[1, 2]], [[1, 2]]),
        "",
        case([[3, 4], [5, 6]], [[3, 4], [5.004, 6]]),
        case([[1, 1]], [[1, 1]]),
    )
    runs, model = await run(tmp_path)
    assert runs == 3
    assert [(b.rows, b.inputs["x"].dtype, b.output_names) for b in model.batches] == [
        (rows, np.dtype("f4"), ("y",)) for rows in (1, 2, 1)
    ]


async def test_a_failure_says_all_there_is_to_say(tmp_path: Path) -> None:
    """Case, output, first index, both values, tolerance, and how much is wrong at most where."""
    put_jsonl(tmp_path, case([[1, 2]], [[1, 2]]), case([[1, 2], [3, 4]], [[1, 2.5], [3, 2]]))
    assert await failure(tmp_path) == (
        "golden.jsonl case 2: output 'y' at [0, 1]: got 2, expected 2.5 (rtol 0.001, atol 1e-05); "
        "2 of 4 values differ, the worst by 2 at [1, 1] (on cpu)"
    )


async def test_tolerance_is_the_cases_own(tmp_path: Path) -> None:
    """A case may be stricter or more lenient than the default."""
    put_jsonl(tmp_path, case([[1, 2]], [[1, 2.5]], tolerance={"atol": 0.5}))
    assert (await run(tmp_path))[0] == 1
    put_jsonl(tmp_path, case([[1, 2]], [[1, 2.0001]], tolerance={"rtol": 0, "atol": 1e-6}))
    assert "got 2, expected 2.0001 (rtol 0, atol 1e-06)" in await failure(tmp_path)


async def test_tensors_with_their_datatype_and_shape(tmp_path: Path) -> None:
    """A tensor may be written as in a request, its data flat."""
    tensor = {"datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
    put_jsonl(tmp_path, case(tensor, {**tensor, "data": [[1, 2], [3, 4]]}))
    _, model = await run(tmp_path)
    assert model.batches[0].inputs["x"].shape == (2, 2)


FLAT = {"datatype": "FP32", "shape": [1, 2], "data": [1, 2]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "golden.jsonl case 1: Expecting property name"),
        ("[]", "golden.jsonl case 1: a case must be an object"),
        ({"inputs": {"x": [[1, 2]]}}, "outputs must be an object"),
        ({"inputs": {"x": [[1, 2]]}, "outputs": {}}, "no output is expected"),
        ({**case([[1, 2]], [[1, 2]]), "input": {}}, "unknown member 'input', a case has inputs, outputs"),
        ({"inputs": {}, "outputs": {"y": [[1, 2]]}}, "input 'x' is missing"),
        ({"inputs": {"z": []}, "outputs": {}}, "the model has no input 'z', its inputs are x"),
        ({"inputs": {"x": [[1, 2]]}, "outputs": {"z": 1}}, "the model has no output 'z', its outputs are y"),
        (case([[1, 2], [3]], [[1, 2]]), "input 'x' has lists of unequal lengths"),
        (case([[1, 2, 3]], [[1, 2]]), "input 'x' has shape [1, 3], the model has [-1, 2]"),
        (case([], []), "input 'x' has shape [0], the model has [-1, 2]"),
        (case([["1", "2"]], [[1, 2]]), "input 'x' has elements that are no FP32"),
        (case([[1, None]], [[1, 2]]), "input 'x' has elements that are no FP32"),
        (case([[1, 1e39]], [[1, 2]]), "input 'x' has a value out of range for FP32"),
        (case({"data": [1]}, [[1, 2]]), "input 'x' must be a list, or have datatype, shape and data"),
        (case({**FLAT, "datatype": "INT8"}, [[1, 2]]), "input 'x' is INT8, the model has FP32"),
        (case({**FLAT, "shape": [1, -2]}, [[1, 2]]), "the shape of input 'x' must be a list of sizes"),
        (case({**FLAT, "shape": [2, 2]}, [[1, 2]]), "input 'x' has shape [2, 2] and 2 elements"),
        (case([[1, 2]], [[1, 2]], tolerance={"abs": 1}), "unknown tolerance 'abs', there are rtol and atol"),
        (case([[1, 2]], [[1, 2]], tolerance={"atol": -1}), "atol must be a number from 0 up"),
        (case([[1, 2]], [[1, 2]], tolerance={"rtol": True}), "rtol must be a number from 0 up"),
        (case([[1, 2]], [[1, 2], [3, 4]]), "output 'y' has shape [1, 2], expected [2, 2]"),
        (case({**FLAT, "shape": [0, 2], "data": []}, [[1, 2]]), "must have one number of rows, and have [0]"),
        ("[" * 100_000, "golden.jsonl case 1 is nested too deeply"),
        ("", "golden.jsonl holds no case"),
    ],
)
async def test_a_wrong_line_is_told(tmp_path: Path, line: Any, message: str) -> None:
    """Whatever is wrong with a case, the message names it and what to mend."""
    put_jsonl(tmp_path, line)
    assert message in await failure(tmp_path)


@pytest.mark.parametrize(
    ("datatype", "x", "bad", "message"),
    [
        (
            Datatype.INT64,
            [2**60, 1],
            [2**60 + 1, 1],
            f"got {2**60}, expected {2**60 + 1}; 1 of 2",
        ),
        (Datatype.INT32, [1000, 1], [1001, 1], "got 1000, expected 1001; 1 of 2 value differs"),
        (Datatype.UINT8, [255, 0], [254, 0], "got 255, expected 254"),
        (Datatype.BOOL, [True, False], [True, True], "got False, expected True; 1 of 2"),
        (Datatype.BYTES, ["a\0", "é"], ["a", "é"], r"got b'a\x00', expected b'a'"),
        (Datatype.FP16, [0.1, 1], [0.2, 1], "got 0.0999755859, expected 0.2"),
        (Datatype.BF16, [1.5, 1], [2, 1], "got 1.5, expected 2"),
        (Datatype.FP64, [1e300, 1], [-1e300, 1], "the worst by 2e+300"),
        (Datatype.FP32, [1, float("nan")], [float("nan"), 1], "got 1, expected nan"),
        (Datatype.FP32, [1, float("inf")], [1, float("-inf")], "got inf, expected -inf"),
        (Datatype.FP32, [1, 2], [1, float("inf")], "got 2, expected inf"),
    ],
)
async def test_each_datatype_is_compared_by_its_own_rule(
    tmp_path: Path, datatype: Datatype, x: Any, bad: Any, message: str
) -> None:
    """Floats within the tolerance, NaN equal to NaN, everything else exactly."""
    put_jsonl(tmp_path, case([x], [x]))
    await run(tmp_path, FakeLoadedModel(signature(datatype)))
    put_jsonl(tmp_path, case([x], [bad]))
    assert message in await failure(tmp_path, FakeLoadedModel(signature(datatype)))


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        (Datatype.INT8, 128),
        (Datatype.UINT64, -1),
        (Datatype.INT64, 1.5),
        (Datatype.BOOL, 1),
        (Datatype.BYTES, 1),
    ],
)
async def test_values_of_another_kind_are_refused(tmp_path: Path, datatype: Datatype, value: Any) -> None:
    """Nothing is wrapped, rounded or taken for something else."""
    put_jsonl(tmp_path, case([[value, value]], [[value, value]]))
    assert "golden.jsonl case 1: input 'x' has" in await failure(
        tmp_path, FakeLoadedModel(signature(datatype))
    )


async def test_rows_beyond_the_largest_batch_are_run_in_parts(tmp_path: Path) -> None:
    """Parts are padded to an allowed size, as batches are, and compared without the padding."""
    rows = [[n, n] for n in range(7)]
    put_jsonl(tmp_path, case(rows, rows))
    runs, model = await run(tmp_path, max_batch_rows=4, allowed_rows=(2, 4))
    assert runs == 2
    assert [(b.rows, b.inputs["x"].shape) for b in model.batches] == [(4, (4, 2)), (4, (4, 2))]
    assert model.batches[1].inputs["x"][3].tolist() == [0, 0]
    assert all(b.inputs["x"].flags.c_contiguous for b in model.batches)


async def test_a_batch_axis_may_be_elsewhere(tmp_path: Path) -> None:
    """Rows are cut along the batch axis that each tensor has."""
    across = ModelSignature(
        (TensorSpec("x", Datatype.FP32, (2, -1), 1),), (TensorSpec("y", Datatype.FP32, (2, -1), 1),)
    )
    put_npz(tmp_path, {"input:x": [[1, 2, 3], [4, 5, 6]], "output:y": [[1, 2, 3], [4, 5, 9]]})
    model = FakeLoadedModel(across)
    message = await failure(tmp_path, model, max_batch_rows=2)
    assert message.startswith("golden.npz case 3: output 'y' at [1, 2]: got 6, expected 9")
    assert [b.inputs["x"].tolist() for b in model.batches] == [[[1, 2], [4, 5]], [[3], [6]]]


async def test_npz_rows_are_cases(tmp_path: Path) -> None:
    """Of a batched model the rows are cases, run together; the failing one is named by its number."""
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    put_npz(tmp_path, {"input:x": x, "output:y": x.astype(np.float64)})
    runs, model = await run(tmp_path)
    assert (runs, model.batches[0].rows) == (1, 6)
    y = x.copy()
    y[4, 1] += 1
    put_npz(tmp_path, {"input:x": x, "output:y": y})
    assert (await failure(tmp_path)).startswith("golden.npz case 5: output 'y' at [4, 1]: got 9, expected 10")
    put_npz(tmp_path, {"input:x": x, "output:y": y, "atol": 1.0, "rtol": np.float32(0)})
    await run(tmp_path)


async def test_npz_of_a_model_without_a_batch_axis(tmp_path: Path) -> None:
    """Cases lie along an axis in front of the model's own, and are run one by one."""
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    put_npz(tmp_path, {"input:x": x, "output:y": [[0, 1], [2, 3], [4, 6]]})
    model = FakeLoadedModel(signature(batched=False))
    message = await failure(tmp_path, model)
    assert message.startswith("golden.npz case 3: output 'y' at [1]: got 5, expected 6")
    assert [b.inputs["x"].shape for b in model.batches] == [(2,)] * 3


async def test_npz_shares_what_has_no_batch_axis(tmp_path: Path) -> None:
    """A tensor without rows in a batched model is the same for every case."""
    rate = TensorSpec("sr", Datatype.INT64, (), None)
    model = FakeLoadedModel(ModelSignature((*TWO.inputs, rate), TWO.outputs))
    rows = np.ones((3, 2), np.float32)
    put_npz(tmp_path, {"input:x": rows, "input:sr": np.int64(16000), "output:y": rows})
    await run(tmp_path, model, max_batch_rows=2)
    assert [int(b.inputs["sr"]) for b in model.batches] == [16000, 16000]


async def test_npz_texts(tmp_path: Path) -> None:
    """Texts of a fixed width are BYTES."""
    texts = np.array([["ab", "é"]])
    put_npz(tmp_path, {"input:x": texts, "output:y": np.char.encode(texts, "utf-8")})
    await run(tmp_path, FakeLoadedModel(signature(Datatype.BYTES)))


def npy(array: Array, *, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


ONE = np.ones((1, 2), np.float32)
LYING = npy(ONE).replace(b"(1, 2)", b"(9, 9)")
HUGE = npy(ONE).replace(b"(1, 2), }" + b" " * 12, b"(1099511627776, 2), }")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"input:x.npy": npy(ONE), "y.npy": npy(ONE)},
            "unknown array 'y', there are input:NAME, output:NAME",
        ),
        ({"input:x.npy": npy(ONE)}, "no output is expected"),
        ({"output:y.npy": npy(ONE)}, "input 'x' is missing"),
        (
            {"input:x.npy": npy(ONE), "output:y.npy": npy(ONE[:0])},
            "different numbers of rows: input 'x' has 1, ",
        ),
        ({"input:x.npy": npy(ONE[:0]), "output:y.npy": npy(ONE[:0])}, "golden.npz holds no case"),
        (
            {"input:x.npy": npy(ONE[0]), "output:y.npy": npy(ONE)},
            "input 'x' has shape [2], the model has [-1, 2]",
        ),
        ({"input:x.npy": npy(ONE), "output:y.npy": npy(np.ones((1, 3)))}, "output 'y' has shape [1, 3]"),
        ({"input:x.npy": npy(np.array([{}]), pickled=True)}, "'input:x.npy' holds Python objects"),
        ({"input:x.npy": LYING, "output:y.npy": npy(ONE)}, "'input:x.npy' is not as long as its header says"),
        ({"input:x.npy": HUGE, "output:y.npy": npy(ONE)}, "'input:x.npy' is not as long as its header says"),
        ({"input:x.npy": npy(ONE)[:-1], "output:y.npy": npy(ONE)}, "is not as long as its header says"),
        ({"input:x.npy": b"text"}, "golden.npz: "),
        ({"input:x.npy": b"\0" * (64 << 20), "output:y.npy": b"\0"}, "64 MiB unpacked, at most 64 are read"),
        (
            {"input:x.npy": npy(np.ones((10_001, 2))), "output:y.npy": npy(np.ones((10_001, 2)))},
            "10001 cases, at most 10000 are read",
        ),
        (
            {"input:x.npy": npy(ONE), "output:y.npy": npy(ONE), "rtol.npy": npy(np.array(float("nan")))},
            "rtol must be a number from 0 up",
        ),
    ],
)
async def test_a_wrong_npz_is_told(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    """Wrong names, shapes, lying headers, pickles and bombs are refused before they do harm."""
    with zipfile.ZipFile(tmp_path / "golden.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    text = await failure(tmp_path)
    assert text.startswith("golden.npz")
    assert message in text


async def test_damaged_archives_are_told(tmp_path: Path) -> None:
    """No byte of an archive may be changed without an answer that is an error of the file, or none."""
    put_npz(tmp_path, {"input:x": ONE, "output:y": ONE})
    whole = (tmp_path / "golden.npz").read_bytes()
    (tmp_path / "golden.npz").write_bytes(whole[: len(whole) // 2])
    assert "golden.npz: " in await failure(tmp_path)
    outcomes = set()
    for at in range(0, len(whole), 3):
        (tmp_path / "golden.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            await run(tmp_path)
            outcomes.add("passed")
        except ModelLoadError:
            outcomes.add("refused")
    assert "refused" in outcomes


async def test_limits_of_lines_cases_and_files(tmp_path: Path) -> None:
    """A line that would stop the process for long, too many cases and a file too large are refused."""
    put_jsonl(tmp_path, case([[0, 0]], [[0, 0]]), "[" + "0," * 200_000)
    assert (
        "golden.jsonl case 2 has more than 128 KiB; put cases of that size into golden.npz"
        in await failure(tmp_path)
    )
    with (tmp_path / "golden.jsonl").open("wb") as file:
        file.truncate((64 << 20) + 1)
    assert "golden.jsonl has 64 MiB, at most 64 are read" in await failure(tmp_path)


@pytest.mark.parametrize("kind", ["link out", "link in", "pipe", "directory", "dangling", "none"])
async def test_only_plain_files_of_the_version_are_read(tmp_path: Path, kind: str) -> None:
    """A link out of the directory, a pipe or a directory in a file's place is refused, never waited for."""
    version = tmp_path / "1"
    version.mkdir()
    path = version / "golden.jsonl"
    text = json.dumps(case([[1, 2]], [[1, 2]]))
    match kind:
        case "link out":
            (tmp_path / "secret").write_text(text)
            path.symlink_to(tmp_path / "secret")
        case "link in":
            (version / "cases").write_text(text)
            path.symlink_to(version / "cases")
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "dangling":
            path.symlink_to(version / "missing")
    if kind in {"link in", "none"}:
        assert (await run(version))[0] == (kind == "link in")
        return
    expected = {
        "link out": "golden.jsonl is a link that leaves the version's directory",
        "pipe": "golden.jsonl is no regular file",
        "directory": "golden.jsonl",
        "dangling": "golden.jsonl cannot be read: No such file or directory",
    }
    assert (await failure(version)).startswith(expected[kind])


async def test_a_run_that_fails_names_its_case(tmp_path: Path) -> None:
    """An error of the model is told with the case that met it."""
    put_jsonl(tmp_path, case([[1, 2]], [[1, 2]]), case([[6, 6]], [[6, 6]]))
    message = await failure(tmp_path, FakeLoadedModel(TWO, poison=6.0))
    assert message == "golden.jsonl case 2: poison value 6.0 in the batch"


async def test_a_decoupled_model_has_no_golden_tests(tmp_path: Path) -> None:
    """A stream of responses is not compared, and that is said instead of passed over."""
    put_jsonl(tmp_path, case([[1, 2]], [[1, 2]]))
    model = FakeLoadedModel(ModelSignature(TWO.inputs, TWO.outputs, decoupled=True))
    assert "decoupled" in await failure(tmp_path, model)


FLOATS = nps.arrays(np.float32, nps.array_shapes(max_dims=3, max_side=3))


@given(FLOATS, st.data())
def test_difference_agrees_with_numpy(expected: Array, data: st.DataObject) -> None:
    """Equal within the tolerance is what NumPy's allclose says of each element, NaN equal to NaN."""
    got = data.draw(st.one_of(st.just(expected), nps.arrays(np.float32, expected.shape)))
    tolerance = Tolerance(
        rtol=data.draw(st.sampled_from([0, 1e-3, 1])), atol=data.draw(st.sampled_from([0, 1]))
    )
    wide, of_model = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(all="ignore"):
        close = np.isclose(of_model, wide, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True)
    found = difference(got, wide, tolerance)
    if close.all():
        assert found is None
    else:
        assert found is not None
        assert found.at == tuple(np.argwhere(~close)[0])


# In the life of a version.


async def test_a_version_is_tested_before_it_serves(stage: Stage, tmp_path: Path) -> None:
    """A version that brings a golden test passes through TESTING, on each of its devices."""
    put_jsonl(tmp_path, case([[1]], [[1]]))
    groups = (InstanceGroup(device=Device("cuda", 0)), InstanceGroup(device=Device("cuda", 1)))
    async with stage.manager() as manager:
        manager.apply("s", [registered("m", 1, FakeProvider(directory=tmp_path), instances=groups)])
        await manager.wait_settled()
        states = [state for _, state in stage.observer.transitions]
        assert states[-3:] == [VersionState.WARMING, VersionState.TESTING, VersionState.READY]
        assert [len(model.batches) for model in stage.backend.loaded] == [1, 1]


@pytest.mark.parametrize("local", [True, False])
async def test_a_version_that_answers_wrongly_never_serves(stage: Stage, tmp_path: Path, local: bool) -> None:
    """The version before serves on, the reason begins with the step, and what was loaded is freed."""
    put_jsonl(tmp_path, case([[1]], [[2]]))
    provider = FakeProvider(directory=tmp_path)

    def make(artifact: Artifact, options: LoadOptions) -> FakeLoadedModel:
        return FakeLoadedModel(device=options.device or Device())

    stage.backend.make = make
    version = registered("m", 2, provider)
    if local:
        version = wanted("m", 2, "new")
        version.artifact = type(version.artifact)(tmp_path, tmp_path / "model.onnx", "new")
    async with stage.manager() as manager:
        manager.apply("s", [wanted("m", 1)])
        await manager.wait_settled()
        manager.apply("s", [version])
        await manager.wait_settled()
        assert manager.get("m").id.number == 1
        assert manager.index()[1].reason == (
            "golden test: golden.jsonl case 1: output 'y' at [0, 0]: got 1, expected 2 "
            "(rtol 0.001, atol 1e-05); 1 of 1 value differs, the worst by 1 at [0, 0] (on cpu)"
        )
        assert stage.backend.loaded[1].closed
        assert provider.pins == 0
        assert stage.clock.next_timer_s() is None
