"""The `data` of a JSON tensor to a NumPy array, through simdjson's buffers: no lists of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import simdjson

from gateway.core.errors import InvalidRequest
from gateway.core.types import Datatype, Tensor
from gateway.protocol.bytes_tensor import from_values, object_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.types import Array
    from gateway.protocol.json_text import JsonDocument
    from gateway.protocol.raw_tensor import TensorHead

# Strings and booleans are walked in Python, about a microsecond for each array: a bound of a second.
_MOST_WALKED_ARRAYS: Final = 1_000_000
_FLOATS: Final = frozenset({Datatype.FP16, Datatype.BF16, Datatype.FP32, Datatype.FP64})


def tensor_from_json(head: TensorHead, data: object, document: JsonDocument, model: str) -> Tensor:
    """Return a tensor from its `data`, nested in any way or flat; only the order of the elements counts.

    Returns:
        The tensor; its array is its own and read-only.

    Raises:
        InvalidRequest: no array, elements of the wrong kind or out of range, or too many or few of them.
    """
    where = f"input '{head.name}' for model '{model}'"
    # No array of a tensor with elements has more members than the tensor: settled before memory is taken.
    if isinstance(data, simdjson.Array) and len(data) > head.count > 0:
        raise _wrong_count(head, len(data), where)
    array = read_elements(head.datatype, data, document, where, most=head.count)
    if array.size != head.count:
        raise _wrong_count(head, array.size, where)
    array.flags.writeable = False
    return Tensor(head.name, head.datatype, array.reshape(head.shape))


def read_elements(
    datatype: Datatype, data: object, document: JsonDocument, where: str, *, most: int
) -> Array:
    """Return the elements of `data` in order, as a 1-D array of the datatype's dtype.

    FP16 and BF16 are taken as numbers too, which Triton refuses: nothing is lost by it, the nearest value is.

    Args:
        datatype: what the elements must be.
        data: an array of simdjson's, nested in any way or flat.
        document: the document that `data` is of.
        where: names the input and the model, for messages.
        most: strings and booleans are read no further than one beyond this many.

    Raises:
        InvalidRequest: no array, or elements of the wrong kind or out of range.
    """
    if not isinstance(data, simdjson.Array):
        raise InvalidRequest(f"the data of {where} must be an array")
    if datatype is Datatype.BYTES:
        return object_array([text.encode() for text in _walk(data, str, where, most)])
    if datatype is Datatype.BOOL:
        leaves = _walk(data, bool, where, most)
        return from_values(leaves, np.dtype(np.bool_), len(leaves))
    if datatype in _FLOATS:
        return _floats(datatype, data, document, where)
    return _integers(datatype, data, where)


def _floats(datatype: Datatype, data: simdjson.Array, document: JsonDocument, where: str) -> Array:
    try:
        values = np.frombuffer(data.as_buffer(of_type="d"), np.float64)
    except TypeError as exc:
        raise InvalidRequest(
            f"the data of {where} must be numbers, as datatype {datatype.value} asks"
        ) from exc
    document.restore_non_finite(values)
    if datatype is Datatype.FP64:
        return values
    # Out of range means that a finite number would become infinite; NumPy alone would let it.
    with np.errstate(over="ignore"):
        narrow = values.astype(datatype.dtype)
    if not np.isfinite(narrow).all() and np.isfinite(values[~np.isfinite(narrow)]).any():
        raise InvalidRequest(f"the data of {where} has a value out of range for {datatype.value}")
    return narrow


def _integers(datatype: Datatype, data: simdjson.Array, where: str) -> Array:
    """Read integers at 64 bits and narrow them; a value that does not fit is refused, never wrapped."""
    signed = datatype.dtype.kind == "i"
    try:
        buffer = data.as_buffer(of_type="i" if signed else "u")
    except TypeError as exc:
        raise InvalidRequest(
            f"the data of {where} must be integers, as datatype {datatype.value} asks"
        ) from exc
    except ValueError as exc:
        raise _out_of_range(datatype, where) from exc
    values = np.frombuffer(buffer, np.int64 if signed else np.uint64)
    if values.dtype == datatype.dtype:
        return values
    bounds = np.iinfo(datatype.dtype)
    if values.size and (values.min() < bounds.min or values.max() > bounds.max):
        raise _out_of_range(datatype, where)
    return values.astype(datatype.dtype)


def _walk(data: simdjson.Array, kind: type, where: str, most: int) -> list[Any]:
    """Return the leaves of `data`, all of type `kind`; stops at the first that is one too many."""
    leaves: list[Any] = []
    for leaf in _leaves(data, where):
        if type(leaf) is not kind:
            expected = "strings, as datatype BYTES" if kind is str else "booleans, as datatype BOOL"
            raise InvalidRequest(f"the data of {where} must be {expected} asks")
        leaves.append(leaf)
        if len(leaves) > most:
            break
    return leaves


def _leaves(data: simdjson.Array, where: str) -> Iterator[object]:
    """Give the leaves in order. The stack is no higher than the document is deep."""
    stack, arrays = [iter(data)], 1
    while stack:
        for item in stack[-1]:
            if isinstance(item, simdjson.Array):
                stack.append(iter(item))
                arrays += 1
                if arrays > _MOST_WALKED_ARRAYS:
                    raise InvalidRequest(f"the data of {where} has too many nested arrays; send it flat")
                break
            yield item
        else:
            stack.pop()


def _wrong_count(head: TensorHead, got: int, where: str) -> InvalidRequest:
    # Beyond what is wanted nothing is counted to its end.
    more = " or more" if got > head.count else ""
    return InvalidRequest(
        f"the data of {where}: shape {list(head.shape)} expects {head.count} elements, got {got}{more}"
    )


def _out_of_range(datatype: Datatype, where: str) -> InvalidRequest:
    return InvalidRequest(f"the data of {where} has a value out of range for {datatype.value}")
