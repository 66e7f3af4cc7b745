"""The element types of tensors."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMPY_DTYPES: Final[Mapping[str, Any]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": np.int8,
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "BF16": ml_dtypes.bfloat16,
    "BYTES": np.object_,
}


class Datatype(enum.Enum):
    """Tensor element types of the Open Inference Protocol, by their wire names.

    Attributes:
        dtype: NumPy dtype of the elements, little endian; `object` (each element `bytes`) for BYTES.
        itemsize: bytes per element on the wire; 0 for BYTES, whose elements vary in length.
    """

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BF16 = "BF16"
    BYTES = "BYTES"

    def __init__(self, wire_name: str) -> None:
        self.dtype: np.dtype[Any] = np.dtype(_NUMPY_DTYPES[wire_name])
        self.itemsize: int = 0 if wire_name == "BYTES" else self.dtype.itemsize
