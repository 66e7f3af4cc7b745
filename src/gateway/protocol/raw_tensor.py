"""Tensors in their binary form: bytes as received to arrays over them, arrays to bytes to send."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.core.errors import InvalidRequest
from gateway.core.types import Datatype, Tensor
from gateway.protocol import bytes_tensor
from gateway.protocol.limits import check_bytes_count, check_name, check_rank, element_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.calls import Buffer
    from gateway.core.types import Array
    from gateway.protocol.limits import DecodeContext

_DATATYPES: Final[Mapping[str, Datatype]] = MappingProxyType({d.value: d for d in Datatype})


class TensorHead:
    """Name, datatype and shape of an input, checked; its data is still to come.

    Attributes:
        name: input name.
        datatype: element type.
        shape: axes, none negative.
        count: product of `shape`, within limits.
    """

    __slots__ = ("count", "datatype", "name", "shape")

    def __init__(self, name: str, datatype: str, shape: Sequence[int], context: DecodeContext) -> None:
        """Check the three.

        Raises:
            InvalidRequest: no name, an unknown datatype, one that the model does not take, or a negative
                axis.
            PayloadTooLarge: too many axes or elements, or too long a name.
        """
        if not name:
            raise InvalidRequest(f"request for model '{context.model}' has an input without a name")
        known = _DATATYPES.get(datatype)
        if known is None:
            raise unknown_datatype(name, datatype, context)
        self.name = check_name("an input's name", name, context)
        self.datatype = known
        if context.datatypes is not None:
            _check_expected(name, known, context.datatypes, context.model)
        check_rank(name, len(shape), context)  # before a tuple is made of millions of axes
        self.shape = tuple(shape)
        self.count = element_count(name, self.shape, context)
        if known is Datatype.BYTES:
            check_bytes_count(name, self.count, context)


def _check_expected(name: str, got: Datatype, expected: Mapping[str, Datatype], model: str) -> None:
    """Refuse, in the words of the check against the signature, what that check would refuse later."""
    wanted = expected.get(name)
    if wanted is None:
        allowed = ", ".join(expected)
        msg = f"unexpected inference input '{name}' for model '{model}', allowed inputs are: {allowed}"
        raise InvalidRequest(msg)
    if wanted is not got:
        msg = f"inference input '{name}' data-type is '{got.value}', but model '{model}' expects"
        raise InvalidRequest(f"{msg} '{wanted.value}'")


def unknown_datatype(name: str, datatype: str, context: DecodeContext) -> InvalidRequest:
    """Return the error for a datatype that the protocol does not have."""
    expected = ", ".join(_DATATYPES)
    msg = f"invalid datatype '{datatype[:80]}' of input '{name}' for model '{context.model}'"
    return InvalidRequest(f"{msg}, expected one of {expected}")


def from_raw(head: TensorHead, raw: Buffer, model: str) -> Tensor:
    """Return a tensor over `raw`: a view, perhaps unaligned, read-only as `raw` is; BYTES are copied.

    Raises:
        InvalidRequest: `raw` has not the size that datatype and shape ask for.
    """
    name, datatype, shape, count = head.name, head.datatype, head.shape, head.count
    if datatype is Datatype.BYTES:
        elements = bytes_tensor.deserialize(raw, count, name=name, model=model)
        return Tensor(name, datatype, elements.reshape(shape))
    expected = count * datatype.itemsize
    if len(raw) != expected:
        msg = (
            f"input byte size mismatch for input '{name}' for model '{model}'. Expected {expected} bytes for "
            f"datatype {datatype.value} and shape {list(shape)}, got {len(raw)}"
        )
        raise InvalidRequest(msg)
    if datatype is Datatype.BOOL:
        return Tensor(name, datatype, _booleans(raw).reshape(shape))
    # An array over a read-only buffer is read-only; one call for dtype and shape is half the price of two.
    return Tensor(name, datatype, np.ndarray(shape, datatype.dtype, raw))


def _booleans(raw: Buffer) -> Array:
    """View bytes as booleans; any byte but 0 is true, and is made 1, which NumPy relies on."""
    octets = np.frombuffer(raw, np.uint8) if len(raw) else np.empty(0, np.uint8)
    if octets.size and octets.max() > 1:
        octets = (octets != 0).view(np.uint8)
    octets.flags.writeable = False
    return octets.view(np.bool_)


def to_raw(tensor: Tensor) -> Buffer:
    """Return the binary form of a tensor: a view of its memory where it is row-major, else a copy."""
    array = tensor.array
    if tensor.datatype is Datatype.BYTES:
        return bytes_tensor.serialize(array)
    if array.size and tensor.datatype is not Datatype.BF16 and array.flags.c_contiguous:
        return array.data.cast("B")
    # Reinterpreted as bytes because the buffer protocol has no format for bfloat16.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
