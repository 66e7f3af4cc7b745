"""Elements of BYTES tensors in their wire form: each behind its length as a 4-byte little-endian integer."""

from __future__ import annotations

import sys
from itertools import chain
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.core.calls import Buffer
    from gateway.core.types import Array, Tensor

_LENGTH: Final = Struct("<I")
_PREFIX: Final = _LENGTH.size
_PIECE: Final = 1 << 14


def deserialize(raw: Buffer, count: int, *, name: str, model: str) -> Array:
    """Return the `count` elements in `raw` as a 1-D object array of `bytes`, each a copy.

    Args:
        raw: the whole tensor.
        count: elements that the shape asks for.
        name: input name, for messages.
        model: model name, for messages.

    Raises:
        InvalidRequest: a cut-off length or element, or another number of elements than `count`.
    """
    # Every element takes its prefix at least: settled before a list of `count` elements is begun.
    if count * _PREFIX > len(raw):
        got = f"{len(raw)} bytes, too few for the {count} elements expected"
        raise InvalidRequest(
            f"unexpected number of string elements for input '{name}' for model '{model}': {got}"
        )
    elements = _elements(bytes(raw), count, f"for input '{name}' for model '{model}'")
    return object_array(elements)


def object_array(elements: Sequence[bytes]) -> Array:
    """Return `elements` as a 1-D object array; NumPy alone makes `S` ones, without trailing zeros."""
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array


def from_values(values: Iterable[Any], dtype: np.dtype[Any], count: int) -> Array:
    """Return the `count` plain values as a 1-D array.

    Taken piece by piece: NumPy lets no other thread run while it goes through an iterable.
    """
    array, items = np.empty(count, dtype), iter(values)
    for begin in range(0, count, _PIECE):
        size = min(_PIECE, count - begin)
        array[begin : begin + size] = np.fromiter(items, dtype, size)
    return array


def serialize(array: Array) -> bytes:
    """Return the wire form of a BYTES tensor: an object array of `bytes` of any shape, in row-major order."""
    elements: list[bytes] = array.reshape(-1).tolist()
    prefixes = map(_LENGTH.pack, map(len, elements))
    return b"".join(chain.from_iterable(zip(prefixes, elements, strict=True)))


def tensor_bytes(tensor: Tensor) -> int:
    """Return the memory of a tensor that owns its elements: those of BYTES with their contents."""
    array = tensor.array
    if array.dtype.kind != "O":
        return array.nbytes
    return array.nbytes + sum(map(sys.getsizeof, array.reshape(-1).tolist()))


def owned_bytes(tensor: Tensor) -> int:
    """Return the memory of a tensor beside the buffer it was read from; only BYTES are copied out of it."""
    return tensor_bytes(tensor) if tensor.array.dtype.kind == "O" else 0


def _elements(raw: bytes, count: int, where: str) -> list[bytes]:
    """Cut `raw` at the lengths it holds."""
    length_at = _LENGTH.unpack_from
    end, position, elements = len(raw), 0, list[bytes]()
    while position < end:
        start = position + _PREFIX
        if start > end:
            left = end - position
            raise InvalidRequest(f"incomplete string length indicator {where}: expected 4 bytes, got {left}")
        (length,) = length_at(raw, position)
        position = start + length
        if position > end:
            msg = f"incomplete string data {where}: expected a string of {length} bytes, got {end - start}"
            raise InvalidRequest(msg)
        elements.append(raw[start:position])
        if len(elements) > count:
            break
    if len(elements) != count:
        more = "more than " if len(elements) > count else ""
        got = count if more else len(elements)
        raise InvalidRequest(
            f"unexpected number of string elements {where}: expected {count}, got {more}{got}"
        )
    return elements
