"""Writes the rows of all members of a batch into one contiguous array per input, padded as declared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.batching.tickets import Job
    from gateway.core.options import BatchingOptions, PadRule
    from gateway.core.types import Array, ModelSignature, TensorSpec


class Assembly:
    """The inputs of one run.

    Attributes:
        inputs: name -> array: C-contiguous, aligned, owning its memory, read-only.
        rows: rows of requests; 1 for a model without a batch axis.
        padded_rows: size of the batch axis, rows of zeros included.
        elements: elements of all inputs.
        pad_elements: how many of them are padding.
    """

    __slots__ = (
        "elements",
        "inputs",
        "pad_elements",
        "padded_rows",
        "rows",
    )

    def __init__(
        self,
        inputs: Mapping[str, Array],
        rows: int,
        padded_rows: int,
        elements: int,
        pad_elements: int,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.padded_rows = padded_rows
        self.elements = elements
        self.pad_elements = pad_elements


class Assembler:
    """Assembles batches for one signature."""

    def __init__(self, signature: ModelSignature, options: BatchingOptions) -> None:
        """Prepare for a signature; without a batch axis a batch has one member, passed as it is."""
        self._batchable = signature.batchable
        self._allowed = options.allowed_rows if self._batchable else ()
        self._inputs = [
            _InputPlan(
                spec,
                [rule for rule in options.pad if rule.input == spec.name],
                spec.batch_axis if self._batchable else None,
            )
            for spec in signature.inputs
        ]

    def padded_rows(self, rows: int) -> int:
        """Return the smallest allowed size that holds `rows` rows; `rows` itself where all are allowed."""
        return next((size for size in self._allowed if size >= rows), rows)

    def assemble(self, jobs: Sequence[Job]) -> Assembly:
        """Return the inputs of a run of `jobs`, which are of one group, in row order.

        Every input is a copy, so nothing of a request is kept; only an array that is the whole input already,
        owns its memory, is aligned, contiguous and read-only is passed on as it is. Safe off the event loop.

        Args:
            jobs: the members, at least one.

        Returns:
            Arrays of shape `[padded rows, ...]`, the batch axis where the signature has it.
        """
        rows = sum([job.size for job in jobs]) if self._batchable else 1
        padded_rows = self.padded_rows(rows)
        inputs: dict[str, Array] = {}
        real_elements = 0
        for index, plan in enumerate(self._inputs):
            if jobs[0].ticket.layout.positions[index] >= 0:
                inputs[plan.name], real = plan.assemble(plan.members(jobs, index), rows, padded_rows)
                real_elements += real
        elements = sum([array.size for array in inputs.values()])
        return Assembly(inputs, rows, padded_rows, elements, elements - real_elements)


class _InputPlan:
    """How one input is assembled.

    Attributes:
        name: input name.
        axis: its batch axis; None when the batch shares it.
        pads: its padding rules, by axis.
    """

    __slots__ = ("_dtype", "_zero", "axis", "name", "pads")

    def __init__(self, spec: TensorSpec, pads: Sequence[PadRule], axis: int | None) -> None:
        self.name = spec.name
        self.axis = axis
        self.pads = {rule.axis: rule for rule in pads} if self.axis is not None else {}
        self._dtype = spec.datatype.dtype
        self._zero: object = b"" if self._dtype.hasobject else 0

    def members(self, jobs: Sequence[Job], index: int) -> list[Array]:
        """Return the rows that each job brings for this input, the signature's `index`-th."""
        arrays = [job.ticket.request.inputs[job.ticket.layout.positions[index]].array for job in jobs]
        if self.axis is None:
            return arrays[:1]
        return [
            array if job.whole else array[_rows(self.axis, job.start, job.size)]
            for job, array in zip(jobs, arrays, strict=True)
        ]

    def assemble(self, arrays: list[Array], rows: int, padded_rows: int) -> tuple[Array, int]:
        """Return the batch's array and how many of its elements come from the members."""
        first = arrays[0]
        if self.pads:
            return self._padded(arrays, padded_rows), sum([array.size for array in arrays])
        if len(arrays) == 1 and (self.axis is None or padded_rows == rows):
            return _owned(first), first.size
        out = np.empty(self._shape(first.shape, padded_rows), self._dtype)
        axis = self.axis or 0
        np.concatenate(arrays, axis, out=out[_rows(axis, 0, rows)])
        out[_rows(axis, rows, padded_rows - rows)] = self._zero
        out.flags.writeable = False
        return out, out.size if rows == padded_rows else sum([array.size for array in arrays])

    def _padded(self, arrays: list[Array], padded_rows: int) -> Array:
        """Return the members' rows with every variable axis padded to its bucket, or the longest member."""
        sizes = list(self._shape(arrays[0].shape, padded_rows))
        for pad_axis, rule in self.pads.items():
            longest = max(array.shape[pad_axis] for array in arrays)
            sizes[pad_axis] = next((bucket for bucket in rule.buckets if bucket >= longest), longest)
        out = np.empty(sizes, self._dtype)
        axis, row = self.axis or 0, 0
        for array in arrays:
            member = out[_rows(axis, row, array.shape[axis])]
            row += array.shape[axis]
            self._pad_member(member, array.shape)
            member[tuple([slice(0, size) for size in array.shape])] = array
        out[_rows(axis, row, padded_rows - row)] = self._zero
        out.flags.writeable = False
        return out

    def _pad_member(self, member: Array, shape: tuple[int, ...]) -> None:
        """Write the padding behind one member's values; where two padded axes cross, the last rule's."""
        for pad_axis, rule in self.pads.items():
            beyond = (*(slice(None),) * pad_axis, slice(shape[pad_axis], None))
            member[beyond] = self._zero if self._dtype.hasobject else rule.value

    def _shape(self, shape: tuple[int, ...], padded_rows: int) -> tuple[int, ...]:
        axis = self.axis or 0
        return (*shape[:axis], padded_rows, *shape[axis + 1 :])


def _rows(axis: int, start: int, count: int) -> tuple[slice, ...]:
    """Return the index of `count` rows from `start` along `axis`."""
    return (*(slice(None),) * axis, slice(start, start + count))


def _owned(array: Array) -> Array:
    """Return `array` if a backend may have it as it is, else a copy that it may have."""
    flags = array.flags
    if flags.owndata and flags.aligned and flags.c_contiguous and not flags.writeable:
        return array
    copy = np.array(array, order="C", copy=True)
    copy.flags.writeable = False
    return copy
