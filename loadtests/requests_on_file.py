"""Writes one infer request of a model in both wire formats to files, for generators to send over and over."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gateway._proto import open_inference_pb2 as pb
from gateway.commands.wire import encode_request, raw_bytes
from gateway.core.types import Datatype, Tensor

if TYPE_CHECKING:
    import numpy.typing as npt

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class BenchModel:
    """A model under load.

    Attributes:
        name: the name it is served under.
        folder: its folder of versions.
        version: the one version served.
        input_name: its one input, FP32 of shape [rows, features].
        features: size of a row.
    """

    name: str
    folder: Path
    version: int
    input_name: str
    features: int

    @property
    def file(self) -> Path:
        """The ONNX file."""
        return self.folder / str(self.version) / "model.onnx"

    def tensor(self, rows: int, seed: int) -> Tensor:
        """Return random input rows."""
        values = np.random.default_rng(seed).random((rows, self.features), np.float32)
        return Tensor(self.input_name, Datatype.FP32, values)


DENSE = BenchModel("dense", _ROOT / "models" / "dense", 1, "input", 512)
DIGITS = BenchModel("digits", _ROOT / "models" / "digits", 2, "pixels", 64)


@dataclass(frozen=True, slots=True)
class RequestFile:
    """A body on file and the headers to send it with, as `name: value`."""

    path: Path
    headers: tuple[str, ...]


def http_request(model: BenchModel, rows: int, folder: Path) -> RequestFile:
    """Write a binary HTTP request."""
    headers, body = encode_request([model.tensor(rows, seed=rows)])
    path = folder / f"{model.name}-{rows}.http"
    path.write_bytes(body)
    return RequestFile(path, tuple(f"{name}: {value}" for name, value in headers.items()))


def grpc_message(model: BenchModel, tensor: Tensor) -> bytes:
    """Return a serialised ModelInferRequest."""
    message = pb.ModelInferRequest(model_name=model.name)
    message.inputs.add(name=tensor.name, datatype="FP32", shape=tensor.array.shape)
    message.raw_input_contents.append(raw_bytes(tensor))
    return message.SerializeToString()


def grpc_request(model: BenchModel, rows: int, folder: Path) -> RequestFile:
    """Write a gRPC request: one uncompressed, length-prefixed message."""
    body = grpc_message(model, model.tensor(rows, seed=rows))
    path = folder / f"{model.name}-{rows}.grpc"
    path.write_bytes(struct.pack(">BI", 0, len(body)) + body)
    return RequestFile(path, ("content-type: application/grpc", "te: trailers"))


def same(got: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> bool:
    """Return whether outputs agree to 1e-5, of each value or, near zero, of the largest one."""
    largest = float(np.abs(expected).max(initial=0.0))
    return got.shape == expected.shape and np.allclose(got, expected, rtol=1e-5, atol=1e-5 * largest)
