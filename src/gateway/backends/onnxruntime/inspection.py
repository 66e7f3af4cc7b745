"""Inspect one ONNX file before it is loaded; run as a child process, since parsing stalls the interpreter.

`python -m gateway.backends.onnxruntime.inspection REQUEST` with a JSON `Request` prints a JSON `GraphReport`
and exits 0, or prints the reason for a refusal and exits 3. Weights kept as external data are not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from gateway.backends.onnxruntime.external import Refused, checked_text, shown
from gateway.backends.onnxruntime.graph import Dim, GraphReport, GraphTensor, encode
from gateway.backends.onnxruntime.messages import messages
from gateway.backends.onnxruntime.tensor_data import check_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REFUSED_STATUS: Final = 3
_NOT_THE_AUTHORS: Final = frozenset({"ort_config"})  # session options, custom operator libraries among them
_KNOWN_DOMAINS: Final = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.training",
        "ai.onnx.preview.training",
        "com.microsoft",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
    }
)
_T = messages.TensorProto
_DATATYPES: Final[dict[int, str]] = {
    _T.BOOL: "BOOL",
    _T.UINT8: "UINT8",
    _T.UINT16: "UINT16",
    _T.UINT32: "UINT32",
    _T.UINT64: "UINT64",
    _T.INT8: "INT8",
    _T.INT16: "INT16",
    _T.INT32: "INT32",
    _T.INT64: "INT64",
    _T.FLOAT16: "FP16",
    _T.FLOAT: "FP32",
    _T.DOUBLE: "FP64",
    _T.BFLOAT16: "BF16",
    _T.STRING: "BYTES",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What to inspect.

    Attributes:
        directory: the version directory; external data must lie in it.
        model_file: the file.
        allow_custom_ops: operators of domains that ONNX Runtime does not have by itself are let through.
        max_model_bytes: largest file plus external data, 0 for no limit.
        max_memory_bytes: address space this process may take, 0 for no limit.
        overridable: initializers that callers may override.
    """

    directory: str
    model_file: str
    allow_custom_ops: bool = False
    max_model_bytes: int = 0
    max_memory_bytes: int = 0
    overridable: tuple[str, ...] = ()


def inspect(request: Request) -> GraphReport:
    """Inspect the file.

    Raises:
        Refused: with the first reason found.
    """
    directory = Path(request.directory).resolve()
    size = _checked_size(directory, Path(request.model_file), request.max_model_bytes)
    content = Path(request.model_file).read_bytes()
    sha256, model = hashlib.sha256(content).hexdigest(), _parse(content)
    del content  # the memory is limited
    walk = _Walk(model, Path(request.model_file).parent.resolve(), request)
    walk.check()
    total = size + sum(walk.external.values())
    _check_total(total, request.max_model_bytes)
    defaults = {t.name for t in model.graph.initializer} | {
        t.values.name for t in model.graph.sparse_initializer
    }
    inputs, initializers = _inputs(model, defaults, request.overridable)
    outputs = tuple(map(_tensor, model.graph.output))
    return GraphReport(inputs, outputs, initializers, total, _notices(model), sha256)


def _notices(model: messages.ModelProto) -> tuple[str, ...]:
    """Say what the file asks of the server and does not get."""
    keys = [entry.key for entry in model.metadata_props if entry.key in _NOT_THE_AUTHORS]
    return tuple(
        f"the file's metadata '{key}' is ignored: how the server runs a model is set in its configuration"
        for key in dict.fromkeys(keys)
    )


def _checked_size(directory: Path, model_file: Path, limit: int) -> int:
    # Its directory as well: that is where the loader looks for external data.
    if not all(p.resolve().is_relative_to(directory) for p in (model_file, model_file.parent)):
        raise Refused("the model file is a link that leaves the version directory")
    if not model_file.is_file():
        raise Refused(f"there is no file '{model_file.name}'")
    size = model_file.stat().st_size
    _check_total(size, limit)
    return size


def _check_total(total: int, limit: int) -> None:
    if limit and total > limit:
        raise Refused(f"the model has {total} bytes, max_model_bytes allows {limit}")


def _parse(content: bytes) -> messages.ModelProto:
    # Protobuf itself ends at 2 GiB; larger weights must be external data.
    try:
        model = messages.ModelProto.FromString(content)
    except DecodeError:
        raise Refused(
            "not a complete ONNX file: truncated, corrupt, or of another format; or nested too deeply"
        ) from None
    if not model.HasField("graph") or not model.opset_import or not model.graph.output:
        raise Refused("not a complete ONNX file: it holds no graph with outputs, or no opset; truncated?")
    return model


def _inputs(
    model: messages.ModelProto, defaults: set[str], overridable: Iterable[str]
) -> tuple[tuple[GraphTensor, ...], tuple[str, ...]]:
    """Leave initializers out, which old exporters list as inputs, unless declared overridable."""
    wanted = set(overridable)
    # Before IR version 4 every initializer had to be listed, and ONNX Runtime lets none be overridden.
    names = {i.name for i in model.graph.input if i.name in defaults} if model.ir_version >= 4 else set()
    if missing := sorted(wanted - names):
        raise Refused(f"optional_inputs names '{missing[0]}', which is no initializer that can be overridden")
    kept = [i for i in model.graph.input if i.name not in defaults or i.name in wanted]
    inputs = tuple(_tensor(i, has_default=i.name in wanted) for i in kept)
    return inputs, tuple(i.name for i in kept if i.name in wanted)


def _tensor(info: messages.ValueInfoProto, *, has_default: bool = False) -> GraphTensor:
    name, kind, optional = checked_text(info.name), info.type, has_default
    if kind.WhichOneof("value") == "optional_type":
        kind, optional = kind.optional_type.elem_type, True
    if kind.WhichOneof("value") != "tensor_type":
        return GraphTensor(name, None, _kind(info.type), None, optional)
    tensor = kind.tensor_type
    dims = tuple(map(_dim, tensor.shape.dim)) if tensor.HasField("shape") else None
    return GraphTensor(name, _DATATYPES.get(tensor.elem_type), _kind(info.type), dims, optional)


def _kind(kind: messages.TypeProto) -> str:
    which = (kind.WhichOneof("value") or "nothing").removesuffix("_type")
    if which != "tensor":
        return which
    element = kind.tensor_type.elem_type
    known = element in messages.TensorProto.DataType.values()
    return f"tensor({messages.TensorProto.DataType.Name(element).lower() if known else element})"


def _dim(dim: messages.TensorShapeProto.Dimension) -> Dim:
    which = dim.WhichOneof("value")
    if which == "dim_value" and dim.dim_value >= 0:
        return int(dim.dim_value)
    return checked_text(dim.dim_param) or None


@dataclass
class _Walk:
    """Visits every node and tensor of a model: graphs, their subgraphs, functions, training parts.

    `base` is the directory that external data is looked for from.
    """

    model: messages.ModelProto
    base: Path
    request: Request
    external: dict[Path, int] = field(default_factory=dict)

    def check(self) -> None:
        """Check everything.

        Raises:
            Refused: with the first reason found.
        """
        self.local_functions = {(f.domain, f.name) for f in self.model.functions}
        for graph in self._graphs():
            self._check_graph(graph)
        for function in self.model.functions:
            self._check_nodes(function.node)
            for default in function.attribute_proto:
                self._check_attribute(default)

    def _graphs(self) -> Iterator[messages.GraphProto]:
        yield self.model.graph
        for training in self.model.training_info:
            yield training.initialization
            yield training.algorithm

    def _check_graph(self, graph: messages.GraphProto) -> None:
        for tensor in graph.initializer:
            self._check_tensor(tensor)
        for sparse in graph.sparse_initializer:
            self._check_sparse(sparse)
        self._check_nodes(graph.node)

    def _check_nodes(self, nodes: Iterable[messages.NodeProto]) -> None:
        for node in nodes:
            self._check_operator(node)
            for attribute in node.attribute:
                self._check_attribute(attribute)

    def _check_operator(self, node: messages.NodeProto) -> None:
        if node.op_type == "EPContext":
            raise Refused("it holds an EPContext node, a precompiled program for one device: not allowed")
        if node.domain in _KNOWN_DOMAINS or (node.domain, node.op_type) in self.local_functions:
            return
        if not self.request.allow_custom_ops:
            operator = f"{shown(node.domain)}::{shown(node.op_type)}"
            raise Refused(
                f"it uses the custom operator '{operator}'; custom operators run native code and are refused "
                "unless allow_custom_ops is set"
            )

    def _check_attribute(self, attribute: messages.AttributeProto) -> None:
        for tensor in (*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors):
            self._check_tensor(tensor)
        for sparse in (
            *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else ()),
            *attribute.sparse_tensors,
        ):
            self._check_sparse(sparse)
        for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            self._check_graph(graph)

    def _check_sparse(self, sparse: messages.SparseTensorProto) -> None:
        self._check_tensor(sparse.values)
        self._check_tensor(sparse.indices)

    def _check_tensor(self, tensor: messages.TensorProto) -> None:
        check_tensor(tensor, self.base, self.external)


def main(argument: str) -> int:
    """Inspect what the JSON `argument` asks for; print the answer; return the exit status."""
    request = Request(**json.loads(argument))
    os.nice(10)  # the server's own threads come first
    if request.max_memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (request.max_memory_bytes, request.max_memory_bytes))
    try:
        text, status = encode(inspect(request)), 0
    except Refused as refusal:
        text, status = str(refusal), REFUSED_STATUS
    except MemoryError:
        text, status = "inspecting it takes more memory than allowed", REFUSED_STATUS
    except RecursionError:
        text, status = "its subgraphs are nested too deeply", REFUSED_STATUS
    except OSError as error:
        # Its own text would name paths of the server.
        text, status = f"it cannot be read: {error.strerror or type(error).__name__}", REFUSED_STATUS
    sys.stdout.buffer.write(text.encode())
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
