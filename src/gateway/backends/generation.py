"""Make up inputs for a signature: for warm-up, and for finding out how a model treats its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from gateway.core.types import Array, Datatype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.options import ModelSpec, PadRule
    from gateway.core.types import ModelSignature, TensorSpec

Fill: TypeAlias = Literal["zero", "random"]
_FLOATS: Final = frozenset({Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BF16})


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes for the variable axes of inputs.

    Attributes:
        declared: input -> full shape; entries for the batch axis are ignored, -1 is as if absent.
        buckets: (input, axis) -> size.
        otherwise: size of every other variable axis.
    """

    declared: Mapping[str, tuple[int, ...]]
    buckets: Mapping[tuple[str, int], int]
    otherwise: int = 1

    def shape(self, tensor: TensorSpec, rows: int) -> tuple[int, ...]:
        """Return a full shape for `rows` rows.

        Raises:
            ValueError: the declared shape has another rank than the tensor.
        """
        declared = self.declared.get(tensor.name)
        if declared is not None and len(declared) != len(tensor.shape):
            raise ValueError(
                f"the warm-up shape {list(declared)} of '{tensor.name}' has {len(declared)} axes, "
                f"the model's has {len(tensor.shape)}"
            )
        return tuple(self._size(tensor, axis, rows) for axis in range(len(tensor.shape)))

    def _size(self, tensor: TensorSpec, axis: int, rows: int) -> int:
        if axis == tensor.batch_axis:
            return rows
        declared = self.declared.get(tensor.name)
        if declared is not None and declared[axis] >= 0:
            return declared[axis]
        if tensor.shape[axis] >= 0:
            return tensor.shape[axis]
        return self.buckets.get((tensor.name, axis), self.otherwise)


def bucket_choices(spec: ModelSpec) -> list[dict[tuple[str, int], int]]:
    """Return one mapping (input, axis) -> size per step of the longest bucket list; at least one mapping."""
    rules = [rule for rule in spec.batching.pad if rule.buckets]
    steps = max((len(rule.buckets) for rule in rules), default=1)
    return [{(rule.input, rule.axis): _bucket(rule, step) for rule in rules} for step in range(steps)]


def _bucket(rule: PadRule, step: int) -> int:
    return rule.buckets[min(step, len(rule.buckets) - 1)]


def generate(tensor: TensorSpec, shape: tuple[int, ...], fill: Fill, rng: np.random.Generator) -> Array:
    """Return a C-contiguous array of the tensor's datatype.

    Random floats are normal, everything else 0 or 1 (valid as a token, an index or a flag almost anywhere);
    consecutive rows differ in every element, or nearly. BYTES are `b""`, or `b"0"` and `b"1"`.
    """
    if fill == "zero":
        return _zeros(tensor.datatype, shape)
    if tensor.datatype in _FLOATS:
        return np.asarray(rng.standard_normal(shape)).astype(tensor.datatype.dtype)
    bits = _bits(shape, tensor.batch_axis, rng)
    if tensor.datatype is Datatype.BYTES:
        texts = np.empty(bits.size, np.object_)
        texts[:] = [b"%d" % bit for bit in bits.ravel()]
        return texts.reshape(shape)
    return bits.astype(tensor.datatype.dtype)


def _zeros(datatype: Datatype, shape: tuple[int, ...]) -> Array:
    return np.full(shape, b"", np.object_) if datatype is Datatype.BYTES else np.zeros(shape, datatype.dtype)


def _bits(shape: tuple[int, ...], batch_axis: int | None, rng: np.random.Generator) -> Array:
    bits = np.asarray(rng.integers(0, 2, shape))
    if batch_axis is None:
        return bits
    rows = np.arange(shape[batch_axis]).reshape([-1 if a == batch_axis else 1 for a in range(len(shape))])
    first = bits.take([0], axis=batch_axis) if shape[batch_axis] else bits
    return np.ascontiguousarray((first + rows) % 2)


def generate_all(
    signature: ModelSignature, sizes: Sizes, rows: int, rng: np.random.Generator, fill: Fill = "random"
) -> dict[str, Array]:
    """Return an array for every input that may not be left out.

    Raises:
        ValueError: as `Sizes.shape`.
    """
    return {
        tensor.name: generate(tensor, sizes.shape(tensor, rows), fill, rng)
        for tensor in signature.inputs
        if not tensor.optional
    }
