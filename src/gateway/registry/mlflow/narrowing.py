"""Compares MLflow's signature of a version with that of its ONNX file, which alone is enforced.

MLflow's is written by whoever logged the model. It may be missing, unnamed, or list some of the outputs, and
then says nothing of the rest. What it does say must fit:

- a named input must be one of the file's; an unnamed one stands for the only input of a file that has one;
- element types must be equal. float64 stands for FP32 too: MLflow's own ONNX flavour casts it, because Python
  and pandas make 64-bit floats of everything;
- axes that both fix must be equal, and inputs must have as many axes. Outputs may differ in that:
  scikit-learn answers `[rows]` where its converted model answers `[rows, 1]`;
- columns (what a data frame has) are the inputs of a file with several, and the features of the only one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.core.datatypes import Datatype
from gateway.core.registry import RegistryError
from gateway.registry.mlflow.mlmodel import SUBJECT, signature_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gateway.core.types import ModelSignature, TensorSpec

_DATATYPES: Final[Mapping[Any, Datatype]] = {
    datatype.dtype: datatype for datatype in Datatype if datatype is not Datatype.BYTES
}
_COLUMN_KINDS: Final[Mapping[str, str]] = {
    "boolean": "number",
    "integer": "number",
    "long": "number",
    "float": "number",
    "double": "number",
    "string": "text",
    "binary": "text",
}
"""Columns are converted on their way to a tensor, so only numbers and text are told apart."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    """What MLflow says of one tensor.

    Attributes:
        name: empty when unnamed.
        datatype: None for one that ONNX has no counterpart of, or that is not given.
        shape: None when not given.
        text: it as shown to people.
    """

    name: str
    datatype: Datatype | None
    shape: tuple[int, ...] | None
    text: str


@dataclass(frozen=True, slots=True)
class _Column:
    """What MLflow says of one column of a data frame; `kind` is empty for one that is not compared."""

    name: str
    kind: str
    text: str
    required: bool


def narrow(directory: Path, signature: ModelSignature, subject: str = SUBJECT) -> None:
    """Pass when the signature in a version's MLmodel, if any, does not contradict the model file's. Blocking.

    Args:
        directory: the version's files.
        signature: the model file's.
        subject: what to call the version in messages.

    Raises:
        RegistryError: step `verify`, not passing; MLmodel is missing or malformed, or contradicts the file.
    """
    inputs, outputs = signature_of(directory, subject)
    check_narrows(inputs, outputs, signature, subject)


def check_narrows(
    inputs: Sequence[Any], outputs: Sequence[Any], signature: ModelSignature, subject: str = SUBJECT
) -> None:
    """Pass when MLflow's signature does not contradict the model file's.

    Args:
        inputs: MLflow's specs of the inputs, parsed from JSON; empty when it has none.
        outputs: likewise of the outputs.
        signature: the model file's.
        subject: what to call the version in messages.

    Raises:
        RegistryError: step `verify`, not passing; the message shows both sides.
    """
    try:
        _check_inputs(inputs, signature)
        _check_outputs(outputs, signature)
    except _Contradiction as exc:
        raise RegistryError(
            "verify", f"{subject}: MLflow's signature contradicts the model file: {exc}", may_pass=False
        ) from exc


class _Contradiction(Exception):
    """The message says where."""


def _check_inputs(specs: Sequence[Any], signature: ModelSignature) -> None:
    tensors, columns = _parsed(specs)
    known = {spec.name: spec for spec in signature.inputs}
    for tensor in tensors:
        spec = known.get(tensor.name)
        if not tensor.name and len(known) == 1:
            spec = signature.inputs[0]
        elif spec is None and tensor.name:
            raise _Contradiction(f"it has an input '{tensor.name}', {_names(signature.inputs)}")
        if spec is not None:
            _check_tensor("input", tensor, spec, same_rank=True)
    if columns:
        _check_columns(columns, known)


def _check_outputs(specs: Sequence[Any], signature: ModelSignature) -> None:
    known = {spec.name: spec for spec in signature.outputs}
    for tensor in _parsed(specs)[0]:
        spec = known.get(tensor.name)
        if spec is None and len(specs) == len(known) == 1:
            spec = signature.outputs[0]
        if spec is not None:
            _check_tensor("output", tensor, spec, same_rank=False)


def _check_tensor(side: str, tensor: _Tensor, spec: TensorSpec, *, same_rank: bool) -> None:
    if tensor.datatype is not None and not _same_type(tensor.datatype, spec.datatype):
        raise _differs(side, tensor, spec)
    if tensor.shape is None:
        return
    if len(tensor.shape) != len(spec.shape):
        if same_rank:
            raise _differs(side, tensor, spec)
        return
    if any(
        -1 not in {ours, theirs} and ours != theirs
        for ours, theirs in zip(spec.shape, tensor.shape, strict=True)
    ):
        raise _differs(side, tensor, spec)


def _same_type(theirs: Datatype, ours: Datatype) -> bool:
    return theirs is ours or (theirs is Datatype.FP64 and ours is Datatype.FP32)


def _check_columns(columns: Sequence[_Column], known: Mapping[str, TensorSpec]) -> None:
    if len(known) == 1:
        (spec,) = known.values()
        pairs = [(column, spec) for column in columns]
        features = spec.shape[1] if len(spec.shape) == 2 else -1
        each_is_one = all(column.required and column.kind for column in columns)
        if features not in {-1, len(columns)} and each_is_one:
            raise _Contradiction(f"it has {len(columns)} input columns, the file's input is {_shown(spec)}")
    else:
        for column in columns:
            if column.required and column.name not in known:
                raise _Contradiction(
                    f"it has an input column '{column.name}', {_names(tuple(known.values()))}"
                )
        pairs = [(column, known[column.name]) for column in columns if column.name in known]
    for column, spec in pairs:
        kind = "text" if spec.datatype is Datatype.BYTES else "number"
        if column.kind not in {"", kind}:
            raise _Contradiction(
                f"its input column '{column.name}' is {column.text}, the file's input {_shown(spec)}"
            )


def _parsed(specs: Sequence[Any]) -> tuple[list[_Tensor], list[_Column]]:
    tensors: list[_Tensor] = []
    columns: list[_Column] = []
    for spec in specs:
        if not isinstance(spec, dict):
            continue
        name = spec.get("name")
        name = name[:200] if isinstance(name, str) else ""
        if spec.get("type") == "tensor":
            tensors.append(_tensor(name, spec.get("tensor-spec")))
        else:
            text = str(spec.get("type"))[:40]
            columns.append(
                _Column(name, _COLUMN_KINDS.get(text, ""), text, spec.get("required") is not False)
            )
    return tensors, columns


def _tensor(name: str, spec: Any) -> _Tensor:
    spec = spec if isinstance(spec, dict) else {}
    shape = spec.get("shape")
    is_shape = isinstance(shape, list) and all(type(axis) is int and axis >= -1 for axis in shape)
    axes = tuple(shape) if is_shape else None
    dtype = str(spec.get("dtype"))[:40]
    return _Tensor(name, _datatype(dtype), axes, f"{dtype} {list(axes) if axes is not None else '[...]'}")


def _datatype(name: str) -> Datatype | None:
    """Return what the NumPy type of this name is in the protocol; None when it has no counterpart."""
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError):
        return None
    return Datatype.BYTES if dtype.kind in "OSU" else _DATATYPES.get(dtype)


def _differs(side: str, tensor: _Tensor, spec: TensorSpec) -> _Contradiction:
    return _Contradiction(f"{side} '{spec.name}' is {tensor.text} there, {_shown(spec)} in the file")


def _shown(spec: TensorSpec) -> str:
    return f"{spec.datatype.value} {list(spec.shape)}"


def _names(specs: Sequence[TensorSpec]) -> str:
    return "the file has " + ", ".join(f"'{spec.name}'" for spec in specs)
