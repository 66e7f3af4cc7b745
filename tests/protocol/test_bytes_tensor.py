from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from gateway.core.errors import InvalidRequest
from gateway.protocol.bytes_tensor import deserialize, serialize
from tests.protocol.tensor_strategies import bytes_array

ELEMENTS = st.lists(st.binary(max_size=20), min_size=1, max_size=12)


@given(ELEMENTS)
def test_the_wire_form_is_tritonclients(elements: list[bytes]) -> None:
    """Serialised elements are byte for byte what tritonclient sends."""
    array = bytes_array(elements, (len(elements),))
    assert serialize(array) == serialize_byte_tensor(array).item()


@given(ELEMENTS)
def test_elements_come_back_as_tritonclient_reads_them(elements: list[bytes]) -> None:
    """Deserialising gives the elements, trailing zero bytes included, as tritonclient reads them."""
    raw = serialize(bytes_array(elements, (len(elements),)))
    got = deserialize(raw, len(elements), name="x", model="m")
    assert got.tolist() == elements == deserialize_bytes_tensor(raw).tolist()


def test_rows_are_serialised_in_row_major_order() -> None:
    """A transposed array is written in the order of its own axes."""
    array = bytes_array([b"a", b"b", b"c", b"d"], (2, 2)).T
    assert deserialize(serialize(array), 4, name="x", model="m").tolist() == [b"a", b"c", b"b", b"d"]


@pytest.mark.parametrize(
    ("raw", "count", "message"),
    [
        (b"\x01\x00", 0, "incomplete string length indicator"),
        (b"\x01\x00\x00\x00a\x00", 1, "incomplete string length indicator"),
        (b"\x05\x00\x00\x00abc", 1, "expected a string of 5 bytes, got 3"),
        (b"\xff\xff\xff\xff", 1, "expected a string of 4294967295 bytes, got 0"),
        (b"\x00\x00\x00\x00" * 3, 2, "expected 2, got more than 2"),
        (b"\x04\x00\x00\x00aaaa", 2, "expected 2, got 1"),
        (b"", 1 << 40, "too few for the 1099511627776 elements"),
    ],
)
def test_malformed_elements_are_refused_by_name(raw: bytes, count: int, message: str) -> None:
    """Every malformed tensor is refused, naming input, model and what was got."""
    with pytest.raises(InvalidRequest, match=message) as caught:
        deserialize(raw, count, name="words", model="bert")
    assert "'words'" in str(caught.value)
    assert "'bert'" in str(caught.value)


def test_a_view_can_be_deserialised() -> None:
    """Elements are copied out of a view, so that the buffer behind it may go."""
    buffer = bytearray(serialize(bytes_array([b"one", b"two"], (2,))))
    got = deserialize(memoryview(buffer), 2, name="x", model="m")
    buffer[:] = bytes(len(buffer))
    assert got.tolist() == [b"one", b"two"]
    assert got.dtype == np.object_
