from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.core.options import ModelSpec
from gateway.core.types import Datatype, RequestedOutput, Tensor
from gateway.protocol.classification import classified, top_classes
from tests.protocol.served import Served
from tests.protocol.tensor_strategies import bytes_array, response_of

SCORES = np.array([[0.1, 0.7, 0.2, 0.0], [0.5, 0.25, 0.125, 0.125]], np.float32)


def test_each_row_gets_its_best_classes_with_labels() -> None:
    """Classes are best first, with six decimals, the index, and the label where there is one."""
    got = top_classes(SCORES, 3, ["cat", "dog", ""], batched=True)
    assert got.tolist() == [
        [b"0.700000:1:dog", b"0.200000:2", b"0.100000:0:cat"],
        [b"0.500000:0:cat", b"0.250000:1:dog", b"0.125000:2"],
    ]


def test_more_classes_than_values_are_all_values() -> None:
    """Asking for more classes than there are gives every one."""
    assert top_classes(SCORES, 2**60, batched=True).shape == (2, 4)


def test_an_unbatched_output_is_one_row() -> None:
    """Without a batch axis all values are one row and the shape is one axis."""
    assert top_classes(np.array([[3, 9], [-5, 1]], np.int8), 2, batched=False).tolist() == [b"9:1", b"3:0"]


def test_integers_keep_their_values() -> None:
    """The ends of 64-bit ranges are ordered and written exactly."""
    unsigned = np.array([[0, 2**64 - 1, 2**63]], np.uint64)
    assert top_classes(unsigned, 2, batched=True).tolist() == [
        [b"18446744073709551615:1", b"9223372036854775808:2"]
    ]
    signed = np.array([[-(2**63), 0, 2**63 - 1]], np.int64)
    assert top_classes(signed, 3, batched=True)[0, -1] == b"-9223372036854775808:0"


@given(st.lists(st.integers(-3, 3) | st.just(float("nan")), min_size=1, max_size=8))
def test_ties_are_in_index_order_and_nan_comes_last(row: list[float]) -> None:
    """The order is by descending value, then by index, with NaN behind every number."""
    got = top_classes(np.array([row], np.float64), len(row), batched=True)
    order = [int(text.split(b":")[1]) for text in got[0].tolist()]
    assert order == sorted(
        range(len(row)), key=lambda i: (np.isnan(row[i]), -row[i] if row[i] == row[i] else 0, i)
    )


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_empty_outputs_have_no_classes(shape: tuple[int, int]) -> None:
    """An output without rows, or with empty rows, gives no class and no error."""
    assert top_classes(np.zeros(shape, np.float32), 2, batched=True).size == 0


@pytest.mark.parametrize("datatype", [Datatype.FP16, Datatype.BF16, Datatype.UINT8])
def test_small_datatypes_are_classified(datatype: Datatype) -> None:
    """Half precision and small integers have classes like any other."""
    array = np.array([[1, 3, 2]]).astype(datatype.dtype)
    assert [t.split(b":")[1] for t in top_classes(array, 2, batched=True)[0].tolist()] == [b"1", b"2"]


def test_only_outputs_that_ask_for_it_are_classified() -> None:
    """Other outputs stay as they are, and labels come from the version's settings."""
    best = Tensor("best", Datatype.INT64, np.array([1, 0]))
    response = response_of(Tensor("scores", Datatype.FP32, SCORES), best)
    served = Served(spec=ModelSpec(name="m", labels={"scores": ("a", "b")}))
    outputs = classified(response, [RequestedOutput("scores", 1), RequestedOutput("best")], served).outputs
    assert outputs[0].datatype is Datatype.BYTES
    assert outputs[0].array.tolist() == [[b"0.700000:1:b"], [b"0.500000:0:a"]]
    assert outputs[1] is best
    assert classified(response, [RequestedOutput("scores")], served) is response


def test_an_output_without_a_batch_axis_is_one_row_of_classes() -> None:
    """Whether there are rows is the signature's to say, not the shape's."""
    unbatched = Served(signature=replace(Served().signature, outputs=()))
    response = response_of(Tensor("scores", Datatype.FP32, SCORES))
    (got,) = classified(response, [RequestedOutput("scores", 1)], unbatched).outputs
    assert got.array.tolist() == [b"0.700000:1"]


def test_text_has_no_classes() -> None:
    """Classification of a BYTES output is refused by name."""
    response = response_of(Tensor("scores", Datatype.BYTES, bytes_array([b"a"], (1,))))
    with pytest.raises(InvalidRequest, match="not available for output 'scores' of datatype BYTES"):
        classified(response, [RequestedOutput("scores", 1)], Served())
