"""ModelConfig of a served version: what its author declared, completed by what is in force."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from gateway._proto import model_config_pb2 as pb
from gateway.core.types import Datatype
from gateway.protocol.message_json import message_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.core.interfaces import ServedVersion
    from gateway.core.options import BatchingOptions, VersionPolicy
    from gateway.core.types import ModelSignature, TensorSpec

_DATA_TYPES: Final[Mapping[Datatype, pb.DataType]] = MappingProxyType(
    {
        Datatype.BOOL: pb.TYPE_BOOL,
        Datatype.UINT8: pb.TYPE_UINT8,
        Datatype.UINT16: pb.TYPE_UINT16,
        Datatype.UINT32: pb.TYPE_UINT32,
        Datatype.UINT64: pb.TYPE_UINT64,
        Datatype.INT8: pb.TYPE_INT8,
        Datatype.INT16: pb.TYPE_INT16,
        Datatype.INT32: pb.TYPE_INT32,
        Datatype.INT64: pb.TYPE_INT64,
        Datatype.FP16: pb.TYPE_FP16,
        Datatype.FP32: pb.TYPE_FP32,
        Datatype.FP64: pb.TYPE_FP64,
        Datatype.BF16: pb.TYPE_BF16,
        Datatype.BYTES: pb.TYPE_STRING,
    }
)
_KINDS: Final[Mapping[str, pb.ModelInstanceGroup.Kind]] = MappingProxyType(
    {"cpu": pb.ModelInstanceGroup.KIND_CPU, "cuda": pb.ModelInstanceGroup.KIND_GPU}
)


def config_message(served: ServedVersion) -> pb.ModelConfig:
    """Return the configuration in force.

    The declared one comes first; fields it leaves open, and `max_batch_size`, which decides how clients
    read the shapes, come from the version as it is served. With `max_batch_size` > 0 dims leave the batch
    axis out. The label that a version has in its registry is the parameter `registry_version`.
    """
    spec = served.spec
    config = pb.ModelConfig.FromString(spec.declared_config)
    config.name = served.id.model
    config.platform = config.platform or served.platform
    config.backend = config.backend or spec.backend
    config.default_model_filename = config.default_model_filename or "model.onnx"
    config.max_batch_size = max_batch_size(served)
    _complete_tensors(config, served.signature)
    if not config.HasField("version_policy"):
        config.version_policy.CopyFrom(_version_policy(spec.versions))
    if not config.instance_group:
        config.instance_group.extend(_instance_groups(served))
    if config.WhichOneof("scheduling_choice") is None and config.max_batch_size and spec.batching.enabled:
        config.dynamic_batching.CopyFrom(_dynamic_batching(spec.batching))
    if served.signature.decoupled:
        config.model_transaction_policy.decoupled = True
    if served.label:
        config.parameters["registry_version"].string_value = served.label
    return config


def config_json(served: ServedVersion) -> dict[str, Any]:
    """Return the same as a JSON object: enums as names, integers as numbers."""
    return message_json(config_message(served))


def max_batch_size(served: ServedVersion) -> int:
    """Return the most rows of a batch, 0 for a model whose tensors do not all have the batch axis first."""
    if served.spec.max_batch_size is not None:
        return served.spec.max_batch_size
    tensors = (*served.signature.inputs, *served.signature.outputs)
    if not served.signature.batchable or any(t.batch_axis != 0 for t in tensors):
        return 0
    batching = served.spec.batching
    return min((batching.max_batch_rows, *batching.allowed_rows[-1:]))


def _complete_tensors(config: pb.ModelConfig, signature: ModelSignature) -> None:
    """Add the tensors the config does not mention and fill in types and dims that it leaves open."""
    batched = config.max_batch_size > 0
    inputs = {tensor.name: tensor for tensor in config.input}
    for spec in signature.inputs:
        tensor = inputs.get(spec.name) or config.input.add(name=spec.name, optional=spec.optional)
        _complete(tensor, spec, batched=batched)
    outputs = {tensor.name: tensor for tensor in config.output}
    for spec in signature.outputs:
        _complete(outputs.get(spec.name) or config.output.add(name=spec.name), spec, batched=batched)


def _complete(tensor: pb.ModelInput | pb.ModelOutput, spec: TensorSpec, *, batched: bool) -> None:
    if not tensor.data_type:
        tensor.data_type = _DATA_TYPES[spec.datatype]
    if tensor.dims:
        return
    dims = spec.shape[1:] if batched else spec.shape
    # Triton has no empty dims: a row that is a scalar is written as one element, reshaped to none.
    tensor.dims.extend(dims or (1,))
    if not dims:
        tensor.reshape.SetInParent()


def _version_policy(policy: VersionPolicy) -> pb.ModelVersionPolicy:
    if policy.specific:
        return pb.ModelVersionPolicy(specific=pb.ModelVersionPolicy.Specific(versions=policy.specific))
    if policy.all:
        return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
    return pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=policy.latest))


def _instance_groups(served: ServedVersion) -> Iterable[pb.ModelInstanceGroup]:
    for number, ((kind, ordinal), count) in enumerate(served.devices):
        yield pb.ModelInstanceGroup(
            name=f"{served.id.model}_{number}",
            kind=_KINDS.get(kind, pb.ModelInstanceGroup.KIND_AUTO),
            count=count,
            gpus=(ordinal,) if kind == "cuda" else (),
        )


def _dynamic_batching(options: BatchingOptions) -> pb.ModelDynamicBatching:
    timeout_s = options.default_timeout_s or 0.0
    return pb.ModelDynamicBatching(
        preferred_batch_size=options.preferred_rows,
        max_queue_delay_microseconds=round(options.max_delay_s * 1e6),
        priority_levels=options.priority_levels,
        default_priority_level=options.default_priority,
        default_queue_policy=pb.ModelQueuePolicy(
            default_timeout_microseconds=round(timeout_s * 1e6),
            allow_timeout_override=options.allow_timeout_override,
        ),
    )
