"""Checks a request against one version's signature, with everything compiled beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.errors import InvalidRequest
from gateway.core.types import Datatype

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.core.options import BatchingOptions
    from gateway.core.types import InferRequest, ModelSignature, Tensor, TensorSpec

IMPLICIT_BATCH_NOTE: Final = (
    " NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended"
    " to each input shape. If you want to specify the full shape including the batch dim in your input dims"
    " config, try setting max_batch_size to zero. See the model configuration docs for more info on"
    " max_batch_size."
)


_MOST_KINDS: Final = 1024  # kinds of requests remembered as fit; beyond it all are forgotten


class _InputCheck(NamedTuple):
    """One input: its rank, the axes of fixed size, the axes padded to a largest bucket, its batch axis."""

    datatype: Datatype
    rank: int
    fixed: tuple[tuple[int, int], ...]
    longest: tuple[tuple[int, int], ...]
    batch_axis: int | None
    shape: tuple[int, ...]


class RequestValidator:
    """Refuses what the model cannot run, in Triton's words where it has them.

    Built once per version; `check` costs a few microseconds for a small model and keeps nothing.

    Args:
        model: the public model name, for messages.
        signature: what the model takes and gives.
        batching: the most rows and the largest buckets.
        implicit_batch: the model's config has `max_batch_size` > 0; adds Triton's hint to shape errors.
    """

    __slots__ = (
        "_hint",
        "_inputs",
        "_longest",
        "_model",
        "_most_rows",
        "_outputs",
        "_passed",
        "_required",
        "_row_axes",
    )

    def __init__(
        self, model: str, signature: ModelSignature, batching: BatchingOptions, *, implicit_batch: bool
    ) -> None:
        self._model = model
        buckets = {(rule.input, rule.axis): rule.buckets[-1] for rule in batching.pad if rule.buckets}
        self._inputs = {spec.name: _compile(spec, buckets) for spec in signature.inputs}
        self._required = tuple(s.name for s in signature.inputs if not s.optional)
        self._outputs = frozenset(s.name for s in signature.outputs)
        self._row_axes = any(s.batch_axis is not None for s in signature.inputs)
        limited = signature.batchable and not batching.split_large
        self._most_rows = batching.max_batch_rows if limited else None
        self._hint = IMPLICIT_BATCH_NOTE if implicit_batch else ""
        self._passed: set[object] = set()

    def check(self, request: InferRequest) -> None:
        """Pass, or refuse.

        Raises:
            InvalidRequest: names, counts, datatypes, shapes, rows or requested outputs are wrong.
        """
        kind = request.kind
        if kind is not None:
            if kind in self._passed:
                return
            self._check(request)
            if len(self._passed) >= _MOST_KINDS:
                self._passed.clear()
            self._passed.add(kind)
        else:
            self._check(request)

    def _check(self, request: InferRequest) -> None:
        inputs = request.inputs
        rows: int | None = None
        for tensor in inputs:
            count = self._check_tensor(tensor)
            if count is not None:
                if rows is not None and count != rows:
                    raise self._uneven_rows(tensor.name)
                rows = count
        self._check_names(inputs)
        if self._row_axes:
            self._check_rows(rows)
        if request.outputs:
            self._check_outputs([output.name for output in request.outputs])

    def _check_tensor(self, tensor: Tensor) -> int | None:
        """Return the tensor's rows, None when it has no batch axis."""
        check = self._inputs.get(tensor.name)
        if check is None:
            raise self._unexpected_input(tensor.name)
        if tensor.datatype is not check.datatype:
            raise self._wrong_datatype(tensor, check)
        shape = tensor.array.shape
        if len(shape) != check.rank:
            raise self._wrong_shape(tensor, check)
        for axis, size in check.fixed:
            if shape[axis] != size:
                raise self._wrong_shape(tensor, check)
        if check.longest:
            self._check_buckets(tensor, check)
        return None if check.batch_axis is None else shape[check.batch_axis]

    def _check_names(self, inputs: Sequence[Tensor]) -> None:
        names = {tensor.name for tensor in inputs}
        if len(names) != len(inputs):
            repeated = next(t.name for i, t in enumerate(inputs) if t.name in {o.name for o in inputs[:i]})
            raise InvalidRequest(f"input '{repeated}' already exists in request for model '{self._model}'")
        if len(names) < len(self._inputs) and not names.issuperset(self._required):
            raise self._missing_inputs([tensor.name for tensor in inputs])

    def _check_rows(self, rows: int | None) -> None:
        # Without a batched input (all of them optional and left out) nothing says how many rows there are.
        if rows is None or rows < 1:
            raise InvalidRequest(
                f"inference request batch-size must be >= 1 for '{self._model}', got {rows or 0}"
            )
        if self._most_rows is not None and rows > self._most_rows:
            raise InvalidRequest(
                f"inference request batch-size must be <= {self._most_rows} for '{self._model}', got {rows}"
            )

    def _check_outputs(self, names: Sequence[str]) -> None:
        if len(set(names)) != len(names):
            repeated = next(name for i, name in enumerate(names) if name in names[:i])
            raise InvalidRequest(f"output '{repeated}' already exists in request for model '{self._model}'")
        for name in names:
            if name not in self._outputs:
                raise InvalidRequest(
                    f"unexpected inference output '{name}' for model '{self._model}', "
                    f"allowed outputs are: {', '.join(sorted(self._outputs))}"
                )

    def _check_buckets(self, tensor: Tensor, check: _InputCheck) -> None:
        for axis, longest in check.longest:
            if (size := tensor.array.shape[axis]) > longest:
                raise InvalidRequest(
                    f"unexpected shape for input '{tensor.name}' for model '{self._model}'. Expected at most "
                    f"{longest} along axis {axis}, got {size}"
                )

    def _unexpected_input(self, name: str) -> InvalidRequest:
        return InvalidRequest(
            f"unexpected inference input '{name}' for model '{self._model}', "
            f"allowed inputs are: {', '.join(self._inputs)}"
        )

    def _wrong_datatype(self, tensor: Tensor, check: _InputCheck) -> InvalidRequest:
        return InvalidRequest(
            f"inference input '{tensor.name}' data-type is '{tensor.datatype.value}', "
            f"but model '{self._model}' expects '{check.datatype.value}'"
        )

    def _wrong_shape(self, tensor: Tensor, check: _InputCheck) -> InvalidRequest:
        if check.batch_axis is not None and tensor.array.ndim == 0:
            return InvalidRequest(
                f"input '{tensor.name}' has no shape but model requires batch dimension for '{self._model}'"
            )
        return InvalidRequest(
            f"unexpected shape for input '{tensor.name}' for model '{self._model}'. "
            f"Expected {_dims(check.shape)}, got {_dims(tensor.array.shape)}.{self._hint}"
        )

    def _uneven_rows(self, name: str) -> InvalidRequest:
        return InvalidRequest(f"input '{name}' batch size does not match other inputs for '{self._model}'")

    def _missing_inputs(self, got: Sequence[str]) -> InvalidRequest:
        missing = [name for name in self._required if name not in got]
        expected = str(len(self._inputs))
        if len(self._required) != len(self._inputs):
            expected = f"between {len(self._required)} and {len(self._inputs)}"
        return InvalidRequest(
            f"expected {expected} inputs but got {len(got)} inputs for model '{self._model}'. "
            f"Got input(s) {_names(got)}, but missing required input(s) {_names(missing)}. "
            "Please provide all required input(s)."
        )


def _compile(spec: TensorSpec, buckets: dict[tuple[str, int], int]) -> _InputCheck:
    fixed = tuple((a, n) for a, n in enumerate(spec.shape) if n >= 0 and a != spec.batch_axis)
    longest = tuple((axis, size) for (name, axis), size in buckets.items() if name == spec.name)
    return _InputCheck(spec.datatype, len(spec.shape), fixed, longest, spec.batch_axis, spec.shape)


def _dims(shape: Iterable[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _names(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"
