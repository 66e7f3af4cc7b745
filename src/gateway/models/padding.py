"""Holds a model's padding and cutting rules against its signature, before the first request meets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.options import BatchingOptions, CutRule, PadRule
    from gateway.core.types import ModelSignature, TensorSpec


def check_padding(signature: ModelSignature, options: BatchingOptions) -> None:
    """See whether every rule can do what it says.

    Raises:
        ModelLoadError: a rule names a tensor or axis that is not there, or an axis that is not variable; is
            repeated; has buckets that do not ascend; cuts after an axis that is not padded; or parts of one
            large request could come out unequally long.
    """
    inputs = {spec.name: spec for spec in signature.inputs}
    outputs = {spec.name: spec for spec in signature.outputs}
    for rule in options.pad:
        _check_pad(rule, inputs, batchable=signature.batchable)
    padded = [(rule.input, rule.axis) for rule in options.pad]
    _check_once("pad", padded)
    for cut in options.cut:
        _check_cut(cut, outputs, padded)
    _check_once("cut", [(cut.output, cut.axis) for cut in options.cut])
    _check_parts(signature, options)


def _check_pad(rule: PadRule, inputs: Mapping[str, TensorSpec], *, batchable: bool) -> None:
    where = f"batching.pad of input '{rule.input}', axis {rule.axis}"
    spec = _tensor(where, rule.input, inputs)
    if not batchable or spec.batch_axis is None:
        raise ModelLoadError(f"{where}: the input has no batch axis, so it never shares a batch")
    _check_axis(where, rule.axis, spec)
    if list(rule.buckets) != sorted(set(rule.buckets)):
        raise ModelLoadError(f"{where}: buckets must ascend without repeats, got {list(rule.buckets)}")


def _check_cut(cut: CutRule, outputs: Mapping[str, TensorSpec], padded: Sequence[tuple[str, int]]) -> None:
    where = f"batching.cut of output '{cut.output}', axis {cut.axis}"
    _check_axis(where, cut.axis, _tensor(where, cut.output, outputs))
    if (cut.input, cut.input_axis) not in padded:
        raise ModelLoadError(
            f"{where}: input '{cut.input}' is not padded along axis {cut.input_axis}; "
            f"padded are: {', '.join(f'{name} axis {axis}' for name, axis in padded) or 'none'}"
        )


def _tensor(where: str, name: str, known: Mapping[str, TensorSpec]) -> TensorSpec:
    if spec := known.get(name):
        return spec
    raise ModelLoadError(f"{where}: the model has no such tensor; it has {', '.join(known)}")


def _check_axis(where: str, axis: int, spec: TensorSpec) -> None:
    if axis >= len(spec.shape):
        raise ModelLoadError(f"{where}: the model's shape {list(spec.shape)} has no such axis")
    if axis == spec.batch_axis:
        raise ModelLoadError(f"{where}: this is the batch axis; pad it by batching.allowed_rows")
    if spec.shape[axis] != -1:
        raise ModelLoadError(f"{where}: the axis is not variable, the model's shape is {list(spec.shape)}")


def _check_once(kind: str, rules: Sequence[tuple[str, int]]) -> None:
    for name, axis in rules:
        if rules.count((name, axis)) > 1:
            raise ModelLoadError(f"batching.{kind}: '{name}' has more than one rule for axis {axis}")


def _check_parts(signature: ModelSignature, options: BatchingOptions) -> None:
    """Without buckets each part is as long as the longest request beside it, and so may be its output."""
    if not options.split_large or all(rule.buckets for rule in options.pad):
        return
    cut = {(rule.output, rule.axis) for rule in options.cut}
    for spec in signature.outputs:
        for axis, size in enumerate(spec.shape):
            if size == -1 and axis != spec.batch_axis and (spec.name, axis) not in cut:
                raise ModelLoadError(
                    f"batching.split_large with a pad rule without buckets: parts of one request could "
                    f"differ along axis {axis} of output '{spec.name}'; give buckets or a cut"
                )
