"""Decide a model's signature: which axis of each tensor counts rows, and whether that may be relied on."""

from __future__ import annotations

import difflib
import enum
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gateway.core.errors import ModelLoadError
from gateway.core.types import Datatype, ModelSignature, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.backends.onnxruntime.graph import Dim, GraphReport, GraphTensor
    from gateway.core.options import ModelSpec

# Names that exporters make up, one per tensor (tf2onnx, paddle2onnx, torch, ONNX shape inference): two of
# them being different says nothing, while two names that people gave and that differ are different sizes.
_MADE_UP: Final = re.compile(
    r"\?|-1|None|unk__\d+|p2o\.DynamicDimension\.\d+|s\d+|dim_\d+|.*_dynamic_axes_\d+|.*_dim_\d+|DynamicDimension\.\d+"
)


class Claim(enum.Enum):
    """Why rows of requests could be merged."""

    DECLARED = "declared"
    """The model's settings say so."""
    NAMED = "named"
    """One symbolic name is the first axis of every tensor in the file."""
    GUESSED = "guessed"
    """Every first axis is variable, without one name; only a proof by running makes it good."""
    NONE = "none"
    """Not batchable: every request runs alone."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A signature and how sure it is.

    Attributes:
        signature: batch axes set; all None when the model is not batchable.
        claim: what the batch axes rest on.
        warnings: sentences for the operator.
    """

    signature: ModelSignature
    claim: Claim
    warnings: tuple[str, ...] = ()

    def unbatched(self, reason: str) -> Reading:
        """Return the same without batch axes, because of `reason`."""
        return Reading(_with_axes(self.signature, {}), Claim.NONE, (*self.warnings, reason))


def read_signature(report: GraphReport, spec: ModelSpec) -> Reading:
    """Decide the signature of an inspected file.

    Raises:
        ModelLoadError: an input has a type that the protocol cannot carry, no output has one it can, or the
            declared batch axes do not fit the file.
    """
    outputs, left_out = _tensor_outputs(report.outputs)
    warnings = (*report.notices, *left_out)
    inputs = tuple(map(_input, report.inputs))
    signature = ModelSignature(inputs, tuple(map(_spec, outputs)))
    if spec.batch_axes or (spec.max_batch_size or 0) > 0:
        return _declared(signature, spec, warnings)
    if spec.max_batch_size == 0:
        return Reading(_with_axes(signature, {}), Claim.NONE, warnings)
    claim = _claim([t for t in report.inputs if t.name not in report.initializers], outputs)
    if claim is Claim.NONE:
        return Reading(_with_axes(signature, {}), claim, warnings)
    axes = {t.name: 0 for t in (*signature.inputs, *signature.outputs) if t.name not in report.initializers}
    return Reading(_with_axes(signature, axes), claim, warnings)


def _tensor_outputs(outputs: Iterable[GraphTensor]) -> tuple[list[GraphTensor], tuple[str, ...]]:
    """Leave out what the protocol cannot carry (sklearn's ZipMap gives a sequence of maps, for example)."""
    kept, warnings = [], []
    for output in outputs:
        if output.datatype is None:
            warnings.append(
                f"output '{output.name}' of type {output.kind} is left out: the protocol has none such"
            )
        else:
            kept.append(output)
    if not kept:
        raise ModelLoadError("no output is a tensor of a type that the protocol has; " + "; ".join(warnings))
    return kept, tuple(warnings)


def _input(tensor: GraphTensor) -> TensorSpec:
    if tensor.datatype is None:
        raise ModelLoadError(
            f"input '{tensor.name}' is of type {tensor.kind}, which the protocol cannot carry"
        )
    if tensor.dims is None:
        raise ModelLoadError(f"input '{tensor.name}' declares no rank; export the model with input shapes")
    return _spec(tensor)


def _spec(tensor: GraphTensor) -> TensorSpec:
    assert tensor.datatype is not None
    # An output of unknown rank is published as one variable axis; nothing checks it against that.
    dims: Sequence[Dim] = (None,) if tensor.dims is None else tensor.dims
    shape = tuple(d if isinstance(d, int) else -1 for d in dims)
    return TensorSpec(tensor.name, Datatype(tensor.datatype), shape, None, tensor.optional)


def _claim(inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]) -> Claim:
    first = [_first(t) for t in inputs], [_first(t) for t in outputs]
    if not inputs or any(dim is False for dim in (*first[0], *first[1])):
        return Claim.NONE
    names = set(first[0]) | set(first[1])
    if len(names) == 1 and None not in names:
        return Claim.NAMED
    given = {dim for dim in first[0] if isinstance(dim, str) and not _MADE_UP.fullmatch(dim)}
    return Claim.NONE if len(given) > 1 else Claim.GUESSED


def _first(tensor: GraphTensor) -> str | bool | None:
    """Return the name of a variable first axis, None when it has none, False when it is fixed or missing."""
    if not tensor.dims or isinstance(tensor.dims[0], int):
        return False
    return tensor.dims[0]


def _declared(signature: ModelSignature, spec: ModelSpec, warnings: tuple[str, ...]) -> Reading:
    tensors = {t.name: t for t in (*signature.inputs, *signature.outputs)}
    for name in spec.batch_axes:
        if name not in tensors:
            near = difflib.get_close_matches(name, tensors, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; it has {', '.join(tensors)}"
            raise ModelLoadError(f"batch_axes names '{name}', which the model does not have{hint}")
    inputs = {t.name: _declared_axis(t, spec) for t in signature.inputs}
    if all(axis is None for axis in inputs.values()):
        return Reading(_with_axes(signature, {}), Claim.NONE, warnings)
    outputs = {t.name: _declared_axis(t, spec) for t in signature.outputs}
    reading = Reading(_with_axes(signature, {**inputs, **outputs}), Claim.DECLARED, warnings)
    if shared := [name for name, axis in outputs.items() if axis is None]:
        return reading.unbatched(f"served unbatched: output '{shared[0]}' has no batch axis to split it by")
    return reading


def _declared_axis(tensor: TensorSpec, spec: ModelSpec) -> int | None:
    rank = len(tensor.shape)
    if tensor.name in spec.batch_axes:
        axis = spec.batch_axes[tensor.name]
    elif rank == 0 or tensor.optional:
        return None
    else:
        axis = 0
    if axis is None:
        return None
    if not 0 <= axis < rank:
        raise ModelLoadError(f"batch axis {axis} of '{tensor.name}' is not one of its {rank} axes")
    if tensor.shape[axis] != -1:
        raise ModelLoadError(
            f"batch axis {axis} of '{tensor.name}' has the fixed size {tensor.shape[axis]} in the file "
            f"(shape {list(tensor.shape)}); declare its batch axis, or null for none, under batch_axes"
        )
    return axis


def _with_axes(signature: ModelSignature, axes: Mapping[str, int | None]) -> ModelSignature:
    return replace(
        signature,
        inputs=tuple(replace(t, batch_axis=axes.get(t.name)) for t in signature.inputs),
        outputs=tuple(replace(t, batch_axis=axes.get(t.name)) for t in signature.outputs),
    )
