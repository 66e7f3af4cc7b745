"""Comparing two answers: what counts as agreement in each output, and garbage that is no agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.core.rollout import Comparison, OutputRule
from gateway.core.types import Datatype, Tensor
from gateway.routing.comparison import agree, comparable, comparison_bytes

if TYPE_CHECKING:
    from gateway.core.types import Array

NAN, INF = float("nan"), float("inf")


def output(values: Any, datatype: Datatype = Datatype.FP32, name: str = "y") -> Tensor:
    return Tensor(name, datatype, np.array(values, datatype.dtype))


def agreed(primary: Any, shadow: Any, how: Comparison, tolerance: float = 0.0, **fields: Any) -> bool:
    rules = (OutputRule("y", how, tolerance),)
    return agree((output(primary, **fields),), (output(shadow, **fields),), rules)


@pytest.mark.parametrize(
    ("primary", "shadow", "datatype", "same"),
    [
        ([1.0, 2.0], [1.0, 2.0], Datatype.FP32, True),
        ([1.0, 2.0], [1.0, np.nextafter(np.float32(2.0), np.float32(3.0))], Datatype.FP32, False),
        ([NAN, 1.0], [NAN, 1.0], Datatype.FP32, True),
        ([NAN, 1.0], [1.0, NAN], Datatype.FP32, False),
        ([0.0], [NAN], Datatype.FP16, False),
        ([INF], [-INF], Datatype.FP64, False),
        ([NAN, 2.0], [NAN, 2.0], Datatype.BF16, True),
        ([NAN, 2.0], [NAN, 3.0], Datatype.BF16, False),
        ([True, False], [True, True], Datatype.BOOL, False),
        ([2**63], [2**63], Datatype.UINT64, True),
        ([2**63], [2**63 + 1], Datatype.UINT64, False),
        ([b"a", b"b"], [b"a", b"b"], Datatype.BYTES, True),
        ([b"a", b"b"], [b"a", b"c"], Datatype.BYTES, False),
        ([], [], Datatype.FP32, True),
    ],
)
def test_exact(primary: list[Any], shadow: list[Any], datatype: Datatype, same: bool) -> None:
    """Every element is equal, or NaN in both; so also without any rule."""
    assert agreed(primary, shadow, Comparison.EXACT, datatype=datatype) is same
    assert agree((output(primary, datatype),), (output(shadow, datatype),), ()) is same


@pytest.mark.parametrize(
    ("primary", "shadow", "tolerance", "datatype", "same"),
    [
        ([1.0, 2.0], [1.25, 1.75], 0.25, Datatype.FP32, True),
        ([1.0, 2.0], [1.25, 1.5], 0.25, Datatype.FP32, False),
        ([60000.0], [-60000.0], 1e5, Datatype.FP16, False),
        ([1.0], [NAN], 1e9, Datatype.FP32, False),
        ([NAN], [1.0], 1e9, Datatype.FP32, False),
        ([NAN], [NAN], 0.0, Datatype.FP32, True),
        ([INF], [INF], 0.1, Datatype.FP32, True),
        ([INF], [1.0], 1e9, Datatype.FP32, False),
        ([1.0], [INF], 1e9, Datatype.FP32, False),
        ([1.0], [1.125], 0.125, Datatype.BF16, True),
        ([2**63 - 1], [-(2**63)], 2.0**63, Datatype.INT64, False),
        ([2**62], [2**62 + 1], 0.5, Datatype.INT64, False),
        ([2**62], [2**62 + 1], 1.0, Datatype.INT64, True),
        ([0], [255], 254.0, Datatype.UINT8, False),
        ([-128], [127], 255.0, Datatype.INT8, True),
        ([True], [False], 0.5, Datatype.BOOL, False),
        ([b"a"], [b"b"], 1e9, Datatype.BYTES, False),
    ],
)
def test_absolute(
    primary: list[Any], shadow: list[Any], tolerance: float, datatype: Datatype, same: bool
) -> None:
    """No element differs by more, and neither NaN, infinity nor wrapping hides a difference."""
    assert agreed(primary, shadow, Comparison.ABSOLUTE, tolerance, datatype=datatype) is same


@pytest.mark.parametrize(
    ("primary", "shadow", "tolerance", "datatype", "same"),
    [
        ([100.0, 1.0], [101.0, 1.01], 0.0101, Datatype.FP64, True),
        ([100.0, 1.0], [101.0, 1.02], 0.0101, Datatype.FP64, False),
        ([0.0], [1e-9], 0.5, Datatype.FP64, False),
        ([INF], [1.0], 0.5, Datatype.FP64, False),
        ([1.0], [INF], 0.5, Datatype.FP64, False),
        ([INF], [-INF], 0.5, Datatype.FP64, False),
        ([100], [110], 0.1, Datatype.INT32, True),
        ([-100], [-111], 0.1, Datatype.INT32, False),
    ],
)
def test_relative(
    primary: list[Any], shadow: list[Any], tolerance: float, datatype: Datatype, same: bool
) -> None:
    """The measure is the primary's magnitude."""
    assert agreed(primary, shadow, Comparison.RELATIVE, tolerance, datatype=datatype) is same


@pytest.mark.parametrize(
    ("primary", "shadow", "k", "same"),
    [
        ([[0.1, 0.7, 0.2]], [[0.3, 0.4, 0.3]], 1, True),
        ([[0.1, 0.7, 0.2]], [[0.5, 0.4, 0.1]], 1, False),
        ([[0.1, 0.7, 0.2], [1.0, 0.0, 0.0]], [[0.1, 0.7, 0.2], [0.0, 1.0, 0.0]], 1, False),
        ([[0.1, 0.7, 0.2]], [[0.15, 0.7, 0.16]], 2, True),
        ([[0.1, 0.7, 0.2]], [[0.2, 0.7, 0.1]], 2, False),
        ([[0.5, 0.5, 0.0]], [[0.4, 0.4, 0.2]], 2, True),
        ([[0.5, 0.5, 0.0]], [[0.4, 0.5, 0.1]], 2, False),
        ([[0.1, 0.7, 0.2]], [[0.1, 0.7, 0.2]], 9, True),
        ([[0.1, NAN, 0.2]], [[0.1, 0.7, 0.2]], 1, False),
        ([[0.1, 0.7, 0.2]], [[0.1, NAN, 0.2]], 1, False),
        ([[]], [[]], 1, True),
        (0.5, 0.7, 1, True),
    ],
)
def test_top_k(primary: Any, shadow: Any, k: int, same: bool) -> None:
    """The same elements in the same order lead; of equals the first does; k of 1 is the label."""
    assert agreed(primary, shadow, Comparison.TOP_K, k) is same


@pytest.mark.parametrize(
    "shadow",
    [
        (),
        (output([1.0, 2.0], name="z"),),
        (output([1.0, 2.0], Datatype.FP64),),
        (output([[1.0, 2.0]]),),
        (output([1.0]),),
        (output([b"1", b"2"], Datatype.BYTES),),
        (Tensor("y", Datatype.FP32, np.array([1.0, 2.0], ">f8")),),
    ],
)
@pytest.mark.parametrize("how", list(Comparison))
def test_garbage_disagrees(shadow: tuple[Tensor, ...], how: Comparison) -> None:
    """A missing output, another datatype or another shape is a disagreement, never an exception."""
    primary = (output([1.0, 2.0]),)
    assert not agree(primary, shadow, (OutputRule("y", how, 1.0),))
    assert not agree(primary, shadow, ())


def test_rules_choose_the_outputs() -> None:
    """Outputs without a rule may differ; a rule's output that the client did not ask for is passed over."""
    primary = (output([1.0]), output([1.0], name="z"))
    shadow = (output([1.0]), output([2.0], name="z"))
    assert not agree(primary, shadow, ())
    assert agree(primary, shadow, (OutputRule("y"), OutputRule("other")))
    assert not agree(primary, shadow, (OutputRule("y"), OutputRule("z")))
    assert agree(primary[:1], shadow, ())


def test_what_is_comparable() -> None:
    """A request is if it asks for all outputs, or for one that is compared."""
    rules = (OutputRule("y"),)
    assert comparable((), rules)
    assert comparable(("z",), ())
    assert comparable(("z", "y"), rules)
    assert not comparable(("z",), rules)


def test_bytes_tensors_weigh_by_their_elements() -> None:
    """The array of a BYTES tensor holds pointers alone; comparing takes longer than that."""
    assert comparison_bytes([output([1.0, 2.0])]) == 8
    assert comparison_bytes([output([b"1", b"2"], Datatype.BYTES)]) == 128


SHAPES = arrays.array_shapes(max_dims=3, max_side=4)
FLOATS = st.one_of(st.floats(width=32), st.sampled_from([NAN, INF, -INF, 0.0]))


@given(arrays.arrays(np.float32, SHAPES, elements=FLOATS), st.sampled_from(list(Comparison)))
def test_an_answer_agrees_with_itself(array: Array, how: Comparison) -> None:
    """By every rule, whatever it holds."""
    one, copied = Tensor("y", Datatype.FP32, array), Tensor("y", Datatype.FP32, array.copy())
    assert agree((one,), (copied,), (OutputRule("y", how, 1.0),))


@given(
    arrays.arrays(np.int64, 3, elements=st.integers(-(2**63), 2**63 - 1)),
    arrays.arrays(np.int64, 3, elements=st.integers(-(2**63), 2**63 - 1)),
    st.integers(0, 2**52),
)
def test_integers_are_measured_exactly(one: Array, other: Array, tolerance: int) -> None:
    """As Python's integers would have it, without overflow."""
    expected = all(abs(a - b) <= tolerance for a, b in zip(one.tolist(), other.tolist(), strict=True))
    rules = (OutputRule("y", Comparison.ABSOLUTE, float(tolerance)),)
    pair = [(Tensor("y", Datatype.INT64, array),) for array in (one, other)]
    assert agree(pair[0], pair[1], rules) is expected


@given(arrays.arrays(np.float32, (2, 5), elements=st.floats(-4, 4, width=16)), st.integers(1, 6))
def test_top_k_is_pythons_sort(array: Array, k: int) -> None:
    """Sorting by descending value keeps the first of equals first, in every row."""
    ranked = np.zeros_like(array)
    for row, values in enumerate(array.tolist()):
        order = [place for _, place in sorted((-value, place) for place, value in enumerate(values))][:k]
        ranked[row, order] = range(len(order), 0, -1)
    rules = (OutputRule("y", Comparison.TOP_K, float(min(k, 5))),)
    one, other = (Tensor("y", Datatype.FP32, a) for a in (array, ranked))
    assert agree((one,), (other,), rules)


def test_bfloat16_ranks_too() -> None:
    """NumPy knows it only by way of ml_dtypes."""
    one = Tensor("y", Datatype.BF16, np.array([[1, 3, 2]], ml_dtypes.bfloat16))
    other = Tensor("y", Datatype.BF16, np.array([[1, 2, 3]], ml_dtypes.bfloat16))
    for k in (1, 2):
        assert agree((one,), (one,), (OutputRule("y", Comparison.TOP_K, k),))
        assert not agree((one,), (other,), (OutputRule("y", Comparison.TOP_K, k),))
