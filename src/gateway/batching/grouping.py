"""Which requests may share a run: the grouping key of a request, its rows and its bytes per row."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from gateway.core.errors import InvalidRequest
from gateway.core.options import EVERY_PARAMETER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.core.options import BatchingOptions, PadRule
    from gateway.core.types import Array, InferRequest, ModelSignature, ParameterValue, Tensor, TensorSpec

_Head: TypeAlias = "tuple[str, int, tuple[int, ...]]"
"""Name, NumPy type number and shape of one input."""

SHARED_BYTES: Final = 64 << 10
"""Inputs without a batch axis are compared by value up to this size, which costs about 0.1 ms; a request with
more in them runs alone."""

_SHARED_TEXTS: Final = 1024
"""Likewise, elements of a BYTES input."""

_MOST_LAYOUTS: Final = 1024
"""Layouts remembered; beyond it all are forgotten, so that clients with ever new shapes hold no memory."""


class Layout(NamedTuple):
    """What all requests with the same input names, dtypes and shapes have in common.

    Attributes:
        key: the part of the grouping key that follows from it.
        rows: rows of the request.
        row_bytes: bytes of one row in a run, padding included; of all inputs where there is no batch axis.
        shared_bytes: bytes of the inputs that a batch has once, whatever its rows.
        positions: for each input of the signature its position in the request, or -1 if it is left out.
        shared: positions of the inputs without a batch axis, whose values are part of the grouping key.
    """

    key: Hashable
    rows: int
    row_bytes: int
    shared_bytes: int
    positions: tuple[int, ...]
    shared: tuple[int, ...]


class Grouper:
    """Computes layouts and grouping keys for one signature; remembers layouts, so that most cost a look-up.

    Two requests have equal keys exactly when they have the same inputs present, with the same dtypes and the
    same shapes but for the batch axis and the axes padded together, equal values in every input that has no
    batch axis, and equal values of the declared group parameters. One that brings more than `SHARED_BYTES`
    in such inputs has a key of its own: comparing them would hold up the event loop.
    """

    def __init__(self, model: str, signature: ModelSignature, options: BatchingOptions) -> None:
        """Prepare for a signature; where it is not batchable every request has the same key and one row."""
        self._model = model
        self._batchable = signature.batchable
        self._specs: Sequence[TensorSpec] = signature.inputs
        self._index: Mapping[str, int] = {spec.name: i for i, spec in enumerate(signature.inputs)}
        self._pads: Mapping[str, Mapping[int, PadRule]] = {
            spec.name: {rule.axis: rule for rule in options.pad if rule.input == spec.name}
            for spec in signature.inputs
        }
        declared = (options.group_parameters or ()) if self._batchable else ()
        self._every_parameter = EVERY_PARAMETER in declared
        self._parameters = () if self._every_parameter else declared
        self._layouts: dict[tuple[_Head, ...], Layout] = {}
        self._kinds: dict[object, Layout] = {}

    def layout(self, request: InferRequest) -> Layout:
        """Return the layout of a request that has been checked against the signature.

        Raises:
            InvalidRequest: its inputs disagree about the number of rows, or an axis is longer than the
                largest bucket declared for it.
        """
        kind = request.kind
        layout = self._kinds.get(kind) if kind is not None else None
        if layout is not None:
            return layout
        layout = self._layout(request)
        if kind is not None:
            if len(self._kinds) >= _MOST_LAYOUTS:
                self._kinds.clear()
            self._kinds[kind] = layout
        return layout

    def _layout(self, request: InferRequest) -> Layout:
        heads = tuple([(t.name, t.array.dtype.num, t.array.shape) for t in request.inputs])
        layout = self._layouts.get(heads)
        if layout is None:
            layout = self._measure(request.inputs, heads)
            if len(self._layouts) >= _MOST_LAYOUTS:
                self._layouts.clear()
            self._layouts[heads] = layout
        return layout

    def key(self, request: InferRequest, layout: Layout) -> Hashable:
        """Return the grouping key of a request with this layout."""
        named = self._parameters or (self._every_parameter and sorted(request.parameters))
        if not layout.shared and not named:
            return layout.key
        shared = [request.inputs[position].array for position in layout.shared]
        if layout.shared_bytes > SHARED_BYTES or _much_text(shared):
            return object()
        values = tuple([_value_of(array) for array in shared])
        parameters = tuple([(name, _typed(request.parameters.get(name))) for name in named or ()])
        return (layout.key, values, parameters)

    def shared_parameters(self, request: InferRequest) -> Mapping[str, ParameterValue]:
        """Return the group parameters a request brings: those its whole batch has in common."""
        if self._every_parameter:
            return request.parameters
        return {name: request.parameters[name] for name in self._parameters if name in request.parameters}

    def _measure(self, inputs: tuple[Tensor, ...], heads: tuple[_Head, ...]) -> Layout:
        found = {name: position for position, (name, _, _) in enumerate(heads)}
        positions = tuple([found.get(spec.name, -1) for spec in self._specs])
        if not self._batchable:
            return Layout(None, 1, sum([tensor.array.nbytes for tensor in inputs]), 0, positions, ())
        key: list[Hashable] = []
        row_bytes = shared_bytes = 0
        for spec, position in zip(self._specs, positions, strict=True):
            if position < 0:
                continue
            _, type_number, shape = heads[position]
            group_shape, elements = self._group_shape(spec, shape)
            key.append((spec.name, type_number, group_shape))
            row_bytes += elements * inputs[position].array.itemsize
            if spec.batch_axis is None:
                shared_bytes += inputs[position].array.nbytes
        shared = tuple(
            [p for spec, p in zip(self._specs, positions, strict=True) if p >= 0 and spec.batch_axis is None]
        )
        return Layout(tuple(key), self._rows(heads), row_bytes, shared_bytes, positions, shared)

    def _group_shape(self, spec: TensorSpec, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """Return a shape with only what must be equal within a batch, and one row's elements in a run."""
        sizes, elements = list(shape), 1
        if spec.batch_axis is not None:
            sizes[spec.batch_axis] = -1
        for axis, rule in self._pads[spec.name].items():
            padded = self._bucket(spec, rule, shape[axis])
            elements *= padded
            sizes[axis] = padded if rule.buckets else -1
        for axis, size in enumerate(sizes):
            elements *= size if axis not in self._pads[spec.name] and axis != spec.batch_axis else 1
        return tuple(sizes), elements if spec.batch_axis is not None else 0

    def _bucket(self, spec: TensorSpec, rule: PadRule, size: int) -> int:
        if not rule.buckets:
            return size
        for bucket in rule.buckets:
            if size <= bucket:
                return bucket
        raise InvalidRequest(
            f"input '{spec.name}' of model '{self._model}' has size {size} along axis {rule.axis}: "
            f"expected at most {rule.buckets[-1]}, the largest size it is padded to"
        )

    def _rows(self, heads: tuple[_Head, ...]) -> int:
        first_name, rows = "", None
        for name, _, shape in heads:
            axis = self._specs[self._index[name]].batch_axis
            if axis is None:
                continue
            if rows is None:
                first_name, rows = name, shape[axis]
            elif shape[axis] != rows:
                raise InvalidRequest(
                    f"input '{name}' of model '{self._model}' has {shape[axis]} rows along axis {axis}, "
                    f"input '{first_name}' has {rows}: expected the same number in every batched input"
                )
        return 1 if rows is None else rows


def _much_text(arrays: Sequence[Array]) -> bool:
    """Return whether BYTES inputs among `arrays` hold too much to be compared."""
    texts = [array for array in arrays if array.dtype.hasobject]
    if sum([array.size for array in texts]) > _SHARED_TEXTS:
        return True
    return sum([len(text) for array in texts for text in array.ravel()]) > SHARED_BYTES


def _value_of(array: Array) -> Hashable:
    return tuple(array.ravel().tolist()) if array.dtype.hasobject else array.tobytes()


def _typed(value: ParameterValue | None) -> Hashable:
    """Return a value that differs from those of other types: True is not 1, and 1 is not 1.0."""
    return (type(value), value)
