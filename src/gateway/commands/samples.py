"""Makes example inputs for a model from nothing but its metadata: shapes and values that most models take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.core.types import Array, Datatype, Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.options import ModelSpec

FREE_AXIS: Final = 64
"""Size given to a variable axis that is not the batch: a plausible length, width or token count."""

_SPECIAL_VALUES: Final[Mapping[Datatype, bool | str]] = {Datatype.BOOL: True, Datatype.BYTES: "sample"}
_FRACTIONAL: Final = frozenset({Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BF16})


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """How samples are shaped.

    Attributes:
        rows: size of the batch axis, where a tensor has one.
        shapes: input -> full shape, batch axis included, where the guess would be wrong.
    """

    rows: int = 1
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)


def sample_shape(spec: TensorSpec, options: SampleOptions) -> tuple[int, ...]:
    """Return a full shape: rows on the batch axis, a declared size or `FREE_AXIS` where any size goes."""
    base = list(options.shapes.get(spec.name, spec.shape))
    if spec.batch_axis is not None and spec.batch_axis < len(base) and spec.shape[spec.batch_axis] < 0:
        base[spec.batch_axis] = options.rows
    return tuple(FREE_AXIS if size < 0 else int(size) for size in base)


def sample_value(datatype: Datatype) -> bool | float | int | str:
    """Return the value examples are filled with; 0 for integers, which is a valid index everywhere."""
    if datatype in _SPECIAL_VALUES:
        return _SPECIAL_VALUES[datatype]
    return 0.5 if datatype in _FRACTIONAL else 0


def sample_tensor(spec: TensorSpec, options: SampleOptions) -> Tensor:
    """Return an input for a load generator: uniform in [0, 1) for floats, else the constant sample value.

    The array is C-contiguous, of the datatype's dtype and owned by the caller.
    """
    shape = sample_shape(spec, options)
    return Tensor(spec.name, spec.datatype, _fill(spec.datatype, shape))


def _fill(datatype: Datatype, shape: tuple[int, ...]) -> Array:
    if datatype in _FRACTIONAL:
        # The same numbers in each run: figures of two runs then differ by the server alone.
        return np.random.default_rng(0).random(shape, dtype=np.float32).astype(datatype.dtype)
    value: Any = sample_value(datatype)
    return np.full(shape, value.encode() if isinstance(value, str) else value, dtype=datatype.dtype)


def element_count(shape: Sequence[int]) -> int:
    """Return the product of the sizes; 1 for a scalar."""
    return math.prod(shape)


def declared_shapes(spec: ModelSpec, inputs: Sequence[TensorSpec]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the model's own settings name: warm-up shapes first, then padding buckets."""
    shapes = {name: tuple(shape) for name, shape in spec.warm_up.shapes.items()}
    for tensor in inputs:
        buckets = {r.axis: r.buckets[0] for r in spec.batching.pad if r.input == tensor.name and r.buckets}
        if buckets and tensor.name not in shapes:
            shapes[tensor.name] = tuple(buckets.get(axis, size) for axis, size in enumerate(tensor.shape))
    return shapes
