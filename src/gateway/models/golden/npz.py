"""Reads `golden.npz`: arrays `input:NAME` and `output:NAME`, and the scalars `rtol` and `atol` if need be.

Rows are cases. They lie along the batch axis of a model that has one, whose tensors without it are shared by
all cases; else along an axis in front of the model's own.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.core.errors import ModelLoadError
from gateway.models.golden.cases import (
    MIB,
    MOST_BYTES,
    MOST_CASES,
    GoldenCase,
    check_names,
    check_shape,
    expected_values,
    input_values,
    tolerance_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.core.types import Array, ModelSignature

NPZ: Final = "golden.npz"
_INPUT: Final = "input:"
_OUTPUT: Final = "output:"
_SCALARS: Final = ("rtol", "atol")
_HEADERS: Final = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_ERRORS: Final = (
    ValueError,
    TypeError,
    OverflowError,
    EOFError,
    NotImplementedError,
    RuntimeError,  # an archive with a password
    zipfile.BadZipFile,
    zlib.error,
)


def npz_cases(raw: bytes, signature: ModelSignature) -> Iterator[GoldenCase]:
    """Give the cases of a file: all at once for a model with a batch axis, else one by one.

    Raises:
        ModelLoadError: from any step; the file is wrong or beyond the limits.
    """
    try:
        yield from _cases(_unpacked(raw), signature)
    except _ERRORS as error:
        raise ModelLoadError(f"{NPZ}: {error}") from error


def _cases(arrays: Mapping[str, Array], signature: ModelSignature) -> Iterator[GoldenCase]:
    stored_inputs = {name.removeprefix(_INPUT): a for name, a in arrays.items() if name.startswith(_INPUT)}
    stored = {name.removeprefix(_OUTPUT): a for name, a in arrays.items() if name.startswith(_OUTPUT)}
    for name in arrays:
        if not name.startswith((_INPUT, _OUTPUT)) and name not in _SCALARS:
            raise ValueError(f"unknown array '{name}', there are input:NAME, output:NAME, rtol and atol")
    check_names(stored_inputs, stored, signature)
    tolerance = tolerance_of({name: arrays[name].item() for name in _SCALARS if name in arrays})
    inputs = {
        s.name: input_values(stored_inputs[s.name], s.datatype, f"input '{s.name}'")
        for s in signature.inputs
        if s.name in stored_inputs
    }
    outputs = {
        s.name: expected_values(stored[s.name], s.datatype, f"output '{s.name}'")
        for s in signature.outputs
        if s.name in stored
    }
    cases = _count(inputs, outputs, signature)
    whole = GoldenCase(
        title=NPZ, inputs=inputs, outputs=outputs, tolerance=tolerance, row_titles=f"{NPZ} case"
    )
    if signature.batchable:
        yield from (whole for _ in range(cases > 0))
    else:
        yield from (_row(whole, row) for row in range(cases))


def _count(inputs: Mapping[str, Array], outputs: Mapping[str, Array], signature: ModelSignature) -> int:
    """Return how many cases there are, after a look at every shape."""
    rows: dict[int, str] = {}
    for kind, arrays, specs in (("input", inputs, signature.inputs), ("output", outputs, signature.outputs)):
        for spec in specs:
            if spec.name not in arrays:
                continue
            where, shape = f"{kind} '{spec.name}'", arrays[spec.name].shape
            if signature.batchable:
                check_shape(shape, spec, where)
                axis = spec.batch_axis
            else:
                check_shape(shape[1:], spec, f"each row of {where}")
                axis = 0
            if axis is not None and shape:
                rows.setdefault(shape[axis], where)
    if len(rows) > 1:
        raise ValueError(f"different numbers of rows: {', '.join(f'{w} has {n}' for n, w in rows.items())}")
    count = next(iter(rows), 0)
    if count > MOST_CASES:
        raise ValueError(f"{count} cases, at most {MOST_CASES} are read")
    return count


def _row(whole: GoldenCase, row: int) -> GoldenCase:
    return GoldenCase(
        title=f"{whole.row_titles} {row + 1}",
        inputs={name: np.array(array[row], order="C") for name, array in whole.inputs.items()},
        outputs={name: np.asarray(array[row]) for name, array in whole.outputs.items()},
        tolerance=whole.tolerance,
    )


def _unpacked(raw: bytes) -> dict[str, Array]:
    """Return the arrays of an archive, by name; nothing is unpacked before its size is known."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > MOST_BYTES:
            raise ValueError(f"{total / MIB:.0f} MiB unpacked, at most {MOST_BYTES // MIB} are read")
        return {m.filename.removesuffix(".npy"): _array(m.filename, archive.read(m)) for m in members}


def _array(name: str, raw: bytes) -> Array:
    """Parse an array in NumPy's format; one whose header claims more than there is, is refused unread."""
    file = io.BytesIO(raw)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"'{name}' is in a version of NumPy's format that is not read")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError(f"'{name}' holds Python objects, which are not read: store texts with a fixed width")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(raw) - file.tell():
        raise ValueError(f"'{name}' is not as long as its header says")
    flat: Array = np.frombuffer(raw[file.tell() :], dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
