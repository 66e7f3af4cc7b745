"""Classification: the top classes of an output as text, "value:index[:label]", instead of the tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.core.errors import InvalidRequest
from gateway.core.types import Datatype, Tensor
from gateway.protocol.bytes_tensor import object_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.interfaces import ServedVersion
    from gateway.core.types import Array, InferResponse, RequestedOutput

_REFUSED: Final = frozenset({Datatype.BYTES, Datatype.BOOL})


def classified(
    response: InferResponse, requested: Sequence[RequestedOutput], served: ServedVersion
) -> InferResponse:
    """Return `response` with every output that `requested` wants classified as its top classes.

    Rows are those of the output's batch axis where it is the first one, else the whole tensor is one row.
    Labels come from the version's settings.

    Raises:
        InvalidRequest: an output is of a type that has no order of values (BYTES, BOOL).
    """
    wanted = {output.name: output.classification for output in requested if output.classification}
    if not wanted:
        return response
    batched = {spec.name for spec in served.signature.outputs if spec.batch_axis == 0}
    outputs = tuple(
        _classified(t, wanted[t.name], served.spec.labels.get(t.name, ()), batched=t.name in batched)
        if t.name in wanted
        else t
        for t in response.outputs
    )
    return response.replaced(outputs=outputs)


def _classified(tensor: Tensor, classes: int, labels: Sequence[str], *, batched: bool) -> Tensor:
    if tensor.datatype in _REFUSED:
        kind = tensor.datatype.value
        raise InvalidRequest(f"classification is not available for output '{tensor.name}' of datatype {kind}")
    return Tensor(tensor.name, Datatype.BYTES, top_classes(tensor.array, classes, labels, batched=batched))


def top_classes(scores: Array, classes: int, labels: Sequence[str] = (), *, batched: bool) -> Array:
    """Return the best classes of each row, best first; equal scores in index order, NaN last.

    Args:
        scores: `[rows, ...]` if batched, else any shape; numeric.
        classes: how many to return; never more than a row has values.
        labels: by index within a row; an index beyond them, or an empty label, gets none.
        batched: whether the first axis counts rows.

    Returns:
        Object array of `bytes`, `[rows, k]` if batched, else `[k]`. Floats are written with six
        decimals, as Triton does.
    """
    rows = scores.shape[0] if batched and scores.ndim else 1
    table = scores.reshape(rows, -1) if scores.size else scores.reshape(rows, 0)
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
        values = table.astype(np.float64) if table.dtype.kind not in "iu" else table
    order = _best_first(values)[:, :classes]
    texts = [
        _text(value, int(index), labels)
        for row, indices in zip(values, order, strict=True)
        for index, value in zip(indices, row[indices].tolist(), strict=True)
    ]
    return object_array(texts).reshape(order.shape if batched else (-1,))


def _best_first(values: Array) -> Array:
    """Return the indices of each row by descending value; stable."""
    # Reversed twice, so that a stable ascending sort gives ties in ascending index order. Negating instead
    # would overflow for the least integer and wrap for unsigned ones.
    last = values.shape[1] - 1
    ascending = np.argsort(_nan_lowest(values)[:, ::-1], axis=1, kind="stable")
    order: Array = last - ascending[:, ::-1]
    return order


def _nan_lowest(values: Array) -> Array:
    return np.where(np.isnan(values), -np.inf, values) if values.dtype.kind == "f" else values


def _text(value: object, index: int, labels: Sequence[str]) -> bytes:
    number = f"{value:f}" if isinstance(value, float) else str(value)
    label = labels[index] if index < len(labels) else ""
    return f"{number}:{index}:{label}".encode() if label else f"{number}:{index}".encode()
