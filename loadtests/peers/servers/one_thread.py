"""ONNX Runtime with one thread, as every peer runs it, and bare rows, as some of them take them."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

_HEAD = struct.Struct("<I")


def settings() -> dict[str, Any]:
    """Return what the adapter wrote: name, file, max_batch_rows, ports, and what is the peer's own."""
    read: dict[str, Any] = json.loads(Path(os.environ["LOADTESTS_SETTINGS"]).read_text())
    return read


class OneThreadModel:
    """A model of one input and one output; both FP32, `[rows, ...]`."""

    def __init__(self, file: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.input_name = self._session.get_inputs()[0].name
        self.output_name = self._session.get_outputs()[0].name

    def run(self, rows: Any) -> Any:
        """Return the output for `rows`."""
        return self._session.run([self.output_name], {self.input_name: rows})[0]

    def run_together(self, parts: list[Any]) -> list[Any]:
        """Return the output of each part, from one run of all of them."""
        if len(parts) == 1:
            return [self.run(parts[0])]
        ends = np.cumsum([len(part) for part in parts])[:-1]
        return np.split(self.run(np.concatenate(parts)), ends)


def rows_of(body: bytes) -> Any:
    """Return the rows that a body holds, as a view of it.

    Raises:
        ValueError: their number and the body's length do not go together.
    """
    if len(body) < _HEAD.size:
        raise ValueError("no number of rows")
    (rows,) = _HEAD.unpack_from(body)
    return np.frombuffer(body, "<f4", offset=_HEAD.size).reshape(rows, -1)


def body_of(rows: Any) -> bytes:
    """Return the body that holds `rows`."""
    return _HEAD.pack(len(rows)) + np.ascontiguousarray(rows, "<f4").tobytes()
