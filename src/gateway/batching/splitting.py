"""Splits the outputs of a run into each member's own, with declared padding cut off again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.errors import BackendError
from gateway.core.types import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.batching.tickets import Job
    from gateway.core.options import BatchingOptions, CutRule
    from gateway.core.types import Array, InferRequest, ModelSignature, TensorSpec

SMALL_BYTES: Final = 4096
"""Below this a member's rows are copied out of a larger output, and also when they are less than half of
it: a slow reader keeps alive what it holds and at most as much again, or this much, never a large batch."""


class Splitter:
    """Splits the outputs of batches of one signature; safe off the event loop.

    Attributes:
        cuts: whether padding is cut off some output.
    """

    def __init__(self, model: str, signature: ModelSignature, options: BatchingOptions) -> None:
        """Prepare for a signature; without a batch axis a batch has one member, which gets everything."""
        self._model = model
        self._specs: Mapping[str, TensorSpec] = {spec.name: spec for spec in signature.outputs}
        self._every = tuple(self._specs)
        self._batchable = signature.batchable
        self.cuts = bool(options.cut)
        first = signature.outputs[0] if len(signature.outputs) == 1 and not options.cut else None
        axis_0 = first is not None and self._batchable and first.batch_axis == 0
        self._only = (first.name, first.datatype) if first is not None and axis_0 else None
        index = {spec.name: position for position, spec in enumerate(signature.inputs)}
        self._cuts: Mapping[str, Sequence[tuple[CutRule, int]]] = {
            name: [(rule, index[rule.input]) for rule in options.cut if rule.output == name]
            for name in self._every
        }

    def wanted(self, requests: Sequence[InferRequest]) -> tuple[str, ...]:
        """Return every output that some request asks for, in the signature's order."""
        asked: set[str] = set()
        for request in requests:
            if not request.outputs:
                return self._every
            asked.update([output.name for output in request.outputs])
        return tuple([name for name in self._every if name in asked])

    def check(self, outputs: Mapping[str, Array], names: Sequence[str], rows: int) -> None:
        """See whether a run gave what it had to.

        Args:
            outputs: name -> array as the backend answered.
            names: the outputs asked for.
            rows: size of the batch axis that was run.

        Raises:
            BackendError: an output is missing, or has a wrong number of rows.
        """
        for name in names:
            array = outputs.get(name)
            if array is None:
                raise BackendError(f"model '{self._model}' did not return output '{name}'")
            axis = self._specs[name].batch_axis
            if not self._batchable or axis is None:
                continue
            got = array.shape[axis] if axis < array.ndim else None
            if got != rows:
                raise BackendError(
                    f"output '{name}' of model '{self._model}' has shape {list(array.shape)}: "
                    f"expected {rows} rows along axis {axis}, as many as the batch had"
                )

    def split_all(
        self, outputs: Mapping[str, Array], inputs: Mapping[str, Array], jobs: Sequence[Job]
    ) -> list[tuple[Tensor, ...]]:
        """Return the outputs of every member, in row order; see `split`."""
        pieces: list[tuple[Tensor, ...]] = []
        start = 0
        if self._only is None or len(jobs) == 1:
            for job in jobs:
                pieces.append(self.split(outputs, inputs, job, start))
                start += job.size
            return pieces
        name, datatype = self._only
        array = outputs[name]
        large = array.nbytes > SMALL_BYTES
        for job in jobs:
            rows = array[start : start + job.size]
            if large and (rows.nbytes < SMALL_BYTES or 2 * rows.nbytes < array.nbytes):
                rows = rows.copy()
            pieces.append((Tensor(name, datatype, rows),))
            start += job.size
        return pieces

    def split(
        self, outputs: Mapping[str, Array], inputs: Mapping[str, Array], job: Job, start: int
    ) -> tuple[Tensor, ...]:
        """Return one member's outputs, in the order it asked for them (the signature's if it named none).

        Args:
            outputs: name -> array of the batch, checked.
            inputs: name -> array as run, for the sizes that members were padded to.
            job: the member.
            start: its first row in the batch.

        Returns:
            Views over the batch's arrays; a copy where the view would be small, or keep alive more than twice
            its own size.
        """
        asked = job.ticket.request.outputs
        names = [output.name for output in asked] if asked else self._every
        return tuple([self._member(name, outputs[name], inputs, job, start) for name in names])

    def present(self, outputs: Mapping[str, Array], request: InferRequest) -> tuple[Tensor, ...]:
        """Return the outputs that one response of a decoupled model holds, in the order asked for."""
        names = [output.name for output in request.outputs] if request.outputs else self._every
        return tuple(
            [Tensor(name, self._specs[name].datatype, outputs[name]) for name in names if name in outputs]
        )

    def _member(self, name: str, array: Array, inputs: Mapping[str, Array], job: Job, start: int) -> Tensor:
        spec = self._specs[name]
        rows = array
        if self._batchable and job.size != array.shape[spec.batch_axis or 0]:
            stop = start + job.size
            if spec.batch_axis == 0:
                rows = array[start:stop]
            else:
                rows = array[(*(slice(None),) * (spec.batch_axis or 0), slice(start, stop))]
        for rule, position in self._cuts[name]:
            rows = _cut(rows, rule, inputs, job, position)
        shared = rows is not array and array.nbytes > SMALL_BYTES
        if shared and (rows.nbytes < SMALL_BYTES or 2 * rows.nbytes < array.nbytes):
            rows = rows.copy()
        return Tensor(name, spec.datatype, rows)


def _cut(rows: Array, rule: CutRule, inputs: Mapping[str, Array], job: Job, position: int) -> Array:
    """Return `rows` with one axis cut to the share of it that was not padding, rounded up."""
    found = job.ticket.layout.positions[position]
    if found < 0:
        return rows
    unpadded = job.ticket.request.inputs[found].array.shape[rule.input_axis]
    padded = inputs[rule.input].shape[rule.input_axis]
    if unpadded == padded:
        return rows
    kept = -(-rows.shape[rule.axis] * unpadded // padded)
    return rows[(*(slice(None),) * rule.axis, slice(0, kept))]
