"""Check that tensors of an ONNX file have the data their shapes need, in the file or in files beside it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.backends.onnxruntime.external import (
    Refused,
    check_extent,
    external_entries,
    external_extent,
    external_file,
    shown,
)
from gateway.backends.onnxruntime.messages import messages

if TYPE_CHECKING:
    from pathlib import Path

_T = messages.TensorProto
_BITS: Final[dict[int, int]] = {
    _T.BOOL: 8,
    _T.UINT8: 8,
    _T.INT8: 8,
    _T.UINT16: 16,
    _T.INT16: 16,
    _T.FLOAT16: 16,
    _T.BFLOAT16: 16,
    _T.UINT32: 32,
    _T.INT32: 32,
    _T.FLOAT: 32,
    _T.UINT64: 64,
    _T.INT64: 64,
    _T.DOUBLE: 64,
}


def check_tensor(tensor: messages.TensorProto, base: Path, used: dict[Path, int]) -> None:
    """Check one tensor; add the file that its external data lies in, with its size, to `used`.

    Args:
        tensor: any tensor of the file.
        base: the model file's directory, resolved; the loader looks for external data from there.
        used: files seen so far.

    Raises:
        Refused: data is missing, too little, or not where it may be.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise Refused(f"tensor '{shown(tensor.name)}' has a negative size: corrupt")
    if tensor.data_location == messages.TensorProto.EXTERNAL:
        _check_external(tensor, base, used)
    elif tensor.HasField("raw_data"):
        needed = _bytes_needed(tensor)
        if needed is not None and len(tensor.raw_data) != needed:
            have = len(tensor.raw_data)
            raise Refused(
                f"tensor '{shown(tensor.name)}' holds {have} bytes, its shape needs {needed}: corrupt"
            )
    elif tensor.data_type and math.prod(tensor.dims) and not any(getattr(tensor, name) for name in _TYPED):
        # The loader may make room for the elements before it finds that out.
        elements = math.prod(tensor.dims)
        raise Refused(f"tensor '{shown(tensor.name)}' holds no data, its shape needs {elements} elements")


_TYPED: Final = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def _check_external(tensor: messages.TensorProto, base: Path, used: dict[Path, int]) -> None:
    entries = external_entries(tensor.name, [(entry.key, entry.value) for entry in tensor.external_data])
    location = entries.get("location", "")
    path = external_file(base, tensor.name, location)
    where = f"external data of tensor '{shown(tensor.name)}' at '{shown(location)}'"
    size = path.stat().st_size
    check_extent(where, size, external_extent(where, entries), _bytes_needed(tensor))
    used[path] = size


def _bytes_needed(tensor: messages.TensorProto) -> int | None:
    """Return what the tensor's elements take; None for types that are packed or vary in length."""
    bits = _BITS.get(tensor.data_type)
    return None if bits is None else math.prod(tensor.dims) * bits // 8
