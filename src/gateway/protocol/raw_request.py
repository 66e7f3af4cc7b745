"""A raw binary request: an HTTP body that is nothing but the model's only input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import InvalidRequest
from gateway.core.types import Datatype, Tensor
from gateway.protocol.bytes_tensor import object_array
from gateway.protocol.raw_tensor import TensorHead, from_raw

if TYPE_CHECKING:
    from gateway.core.calls import Buffer
    from gateway.core.types import ModelSignature, TensorSpec
    from gateway.protocol.limits import DecodeContext


def raw_request_tensor(body: Buffer, signature: ModelSignature, context: DecodeContext) -> Tensor:
    """Take the whole body as the model's only input, one row of it; a BYTES input as its only element.

    Returns:
        The tensor, a read-only view over `body` unless it is BYTES.

    Raises:
        InvalidRequest: the model has several inputs or more than one variable axis, or the size is wrong.
    """
    model = context.model
    if len(signature.inputs) != 1:
        msg = (
            f"a raw binary request needs a model with one input, model '{model}' has {len(signature.inputs)}"
        )
        raise InvalidRequest(msg)
    spec = signature.inputs[0]
    shape = [1 if axis == spec.batch_axis else size for axis, size in enumerate(spec.shape)]
    if spec.datatype is Datatype.BYTES:
        return _single_element(body, spec, shape, model)
    if shape.count(-1) > 1:
        msg = f"cannot be told, more than one axis of {list(spec.shape)} is variable"
        raise InvalidRequest(
            f"raw binary request: the shape of input '{spec.name}' for model '{model}' {msg}"
        )
    if -1 in shape:
        shape[shape.index(-1)] = _missing_axis(len(body), shape, spec.datatype.itemsize)
    return from_raw(TensorHead(spec.name, spec.datatype.value, shape, context), body, model)


def _single_element(body: Buffer, spec: TensorSpec, shape: list[int], model: str) -> Tensor:
    if any(size not in {1, -1} for size in shape):
        msg = f"must take one BYTES element, its shape is {list(spec.shape)}"
        raise InvalidRequest(f"raw binary request: input '{spec.name}' for model '{model}' {msg}")
    return Tensor(spec.name, spec.datatype, object_array([bytes(body)]).reshape([1] * len(shape)))


def _missing_axis(size: int, shape: list[int], itemsize: int) -> int:
    """Return the variable axis for `size` bytes; where it does not come out even, the size check says so."""
    row = itemsize
    for axis in shape:
        row *= axis if axis >= 0 else 1
    return size // row if row else 0
