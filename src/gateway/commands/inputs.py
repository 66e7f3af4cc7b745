"""Reads the file given to `gateway infer` into input tensors: JSON, npy and npz, shaped for the model."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.commands.failure import CommandFailed
from gateway.commands.wire import object_array
from gateway.core.types import Datatype, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.commands.client import ModelMetadata
    from gateway.core.types import Array, TensorSpec

FORMATS = ("json", "npy", "npz", "raw")


def guess_format(name: str) -> str:
    """Return the format a file name stands for: its extension, `raw` for .bin, `json` for anything else."""
    extension = name.rpartition(".")[2].lower()
    if extension == "bin":
        return "raw"
    return extension if extension in FORMATS else "json"


def parse_json(content: bytes) -> Mapping[str, Any]:
    """Return the JSON object in `content`.

    Raises:
        CommandFailed: it is not JSON, or not an object.
    """
    try:
        document = json.loads(content)
    except ValueError as exc:
        raise CommandFailed(f"the input is not JSON: {exc}; other formats need --format") from exc
    if not isinstance(document, dict):
        raise CommandFailed('the input must be a JSON object: {"INPUT": values} or a whole request')
    return document


def is_whole_request(document: Mapping[str, Any]) -> bool:
    """Whether it is a request of the protocol, rather than a mapping from input to values."""
    inputs = document.get("inputs")
    return isinstance(inputs, list) and all(isinstance(i, dict) and "datatype" in i for i in inputs)


def read_tensors(content: bytes, kind: str, model: ModelMetadata) -> list[Tensor]:
    """Read `content` of format `json` (a mapping), `npy` or `npz` as the model's inputs.

    Raises:
        CommandFailed: it cannot be read, names an input the model lacks, or holds values that the input's
            datatype cannot.
    """
    values = _values(content, kind, model)
    specs = {spec.name: spec for spec in model.inputs}
    if unknown := sorted(values.keys() - specs.keys()):
        raise CommandFailed(f"model '{model.name}' has no input {unknown}; its inputs are {sorted(specs)}")
    return [Tensor(name, specs[name].datatype, _shaped(specs[name], v)) for name, v in values.items()]


def _values(content: bytes, kind: str, model: ModelMetadata) -> Mapping[str, Any]:
    if kind == "json":
        return parse_json(content)
    arrays = _load_numpy(content, kind)
    if not isinstance(arrays, np.ndarray):
        return arrays
    if len(model.inputs) != 1:
        names = [spec.name for spec in model.inputs]
        raise CommandFailed(
            f"model '{model.name}' has {len(names)} inputs, {names}: give an npz by their names"
        )
    return {model.inputs[0].name: arrays}


def _load_numpy(content: bytes, kind: str) -> Array | dict[str, Array]:
    try:
        # Pickles are refused: a file of numbers must not be able to run code.
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as exc:
        raise CommandFailed(f"the input is not a {kind} file: {exc}") from exc


def _shaped(spec: TensorSpec, value: Any) -> Array:
    array = _converted(spec, value)
    # One item of a batched model may be given without the axis of one row around it.
    return array[np.newaxis] if spec.batch_axis == 0 and array.ndim == len(spec.shape) - 1 else array


def _converted(spec: TensorSpec, value: Any) -> Array:
    try:
        if spec.datatype is Datatype.BYTES:
            return _bytes_array(np.asarray(value))
        return _cast(np.asarray(value), spec.datatype)
    except (ValueError, TypeError, OverflowError) as exc:
        message = f"input '{spec.name}' takes {spec.datatype.value} of shape {list(spec.shape)}: {exc}"
        raise CommandFailed(message) from exc


def _bytes_array(array: Array) -> Array:
    if array.dtype.kind not in "USO":
        raise TypeError(f"expected texts, got {array.dtype}")
    items: Sequence[Any] = array.reshape(-1).tolist()
    return object_array([i if isinstance(i, bytes) else str(i).encode() for i in items]).reshape(array.shape)


def _cast(array: Array, datatype: Datatype) -> Array:
    """Convert without changing values beyond rounding: no wrap, no cut-off fraction, no text."""
    if array.dtype.kind not in "biuf" and array.dtype != datatype.dtype:
        raise TypeError(f"got {array.dtype}: values must be numbers in rows of equal length")
    if array.size and array.dtype.kind == "f" and datatype.dtype.kind in "iub":
        raise TypeError(f"got fractional numbers ({array.dtype})")
    with np.errstate(over="ignore"):
        cast = array.astype(datatype.dtype)
    if datatype.dtype.kind in "iub" and not np.array_equal(cast, array):
        raise OverflowError(f"values from {array.min()} to {array.max()} do not fit")
    return cast
