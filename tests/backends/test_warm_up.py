"""Warm-up runs every size a model will see, with declared or generated inputs, and says what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from gateway.backends.warm_up import warm_up
from gateway.core.errors import ModelLoadError
from gateway.core.options import BatchingOptions, ModelSpec, PadRule, WarmUp
from gateway.core.types import Batch, BatchResult, Datatype, ModelSignature, TensorSpec
from gateway.testing import FakeLoadedModel, VirtualClock, identity_signature
from tests.backends.graphs import load, model, save, tensor

if TYPE_CHECKING:
    from pathlib import Path


def _spec(batching: dict[str, Any] | None = None, **warm: Any) -> ModelSpec:
    return ModelSpec(name="m", batching=BatchingOptions(**batching or {}), warm_up=WarmUp(**warm))


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        (_spec({"max_batch_rows": 8}), [1, 2, 4, 8]),
        (_spec({"max_batch_rows": 6}), [1, 2, 4, 6]),
        (_spec({"max_batch_rows": 1}), [1]),
        (_spec({"max_batch_rows": 64, "allowed_rows": (3, 12)}), [3, 12]),
        (_spec({"allowed_rows": (3, 12)}, rows=(5, 2)), [2, 5]),
        (_spec({"enabled": False}), [1]),
        (_spec({"max_batch_rows": 2}, repeat=3), [1, 1, 1, 2, 2, 2]),
        (_spec({"max_batch_rows": 64, "max_batch_bytes": 40}), [1, 2, 4, 8]),
        (_spec(enabled=False), []),
    ],
)
async def test_every_batch_size_is_run(spec: ModelSpec, rows: list[int]) -> None:
    """Declared sizes, else allowed ones, else powers of two within the row and byte budgets are run."""
    fake = FakeLoadedModel(identity_signature(features=1))
    assert await warm_up(fake, spec) == []
    assert [b.rows for b in fake.batches] == rows
    assert [b.inputs["x"].shape for b in fake.batches] == [(n, 1) for n in rows]
    assert all(b.output_names == ("y",) for b in fake.batches)


async def test_an_unbatched_model_runs_once() -> None:
    """A model without batch axes runs once, at its own shape."""
    tensors = (TensorSpec("x", Datatype.INT64, (1, 3), None),)
    fake = FakeLoadedModel(ModelSignature(tensors, (TensorSpec("y", Datatype.INT64, (1, 3), None),)))
    await warm_up(fake, _spec())
    assert [b.inputs["x"].shape for b in fake.batches] == [(1, 3)]


async def test_every_bucket_is_run() -> None:
    """Each bucket of a padded axis is run at each size; declared shapes set the other axes."""
    wide = (TensorSpec("x", Datatype.FP32, (-1, -1, -1), 0),)
    fake = FakeLoadedModel(ModelSignature(wide, (TensorSpec("y", Datatype.FP32, (-1, -1, -1), 0),)))
    pad = (PadRule(input="x", axis=2, buckets=(16, 32)),)
    await warm_up(fake, _spec({"pad": pad, "allowed_rows": (2, 4)}, shapes={"x": (-1, 5, -1)}))
    assert [b.inputs["x"].shape for b in fake.batches] == [(2, 5, 16), (4, 5, 16), (2, 5, 32), (4, 5, 32)]


async def test_optional_inputs_are_left_out_unless_declared() -> None:
    """An optional input is warmed only with declared data."""
    inputs = (TensorSpec("x", Datatype.FP32, (-1, 1)), TensorSpec("o", Datatype.FP32, (2,), None, True))
    fake = FakeLoadedModel(ModelSignature(inputs, identity_signature().outputs))
    await warm_up(fake, _spec(rows=(1,)))
    await warm_up(fake, _spec(rows=(1,), data={"o": "zero"}))
    assert [sorted(b.inputs) for b in fake.batches] == [["x"], ["o", "x"]]


class _SlowModel(FakeLoadedModel):
    """Takes one virtual second per run."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    async def infer(self, batch: Batch) -> BatchResult:
        self._clock.advance(1.0)
        return await super().infer(batch)


async def test_time_is_bounded_for_sizes_nobody_declared() -> None:
    """Sizes made up here stop when the time is up, with a warning; declared ones are all run."""
    clock = VirtualClock()
    slow = _SlowModel(clock)
    warnings = await warm_up(slow, _spec(), budget_s=2.5, clock=clock)
    assert [b.rows for b in slow.batches] == [1, 2, 4]
    assert warnings == ["warm-up stopped after 2.5 s, before a batch of 8"]
    slow.batches.clear()
    assert await warm_up(slow, _spec(rows=(1, 2, 3, 4, 5)), budget_s=2.5, clock=clock) == []
    assert [b.rows for b in slow.batches] == [1, 2, 3, 4, 5]


async def test_failure_on_generated_inputs_is_a_warning() -> None:
    """A model that refuses generated inputs is served, with a warning; a required warm-up fails the load."""
    fake = FakeLoadedModel()
    fake.broken = True
    assert await warm_up(fake, _spec()) == [
        "warm-up with generated inputs failed, the first requests pay for it: the fake device is lost"
    ]
    with pytest.raises(ModelLoadError, match="model 'm': warm-up failed: the fake device is lost"):
        await warm_up(fake, _spec(required=True))
    with pytest.raises(ModelLoadError, match="the fake device is lost"):
        await warm_up(fake, _spec(data={"x": "zero"}))


@pytest.mark.parametrize(
    ("warm", "reason"),
    [
        ({"data": {"z": "zero"}}, "'z', which is no input"),
        ({"data": {"x": "x.npy"}}, "no folder to read 'x.npy' from"),
        ({"shapes": {"x": (1, 2, 3)}, "required": True}, "has 3 axes, the model's has 2"),
    ],
)
async def test_declarations_that_do_not_fit(warm: dict[str, Any], reason: str) -> None:
    """Data or shapes declared for what the model does not have fail the load and name it."""
    with pytest.raises(ModelLoadError, match=reason):
        await warm_up(FakeLoadedModel(), _spec(**warm))


def _adder(folder: Path, element: int) -> Any:
    """Return a version `y = a` with `a[n, 2]`, and its warmup folder beside the version."""
    (folder / "warmup").mkdir()
    made = model(
        [helper.make_node("Identity", ["a"], ["y"])],
        [tensor("a", ["n", 2], element)],
        [tensor("y", ["n", 2], element)],
    )
    return save(folder / "1", made)


async def _warm_from(folder: Path, content: dict[str, bytes], element: int = TensorProto.FLOAT) -> list[str]:
    artifact = _adder(folder, element)
    for name, data in content.items():
        (folder / "warmup" / name).write_bytes(data)
    loaded = await load(artifact)
    try:
        return await warm_up(loaded, _spec(rows=(1, 3), data={"a": next(iter(content))}))
    finally:
        await loaded.aclose()


def _npy(folder: Path, array: Any) -> bytes:
    np.save(folder / "made.npy", array)
    return (folder / "made.npy").read_bytes()


async def test_inputs_from_files(tmp_path: Path) -> None:
    """Raw and .npy files in the warmup folder supply rows, repeated to the size of the run."""
    rows = np.array([[1, 2], [3, 4]], np.float32)
    for name, content in {"a.raw": rows.tobytes(), "a.npy": _npy(tmp_path, rows)}.items():
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        assert await _warm_from(folder, {name: content}) == []


async def test_text_from_files(tmp_path: Path) -> None:
    """BYTES come from a file as on the wire: each element with its length before it."""
    content = b"".join(len(t).to_bytes(4, "little") + t for t in (b"one", b""))
    assert await _warm_from(tmp_path, {"a.raw": content}, TensorProto.STRING) == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.raw", b"123", "no whole number of FP32"),
        ("a.raw", b"1234" * 3, "3 elements, which do not fill"),
        ("a.raw", b"", "has no rows"),
    ],
)
async def test_files_that_do_not_fit(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    """A file whose content does not fit its input fails the load with the reason."""
    with pytest.raises(ModelLoadError, match=reason):
        await _warm_from(tmp_path, {name: content})


@pytest.mark.parametrize("array", [np.ones((1, 2)), np.ones(2, np.float32)], ids=["dtype", "rank"])
async def test_npy_that_does_not_fit(tmp_path: Path, array: Any) -> None:
    """A .npy file of another type or rank than its input fails the load."""
    with pytest.raises(ModelLoadError, match="stored data for 'a'"):
        await _warm_from(tmp_path, {"a.npy": _npy(tmp_path, array)})


@pytest.mark.parametrize(
    ("name", "reason"),
    [("../secret", "leaves"), ("/etc/passwd", "leaves"), ("link", "leaves"), ("absent", "'absent': No such")],
)
async def test_only_files_of_the_model_are_read(tmp_path: Path, name: str, reason: str) -> None:
    """A warm-up file outside the model's folder is refused, by link too, and a missing one is named."""
    artifact = _adder(tmp_path, TensorProto.FLOAT)
    (tmp_path / "secret").write_bytes(b"12345678")
    (tmp_path / "warmup" / "link").symlink_to(tmp_path / "secret")
    loaded = await load(artifact)
    with pytest.raises(ModelLoadError, match=reason) as caught:
        await warm_up(loaded, _spec(data={"a": name}))
    assert str(tmp_path) not in str(caught.value)
    await loaded.aclose()


async def test_all_datatypes_can_be_generated() -> None:
    """Every datatype has generated inputs, zero and random, of its own dtype."""
    for datatype in Datatype:
        for fill in ("zero", "random"):
            fake = FakeLoadedModel(identity_signature(features=3, datatype=datatype))
            await warm_up(fake, _spec(rows=(2,), data={"x": fill}))
            x = fake.batches[0].inputs["x"]
            assert (x.dtype, x.shape, x.flags.c_contiguous) == (datatype.dtype, (2, 3), True)
            if fill == "random":
                assert x[0].tolist() != x[1].tolist()
