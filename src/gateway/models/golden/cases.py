"""What the formats of golden tests have in common: the case, its limits, its fit to the model's signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.core.types import Array, Datatype
from gateway.models.golden.comparison import Tolerance

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gateway.core.types import ModelSignature, TensorSpec

MIB: Final = 1 << 20
MOST_CASES: Final = 10_000
"""Of one file."""
MOST_BYTES: Final = 64 * MIB
"""Of one file, and of its arrays unpacked."""

_KINDS: Final[Mapping[str, str]] = {"b": "b", "i": "iu", "u": "iu"}
"""Kind of the model's dtype -> kinds of NumPy's that may stand for it; floats take numbers of any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenCase:
    """Inputs and the answer they must get.

    Attributes:
        title: what messages call it, `golden.jsonl case 3`.
        inputs: name -> array of the model's shape and dtype, C-contiguous.
        outputs: name -> array; floats in double precision. Never empty.
        tolerance: how far floats may be off.
        row_titles: title of what each row is a case of; None when all rows are one.
    """

    title: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    tolerance: Tolerance
    row_titles: str | None = None


def check_names(inputs: Collection[str], outputs: Collection[str], signature: ModelSignature) -> None:
    """Refuse tensors that the model lacks or that are missing.

    Raises:
        ValueError: naming the tensor, and those there are.
    """
    _check_known(inputs, signature.inputs, "input")
    _check_known(outputs, signature.outputs, "output")
    if missing := [s.name for s in signature.inputs if not s.optional and s.name not in inputs]:
        raise ValueError(f"input '{missing[0]}' is missing")
    if not outputs:
        raise ValueError("no output is expected")


def check_shape(shape: Sequence[int], spec: TensorSpec, where: str) -> None:
    """Refuse a shape that is not the model's; the batch axis may have any size.

    Raises:
        ValueError: with both shapes.
    """
    of_model = [-1 if axis == spec.batch_axis else size for axis, size in enumerate(spec.shape)]
    if len(shape) != len(of_model) or any(m not in (-1, n) for n, m in zip(shape, of_model, strict=True)):
        raise ValueError(f"{where} has shape {list(shape)}, the model has {list(spec.shape)}")


def input_values(array: Array, datatype: Datatype, where: str) -> Array:
    """Return an array in the model's dtype, C-contiguous, its own.

    Raises:
        ValueError: elements of another kind, or a value that does not fit.
    """
    values = _checked(array, datatype, where)
    with np.errstate(over="ignore"):
        narrow: Array = np.array(values, datatype.dtype, order="C")
    if values.dtype.kind == "f" and np.isinf(narrow.astype(np.float64)).sum() != np.isinf(values).sum():
        raise ValueError(f"{where} has a value out of range for {datatype.value}")
    return narrow


def expected_values(array: Array, datatype: Datatype, where: str) -> Array:
    """Return an array to compare with: floats in double precision, anything else in the model's dtype.

    Raises:
        ValueError: as `input_values`.
    """
    values = _checked(array, datatype, where)
    floats = datatype is not Datatype.BYTES and np.dtype(datatype.dtype).kind not in _KINDS
    return values.astype(np.float64 if floats else datatype.dtype)


def tolerance_of(members: Mapping[str, Any]) -> Tolerance:
    """Return the tolerance that `rtol` and `atol` say, each the default where it is left out.

    Raises:
        ValueError: another member, or a value that is no number from 0 up.
    """
    if unknown := sorted(members.keys() - {"rtol", "atol"}):
        raise ValueError(f"unknown tolerance '{unknown[0]}', there are rtol and atol")
    for name, value in members.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a number from 0 up")
    return Tolerance(**{name: float(value) for name, value in members.items()})


def _check_known(names: Collection[str], specs: Sequence[TensorSpec], kind: str) -> None:
    known = [spec.name for spec in specs]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"the model has no {kind} '{unknown[0]}', its {kind}s are {', '.join(known)}")


def _checked(array: Array, datatype: Datatype, where: str) -> Array:
    """Return the array if its elements are of the right kind; texts as an object array of bytes."""
    if datatype is Datatype.BYTES:
        return _texts(array, where)
    kinds = _KINDS.get(np.dtype(datatype.dtype).kind, "iuf")
    if array.size and array.dtype.kind not in kinds:
        raise ValueError(f"{where} has elements that are no {datatype.value}")
    if kinds == "iu" and array.size:
        bounds = np.iinfo(datatype.dtype)
        if int(array.min()) < bounds.min or int(array.max()) > bounds.max:
            raise ValueError(f"{where} has a value out of range for {datatype.value}")
    return array


def _texts(array: Array, where: str) -> Array:
    texts: Array = np.empty(array.shape, np.object_)
    for index, text in np.ndenumerate(array):
        if not isinstance(text, (str, bytes)):
            raise ValueError(f"{where} has elements that are no texts")  # noqa: TRY004 - the file's fault
        texts[index] = text.encode() if isinstance(text, str) else bytes(text)
    return texts
