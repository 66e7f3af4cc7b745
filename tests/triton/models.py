"""Small models for a real tritonserver, as folders of its repository; all run by its Python backend."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx

from tests.acceptance.zoo import ELEMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SERVED: Final = Path(__file__).parent / "served"
_OF_ELEMENT: Final = {element: datatype for datatype, element in ELEMENT_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as config.pbtxt declares it.

    Attributes:
        name: its name.
        datatype: as the protocol says it, `FP32`.
        dims: without the batch axis where the model has one.
        optional: whether a request may leave it out.
        labels: names of its classes.
    """

    name: str
    datatype: str
    dims: Sequence[int]
    optional: bool = False
    labels: Sequence[str] = ()

    def declared(self) -> str:
        """Return the entry of config.pbtxt."""
        datatype = {"BYTES": "STRING"}.get(self.datatype, self.datatype)
        optional = " optional: true" if self.optional else ""
        labels = ' label_filename: "labels.txt"' if self.labels else ""
        return (
            f'{{ name: "{self.name}" data_type: TYPE_{datatype} dims: {list(self.dims)}{optional}{labels} }}'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the repository.

    Attributes:
        script: the module of `served` that runs it.
        inputs: its inputs.
        outputs: its outputs.
        max_batch_size: rows of a batch; 0: no batch axis.
        more: further lines of config.pbtxt.
        files: version -> ONNX file or model; a version that has none is `None`.
    """

    script: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    max_batch_size: int = 64
    more: Sequence[str] = ()
    files: Mapping[int, Path | onnx.ModelProto | None]

    def write(self, repository: Path, name: str) -> Path:
        """Write its folder; return it."""
        folder = repository / name
        for version in self.files:
            self.write_version(folder, version)
        for tensor in self.outputs:
            if tensor.labels:
                (folder / "labels.txt").write_text("".join(f"{label}\n" for label in tensor.labels))
        (folder / "config.pbtxt").write_text(self.config())
        return folder

    def write_version(self, folder: Path, version: int) -> None:
        """Write one of its versions into its folder."""
        place = folder / str(version)
        place.mkdir(parents=True)
        for link, module in (("model.py", self.script), ("faults.py", "faults")):
            (place / link).symlink_to(_SERVED / f"{module}.py")
        file = self.files[version]
        if isinstance(file, Path):
            shutil.copyfile(file, place / "model.onnx")
        elif file is not None:
            (place / "model.onnx").write_bytes(file.SerializeToString())

    def config(self) -> str:
        """Return its config.pbtxt."""
        return "\n".join(
            (
                'backend: "python"',
                f"max_batch_size: {self.max_batch_size}",
                *(f"input {tensor.declared()}" for tensor in self.inputs),
                *(f"output {tensor.declared()}" for tensor in self.outputs),
                "instance_group { kind: KIND_CPU count: 1 }",
                *self.more,
                "",
            )
        )


EVERY_VERSION: Final = "version_policy { all { } }"


def dynamic(delay_s: float = 0.0, preferred: Sequence[int] = ()) -> str:
    """Return the line of config.pbtxt by which Triton forms batches."""
    sizes = "".join(f"preferred_batch_size: {rows} " for rows in preferred)
    return f"dynamic_batching {{ {sizes}max_queue_delay_microseconds: {round(delay_s * 1e6)} }}"


def of_onnx(
    files: Mapping[int, Path | onnx.ModelProto],
    *,
    max_batch_size: int = 64,
    optional: Sequence[str] = (),
    labels: Sequence[str] = (),
    more: Sequence[str] = (),
) -> Model:
    """Return a model that runs ONNX files, declared as the first of them is.

    Args:
        files: version -> file or model.
        max_batch_size: 0 for a model whose first axis is no batch axis.
        optional: initializers that are inputs too and may be left out.
        labels: classes of its only output.
        more: further lines of config.pbtxt.
    """
    first = next(iter(files.values()))
    graph = (onnx.load(first) if isinstance(first, Path) else first).graph
    constants = {tensor.name for tensor in graph.initializer} - set(optional)
    batched = max_batch_size > 0

    def tensor(value: onnx.ValueInfoProto, labels: Sequence[str] = ()) -> Tensor:
        kind = value.type.tensor_type
        dims = [dim.dim_value or -1 for dim in kind.shape.dim][batched:]
        return Tensor(
            value.name,
            _OF_ELEMENT.get(kind.elem_type, "FP32"),
            dims or [1],  # Triton has no tensors of rank 0
            optional=value.name in optional,
            labels=labels,
        )

    return Model(
        script="onnx_model",
        inputs=[tensor(value) for value in graph.input if value.name not in constants],
        outputs=[tensor(value, labels) for value in graph.output],
        max_batch_size=max_batch_size,
        more=(EVERY_VERSION, *more),
        files=dict(files),
    )


def identity(datatype: str, *, max_batch_size: int = 64, more: Sequence[str] = ()) -> Model:
    """Return `y = x` of a datatype, rows of any length."""
    dims = [-1]
    return Model(
        script="identity",
        inputs=[Tensor("x", datatype, dims)],
        outputs=[Tensor("y", datatype, dims)],
        max_batch_size=max_batch_size,
        more=more,
        files={1: None},
    )


def slow(*, more: Sequence[str] = ()) -> Model:
    """Return `y = x`, FP32 of two columns, as late as the request's parameter `ms` says."""
    tensors = [Tensor("x", "FP32", [2])], [Tensor("y", "FP32", [2])]
    return Model(script="slow", inputs=tensors[0], outputs=tensors[1], more=more, files={1: None})


def repeat() -> Model:
    """Return the decoupled model that answers `count` times, `delay_ms` apart, and may `fail_at` one."""
    return Model(
        script="repeat",
        inputs=[
            Tensor("count", "INT32", [1]),
            Tensor("delay_ms", "INT32", [1], optional=True),
            Tensor("fail_at", "INT32", [1], optional=True),
        ],
        outputs=[Tensor("index", "INT32", [1])],
        max_batch_size=0,
        more=["model_transaction_policy { decoupled: true }"],
        files={1: None},
    )


def accumulator() -> Model:
    """Return `sum`, INT32, of all `value` of a sequence so far, of 32 sequences at once."""
    control = (
        "sequence_batching { max_sequence_idle_microseconds: 60000000"
        ' control_input { name: "START" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [0, 1] } }'
        ' control_input { name: "CORRID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } } }'
    )
    return Model(
        script="accumulator",
        inputs=[Tensor("value", "INT32", [1])],
        outputs=[Tensor("sum", "INT32", [1])],
        max_batch_size=32,
        more=[control],
        files={1: None},
    )


def write(repository: Path, models: Mapping[str, Model]) -> Path:
    """Write a repository of these models; return it."""
    for name, model in models.items():
        model.write(repository, name)
    return repository
