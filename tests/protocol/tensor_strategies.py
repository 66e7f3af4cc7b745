"""Hypothesis strategies for tensors, and the comparison that fits them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.core.types import Array, Datatype, InferResponse, Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def bytes_array(elements: Sequence[bytes], shape: Sequence[int]) -> Array:
    flat = np.empty(len(elements), np.object_)
    flat[:] = elements
    return flat.reshape(shape)


@st.composite
def tensors(
    draw: st.DrawFn,
    datatypes: Sequence[Datatype] = tuple(Datatype),
    *,
    text: bool = False,
    finite: bool = False,
    name: str = "x",
) -> Tensor:
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(SHAPES)
    count = math.prod(shape)
    if datatype is Datatype.BYTES:
        element = st.text(max_size=6).map(str.encode) if text else st.binary(max_size=6)
        values = draw(st.lists(element, min_size=count, max_size=count))
        return Tensor(name, datatype, bytes_array(values, shape))
    raw = draw(st.binary(min_size=count * datatype.itemsize, max_size=count * datatype.itemsize))
    if datatype is Datatype.BOOL:
        raw = bytes(octet & 1 for octet in raw)
    array = np.frombuffer(raw, datatype.dtype).reshape(shape)
    if finite and array.dtype.kind not in "biu":
        with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
            array = np.where(np.isfinite(array), array, np.zeros((), datatype.dtype))
    return Tensor(name, datatype, array)


def assert_same(got: Tensor, expected: Tensor, *, bits: bool) -> None:
    assert got.name == expected.name
    assert got.datatype is expected.datatype
    assert got.array.dtype == expected.datatype.dtype
    assert got.array.shape == expected.array.shape
    if expected.datatype is Datatype.BYTES:
        assert got.array.tolist() == expected.array.tolist()
    elif bits:
        assert got.array.tobytes() == expected.array.tobytes()
    else:
        with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
            np.testing.assert_array_equal(_comparable(got.array), _comparable(expected.array))


def _comparable(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype == Datatype.BF16.dtype else array


def response_of(*outputs: Tensor, request_id: str = "") -> InferResponse:
    return InferResponse(model_name="m", model_version="3", request_id=request_id, outputs=outputs)
