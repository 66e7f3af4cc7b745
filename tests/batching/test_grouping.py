"""Which requests may share a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.batching.grouping import SHARED_BYTES, Grouper
from gateway.core.errors import InvalidRequest
from gateway.core.options import EVERY_PARAMETER, BatchingOptions, PadRule
from gateway.core.types import (
    Array,
    Datatype,
    InferRequest,
    ModelSignature,
    ParameterValue,
    Tensor,
    TensorSpec,
)

DATATYPES = {datatype.dtype: datatype for datatype in Datatype}

A = TensorSpec("a", Datatype.FP32, (-1, -1))
B = TensorSpec("b", Datatype.FP32, (-1, -1), optional=True)
STATE = TensorSpec("state", Datatype.FP32, (2, -1, 4), batch_axis=1)
RATE = TensorSpec("rate", Datatype.INT64, (), batch_axis=None)
TEXT = TensorSpec("text", Datatype.BYTES, (-1,), batch_axis=None)
OUT = TensorSpec("y", Datatype.FP32, (-1, -1))


def f32(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def req(parameters: dict[str, Any] | None = None, **arrays: Array) -> InferRequest:
    tensors = [Tensor(name, DATATYPES[array.dtype], array) for name, array in arrays.items()]
    return InferRequest(model_name="m", inputs=tuple(tensors), parameters=parameters or {})


def grouper(*inputs: TensorSpec, **options: Any) -> Grouper:
    return Grouper("m", ModelSignature(inputs, (OUT,)), BatchingOptions(**options))


TEXTS = [np.array([b"x", b"yz"], object), np.array([b"x", b"yz"], object), np.array([b"xy", b"z"], object)]
TO_LONGEST = grouper(A, pad=(PadRule(input="a", axis=1),))
TO_BUCKET = grouper(A, pad=(PadRule(input="a", axis=1, buckets=(8, 16)),))
BY_P = grouper(A, group_parameters=("p",))
ONE = f32(1, 4)
PAIRS = {
    "rows differ": (grouper(A), req(a=f32(1, 4)), req(a=f32(5, 4)), True),
    "trailing shapes differ": (grouper(A), req(a=f32(1, 4)), req(a=f32(1, 5)), False),
    "order of inputs differs": (
        grouper(A, B), req(a=f32(1, 4), b=f32(1, 2)), req(b=f32(1, 2), a=f32(1, 4)), True,
    ),
    "an optional input is missing": (grouper(A, B), req(a=f32(1, 4)), req(a=f32(1, 4), b=f32(1, 4)), False),
    "dtypes differ": (grouper(A), req(a=f32(1, 4)), req(a=np.zeros((1, 4), np.float16)), False),
    "rows on another axis": (grouper(STATE), req(state=f32(2, 1, 4)), req(state=f32(2, 3, 4)), True),
    "equal shared value": (
        grouper(A, RATE), req(a=f32(1, 4), rate=np.array(8)), req(a=f32(1, 4), rate=np.array(8)), True,
    ),
    "unequal shared value": (
        grouper(A, RATE), req(a=f32(1, 4), rate=np.array(8)), req(a=f32(1, 4), rate=np.array(16)), False,
    ),
    "equal shared text": (grouper(A, TEXT), req(a=ONE, text=TEXTS[0]), req(a=ONE, text=TEXTS[1]), True),
    "text of equal bytes": (grouper(A, TEXT), req(a=ONE, text=TEXTS[0]), req(a=ONE, text=TEXTS[2]), False),
    "other parameters": (grouper(A), req({"p": 1}, a=f32(1, 4)), req({"p": 2}, a=f32(1, 4)), True),
    "group parameters equal": (
        BY_P, req({"p": 1}, a=f32(1, 4)), req({"p": 1, "q": 1}, a=f32(1, 4)), True,
    ),
    "group parameters differ": (
        BY_P, req({"p": 1}, a=f32(1, 4)), req({"p": 2}, a=f32(1, 4)), False,
    ),
    "group parameter absent": (
        BY_P, req({"p": 1}, a=f32(1, 4)), req(a=f32(1, 4)), False,
    ),
    "group parameters of other type": (
        BY_P, req({"p": 1}, a=f32(1, 4)), req({"p": True}, a=f32(1, 4)), False,
    ),
    "padded to the longest": (TO_LONGEST, req(a=f32(1, 4)), req(a=f32(1, 900)), True),
    "padded to one bucket": (
        TO_BUCKET, req(a=f32(1, 4)), req(a=f32(1, 8)), True,
    ),
    "padded to other buckets": (
        TO_BUCKET, req(a=f32(1, 8)), req(a=f32(1, 9)), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("grouping", "one", "other", "together"), PAIRS.values(), ids=PAIRS.keys())
def test_who_may_share_a_batch(
    grouping: Grouper, one: InferRequest, other: InferRequest, together: bool
) -> None:
    """Keys are equal exactly for requests that the table says may run together."""
    keys = [grouping.key(r, grouping.layout(r)) for r in (one, other, one)]
    assert keys[0] == keys[2]
    assert (keys[0] == keys[1]) is together


def test_rows_positions_and_bytes_of_a_row_follow_from_the_shapes() -> None:
    """Rows are counted along each input's own batch axis; inputs may come in any order; padding counts."""
    grouping = grouper(A, STATE, B, RATE, pad=(PadRule(input="a", axis=1, buckets=(8,)),))
    layout = grouping.layout(req(rate=np.array(8), state=f32(2, 3, 4), a=f32(3, 5)))
    assert layout.rows == 3
    assert layout.positions == (2, 1, -1, 0)
    assert layout.row_bytes == 4 * 8 + 4 * 2 * 4
    assert layout.shared == (0,)


def test_inputs_that_disagree_about_the_rows_are_refused() -> None:
    """The message names both inputs and what each has."""
    with pytest.raises(InvalidRequest, match="'b' of model 'm' has 3 rows along axis 0, input 'a' has 2"):
        grouper(A, B).layout(req(a=f32(2, 4), b=f32(3, 4)))


def test_an_axis_longer_than_the_largest_bucket_is_refused() -> None:
    """The message says what was got and the most that is allowed."""
    grouping = grouper(A, pad=(PadRule(input="a", axis=1, buckets=(8, 16)),))
    with pytest.raises(
        InvalidRequest, match="'a' of model 'm' has size 17 along axis 1: expected at most 16"
    ):
        grouping.layout(req(a=f32(1, 17)))


def test_a_model_without_batch_axis_has_one_row_whatever_its_shapes() -> None:
    """Nothing is counted, keyed or refused for a model that is not batched."""
    whole = TensorSpec("a", Datatype.FP32, (-1, -1), batch_axis=None)
    layout = grouper(whole).layout(req(a=f32(7, 4)))
    assert (layout.rows, layout.shared, layout.positions) == (1, (), (0,))


@pytest.mark.parametrize(
    ("spec", "array", "compared"),
    [
        (A, f32(1, SHARED_BYTES // 4), True),
        (A, f32(1, SHARED_BYTES // 4 + 1), False),
        (TEXT, np.array([b"x"] * 1024, object), True),
        (TEXT, np.array([b"x"] * 1025, object), False),
        (TEXT, np.array([b"x" * (SHARED_BYTES + 1)], object), False),
    ],
)
def test_large_inputs_without_a_batch_axis_are_not_compared(
    spec: TensorSpec, array: Array, compared: bool
) -> None:
    """Comparing them would hold up the event loop: such a request shares a batch with no other."""
    shared = TensorSpec("large", spec.datatype, (-1,) * array.ndim, batch_axis=None)
    grouping = grouper(A, shared)
    keys = []
    for _ in range(2):
        request = req(a=f32(1, 4), large=array)
        keys.append(grouping.key(request, grouping.layout(request)))
    assert (keys[0] == keys[1]) is compared


def test_only_group_parameters_are_shared_with_the_batch() -> None:
    """A batch carries the parameters that all its requests have in common by declaration."""
    grouping = grouper(A, group_parameters=("p", "absent"))
    assert grouping.shared_parameters(req({"p": 1, "q": 2}, a=f32(1, 4))) == {"p": 1}


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({}, {}, True),
        ({"p": 1, "q": 2}, {"q": 2, "p": 1}, True),
        ({"p": 1}, {}, False),
        ({"p": 1}, {"q": 1}, False),
        ({"p": 1}, {"p": 2}, False),
        ({"p": 1}, {"p": True}, False),
        ({"p": 1}, {"p": 1, "q": 2}, False),
    ],
)
def test_every_parameter_may_matter(
    one: dict[str, ParameterValue], other: dict[str, ParameterValue], equal: bool
) -> None:
    """Then requests are together only with all of them equal, and the model gets all."""
    grouping = grouper(A, group_parameters=(EVERY_PARAMETER,))
    requests = [req(parameters, a=f32(1, 4)) for parameters in (one, other)]
    keys = [grouping.key(request, grouping.layout(request)) for request in requests]
    assert (keys[0] == keys[1]) is equal
    assert [grouping.shared_parameters(request) for request in requests] == [one, other]


def test_remembered_layouts_are_bounded() -> None:
    """A client that never repeats a shape does not make the grouper grow."""
    grouping = grouper(A)
    for size in range(3000):
        grouping.layout(req(a=f32(1, size)))
    assert len(grouping._layouts) <= 1024
