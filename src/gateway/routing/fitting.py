"""Whether a version would take a request that another has refused, as far as its signature tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.interfaces import ServedVersion
    from gateway.core.options import BatchingOptions
    from gateway.core.types import InferRequest, Tensor, TensorSpec


def takes_as_little(one: ServedVersion, other: ServedVersion) -> bool:
    """Whether two versions refuse the same requests, because they ask the same of them."""
    return one.signature == other.signature and one.spec.batching == other.spec.batching


def would_take(version: ServedVersion, request: InferRequest) -> bool:
    """Whether names, datatypes, shapes, rows and requested outputs are such as the version takes."""
    signature, batching = version.signature, version.spec.batching
    inputs = {spec.name: spec for spec in signature.inputs}
    outputs = {spec.name for spec in signature.outputs}
    names = {tensor.name for tensor in request.inputs}
    required = {spec.name for spec in signature.inputs if not spec.optional}
    wanted = {output.name for output in request.outputs}
    if len(names) < len(request.inputs) or len(wanted) < len(request.outputs):
        return False
    if not (required <= names <= inputs.keys() and wanted <= outputs):
        return False
    if not all(_fits(tensor, inputs[tensor.name], batching) for tensor in request.inputs):
        return False
    axes = {tensor.name: inputs[tensor.name].batch_axis for tensor in request.inputs}
    rows = {tensor.array.shape[a] for tensor in request.inputs if (a := axes[tensor.name]) is not None}
    return _fit_rows(
        rows, batching, any_batched=any(spec.batch_axis is not None for spec in signature.inputs)
    )


def _fits(tensor: Tensor, spec: TensorSpec, batching: BatchingOptions) -> bool:
    shape = tensor.array.shape
    if tensor.datatype is not spec.datatype or len(shape) != len(spec.shape):
        return False
    sizes = enumerate(zip(shape, spec.shape, strict=True))
    if any(size != asked for axis, (size, asked) in sizes if asked >= 0 and axis != spec.batch_axis):
        return False
    rules = [rule for rule in batching.pad if rule.input == spec.name and rule.buckets]
    return all(shape[rule.axis] <= rule.buckets[-1] for rule in rules)


def _fit_rows(rows: Iterable[int], batching: BatchingOptions, *, any_batched: bool) -> bool:
    if not any_batched:
        return True
    counts = tuple(rows)
    most = min((batching.max_batch_rows, *batching.allowed_rows[-1:]))
    return len(counts) == 1 and counts[0] >= 1 and (batching.split_large or counts[0] <= most)
