"""Holds a loaded model's signature against what its config.pbtxt declares, and completes the spec from it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from gateway._proto import model_config_pb2 as pb
from gateway.core.errors import ModelLoadError
from gateway.core.types import Datatype, ModelSignature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.core.interfaces import LoadedModel
    from gateway.core.options import ModelSpec
    from gateway.core.types import Batch, BatchResult, Device, TensorSpec

_STRING: Final = "TYPE_STRING"


class NarrowedModel:
    """A LoadedModel seen through a narrower signature: fewer outputs, or variable axes that are declared.

    Attributes:
        model: the model itself.
    """

    def __init__(self, model: LoadedModel, signature: ModelSignature) -> None:
        self.signature: ModelSignature = signature
        self.device: Device = model.device
        self.memory_bytes: int = model.memory_bytes
        self.overlaps: bool = model.overlaps
        self.model = model

    @property
    def instances(self) -> int:
        """As the model's own."""
        return self.model.instances

    @property
    def remote(self) -> bool:
        """As the model's own."""
        return self.model.remote

    async def infer(self, batch: Batch) -> BatchResult:
        """As the model's own."""
        return await self.model.infer(batch)

    def let_run(self, most_s: float) -> None:
        """As the model's own."""
        self.model.let_run(most_s)

    def stream(self, batch: Batch) -> AsyncIterator[BatchResult]:
        """As the model's own."""
        return self.model.stream(batch)

    async def aclose(self) -> None:
        """Close the model."""
        await self.model.aclose()


def conformed(model: LoadedModel, spec: ModelSpec) -> LoadedModel:
    """Return `model` with the signature that `spec` declares; the model itself where that changes nothing.

    Raises:
        ModelLoadError: the declaration contradicts the model.
    """
    signature = declared_signature(model.signature, spec)
    return model if signature == model.signature else NarrowedModel(model, signature)


def completed(spec: ModelSpec, signature: ModelSignature) -> ModelSpec:
    """Return `spec` with the `max_batch_size` to report: 0 unless every tensor's batch axis is 0."""
    tensors = (*signature.inputs, *signature.outputs)
    implicit = spec.max_batch_size != 0 and all(t.batch_axis == 0 for t in tensors)
    return dataclasses.replace(spec, max_batch_size=spec.batching.max_batch_rows if implicit else 0)


def declared_signature(signature: ModelSignature, spec: ModelSpec) -> ModelSignature:
    """Return `signature` as narrowed by the declared config.

    Declared inputs must be the model's (optional ones may be left out); declared outputs may be a subset.
    A size may be declared where the model leaves it open, never the other way round.

    Raises:
        ModelLoadError: names, datatypes or dims differ, or the model has no batch axis although
            `max_batch_size` is declared.
    """
    if spec.max_batch_size and not signature.batchable:
        raise ModelLoadError(
            f"autofill failed for model '{spec.name}': model does not support batching while non-zero "
            "max_batch_size is specified"
        )
    if spec.max_batch_size == 0 and not spec.batch_axes:
        signature = _without_batch(signature)
    if not spec.declared_config:
        return signature
    config = pb.ModelConfig.FromString(spec.declared_config)
    batched = config.max_batch_size > 0
    inputs, outputs = signature.inputs, signature.outputs
    if config.input:
        inputs = tuple(_narrowed(i, inputs, "input", batched=batched) for i in config.input)
        _check_complete([i.name for i in config.input], signature.inputs)
    if config.output:
        outputs = tuple(_narrowed(o, outputs, "output", batched=batched) for o in config.output)
    return dataclasses.replace(signature, inputs=_ordered(inputs, signature.inputs), outputs=outputs)


def _without_batch(signature: ModelSignature) -> ModelSignature:
    """Return the signature of a model whose dims are whole shapes: no axis counts rows."""

    def bare(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(dataclasses.replace(spec, batch_axis=None) for spec in specs)

    return dataclasses.replace(signature, inputs=bare(signature.inputs), outputs=bare(signature.outputs))


def _check_complete(declared: Sequence[str], inputs: Sequence[TensorSpec]) -> None:
    missing = [spec.name for spec in inputs if not spec.optional and spec.name not in declared]
    if missing:
        raise ModelLoadError(f"model config: field 'input' lacks the model's inputs {missing}")


def _ordered(chosen: Sequence[TensorSpec], model_order: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    by_name = {spec.name: spec for spec in chosen}
    return tuple(by_name[spec.name] for spec in model_order if spec.name in by_name)


def _narrowed(
    declared: pb.ModelInput | pb.ModelOutput, of_model: Sequence[TensorSpec], kind: str, *, batched: bool
) -> TensorSpec:
    """Return the model's tensor of that name with the dims declared."""
    name = declared.name
    spec = next((t for t in of_model if t.name == name), None)
    if spec is None:
        raise ModelLoadError(
            f"model config: unexpected inference {kind} '{name}', allowed {kind}s are: "
            f"{', '.join(t.name for t in of_model)}"
        )
    datatype = _datatype(declared)
    if datatype not in {None, spec.datatype}:
        raise ModelLoadError(
            f"model config: {kind} '{name}': data type {_wire_type(declared)} does not match the model's "
            f"TYPE_{spec.datatype.value}"
        )
    dims = tuple(declared.dims)
    shape = (spec.shape[0] if spec.shape else -1, *dims) if batched else dims
    if not _fits(shape, spec.shape):
        expects = list(spec.shape[1:] if batched else spec.shape)
        raise ModelLoadError(
            f"model config: {kind} '{name}': dims {list(dims)} do not match the model's {expects}"
            + (" (without the batch axis)" if batched else "")
        )
    if isinstance(declared, pb.ModelInput) and declared.optional and not spec.optional:
        raise ModelLoadError(f"model config: input '{name}' is declared optional, but the model needs it")
    return dataclasses.replace(spec, shape=shape)


def _fits(declared: tuple[int, ...], of_model: tuple[int, ...]) -> bool:
    if len(declared) != len(of_model):
        return False
    return all(m in (-1, d) for d, m in zip(declared, of_model, strict=True))


def _wire_type(declared: pb.ModelInput | pb.ModelOutput) -> str:
    return str(pb.DataType.Name(declared.data_type))


def _datatype(declared: pb.ModelInput | pb.ModelOutput) -> Datatype | None:
    """Return the datatype declared; None when the field is left out."""
    name = _wire_type(declared)
    if name == "TYPE_INVALID":
        return None
    return Datatype.BYTES if name == _STRING else Datatype(name.removeprefix("TYPE_"))
