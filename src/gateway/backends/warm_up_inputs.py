"""Build the inputs of warm-up runs from what a model's settings declare: zeros, random values, or files."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.backends.generation import Fill, Sizes, generate
from gateway.core.types import Array, Datatype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.types import ModelSignature, TensorSpec


_FILLS: Final[Mapping[str, Fill]] = {"zero": "zero", "random": "random"}


class WarmUpData:
    """Inputs for warm-up runs of one model.

    Args:
        signature: the model's.
        data: input -> `zero`, `random`, or a file name; other inputs are random unless optional.
        folder: where files lie; None when the model has no folder.
    """

    def __init__(self, signature: ModelSignature, data: Mapping[str, str], folder: Path | None) -> None:
        self._signature = signature
        self._data = data
        self._folder = folder
        self._rng = np.random.default_rng(0)

    def inputs(self, sizes: Sizes, rows: int) -> dict[str, Array]:
        """Return the inputs of a run of `rows` rows; reads files, so for a worker thread.

        Raises:
            ValueError: a declaration does not fit the model, or a file does not fit its input.
            OSError: a file cannot be read.
        """
        if unknown := sorted(set(self._data) - {t.name for t in self._signature.inputs}):
            raise ValueError(f"data is declared for '{unknown[0]}', which is no input of the model")
        wanted = [t for t in self._signature.inputs if not t.optional or t.name in self._data]
        return {t.name: self._input(t, sizes.shape(t, rows)) for t in wanted}

    def _input(self, tensor: TensorSpec, shape: tuple[int, ...]) -> Array:
        source = self._data.get(tensor.name, "random")
        fill = _FILLS.get(source)
        if fill is not None:
            return generate(tensor, shape, fill, self._rng)
        stored = _stored(self._file(source), tensor, shape)
        return _fitted(stored, tensor, shape)

    def _file(self, name: str) -> Path:
        if self._folder is None:
            raise ValueError(f"there is no folder to read '{name}' from")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"'{name}' leaves the model's warmup folder")
        path = self._folder / name
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise ValueError(f"'{name}' is a link that leaves the model's warmup folder")
        return path


def _stored(path: Path, tensor: TensorSpec, shape: tuple[int, ...]) -> Array:
    """Read a `.npy` file, or raw little-endian elements (BYTES: each with its length, as on the wire)."""
    if path.suffix == ".npy":
        array: Array = np.load(path, allow_pickle=False)
        return array
    raw = path.read_bytes()
    if tensor.datatype is Datatype.BYTES:
        return _texts(raw)
    if len(raw) % tensor.datatype.itemsize:
        raise ValueError(f"'{path.name}' is no whole number of {tensor.datatype.value} elements")
    flat = np.frombuffer(raw, tensor.datatype.dtype)
    return _shaped(flat, tensor, shape, path.name)


def _texts(raw: bytes) -> Array:
    elements, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        elements.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(raw):
        raise ValueError("stored BYTES elements are cut short: each is its length, 4 bytes, and its content")
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array


def _shaped(flat: Array, tensor: TensorSpec, shape: tuple[int, ...], name: str) -> Array:
    """Give raw elements the run's shape: as many rows as the file holds, or one."""
    if tensor.batch_axis is None or tensor.batch_axis != 0:
        row = [1 if axis == tensor.batch_axis else size for axis, size in enumerate(shape)]
    else:
        row = [-1, *shape[1:]]
    if math.prod(shape[1:] if row[:1] == [-1] else row) == 0:
        raise ValueError(f"'{name}' cannot be cut into rows of no elements")
    try:
        return flat.reshape(row)
    except ValueError:
        raise ValueError(f"'{name}' holds {flat.size} elements, which do not fill the shape {row}") from None


def _fitted(stored: Array, tensor: TensorSpec, shape: tuple[int, ...]) -> Array:
    """Repeat or cut stored rows to the rows of the run."""
    if tensor.datatype is Datatype.BYTES and stored.ndim != len(shape):
        stored = _shaped(stored, tensor, shape, tensor.name)
    if stored.ndim != len(shape):
        raise ValueError(
            f"stored data for '{tensor.name}' has {stored.ndim} axes, the model's has {len(shape)}"
        )
    if stored.dtype != tensor.datatype.dtype:
        raise ValueError(f"stored data for '{tensor.name}' is {stored.dtype}, not {tensor.datatype.value}")
    axis = tensor.batch_axis
    if axis is None:
        return np.ascontiguousarray(stored)
    if not stored.shape[axis]:
        raise ValueError(f"stored data for '{tensor.name}' has no rows")
    return np.ascontiguousarray(stored.take(range(shape[axis]), axis=axis, mode="wrap"))
