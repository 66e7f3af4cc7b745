import numpy as np
import pytest

from gateway.commands.samples import FREE_AXIS, SampleOptions, declared_shapes, sample_shape, sample_tensor
from gateway.core.options import BatchingOptions, ModelSpec, PadRule, WarmUp
from gateway.core.types import Datatype, TensorSpec


@pytest.mark.parametrize(
    ("shape", "batch_axis", "declared", "expected"),
    [
        ((-1, 64), 0, None, (3, 64)),
        ((-1, 3, -1, -1), 0, None, (3, 3, FREE_AXIS, FREE_AXIS)),
        ((2, -1, 128), 1, None, (2, 3, 128)),
        ((), None, None, ()),
        ((-1,), None, None, (FREE_AXIS,)),
        ((4, 8), 0, None, (4, 8)),
        ((-1, -1), 0, (1, 7), (3, 7)),
        ((-1, 0), 0, None, (3, 0)),
    ],
)
def test_sample_shape(
    shape: tuple[int, ...],
    batch_axis: int | None,
    declared: tuple[int, ...] | None,
    expected: tuple[int, ...],
) -> None:
    """The batch axis gets the rows, a declared size wins over the guess, fixed sizes stay."""
    spec = TensorSpec("x", Datatype.FP32, shape, batch_axis)
    options = SampleOptions(rows=3, shapes={"x": declared} if declared else {})
    assert sample_shape(spec, options) == expected


@pytest.mark.parametrize("datatype", list(Datatype))
def test_sample_tensor_has_the_dtype_and_the_rows(datatype: Datatype) -> None:
    """Every datatype can be generated, with its own dtype and the shape asked for."""
    tensor = sample_tensor(TensorSpec("x", datatype, (-1, 5)), SampleOptions(rows=2))
    assert tensor.array.dtype == datatype.dtype
    assert tensor.array.shape == (2, 5)
    if datatype is Datatype.BYTES:
        assert all(isinstance(item, bytes) for item in tensor.array.flat)


def test_integers_are_zero_and_floats_spread() -> None:
    """Integers may be indices and stay 0; floats differ from each other within [0, 1)."""
    integers = sample_tensor(TensorSpec("x", Datatype.INT64, (-1, 5)), SampleOptions()).array
    floats = sample_tensor(TensorSpec("x", Datatype.FP32, (-1, 50)), SampleOptions()).array
    assert not integers.any()
    assert 0 <= floats.min() < floats.max() < 1
    assert len(np.unique(floats)) > 40


def test_declared_shapes_come_from_warm_up_and_then_from_buckets() -> None:
    """A warm-up shape wins over a padding bucket; an input with neither is left to the guess."""
    spec = ModelSpec(
        name="m",
        warm_up=WarmUp(shapes={"a": (1, 9)}),
        batching=BatchingOptions(
            pad=(PadRule(input="a", axis=1, buckets=(16,)), PadRule(input="b", axis=2, buckets=(32, 64)))
        ),
    )
    inputs = [
        TensorSpec("a", Datatype.FP32, (-1, -1)),
        TensorSpec("b", Datatype.FP32, (-1, 3, -1)),
        TensorSpec("c", Datatype.FP32, (-1, -1)),
    ]
    assert declared_shapes(spec, inputs) == {"a": (1, 9), "b": (-1, 3, 32)}
