"""The table of config.pbtxt fields: read, refused, or ignored with a warning."""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from gateway.core.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.message import Message


class Treatment(enum.Enum):
    """What the presence of a field does."""

    READ = "read"
    """The gateway acts on it."""
    REFUSE = "refuse"
    """It would change results or behaviour and is not supported: the model is not loaded."""
    WARN = "warn"
    """It only tunes: ignored, and said so once."""


READ: Final = (Treatment.READ, "")


def _refuse(why: str) -> tuple[Treatment, str]:
    return Treatment.REFUSE, why


def _warn(why: str) -> tuple[Treatment, str]:
    return Treatment.WARN, why


# One row per field; the fields of a message that is refused or ignored as a whole need none of their own.
# A scalar at its default value counts as absent, as proto3 has it.
FIELDS: Final[Mapping[str, tuple[Treatment, str]]] = MappingProxyType(
    {
        "name": READ,
        "platform": READ,
        "backend": READ,
        "runtime": _warn("the backend's library is chosen by the gateway"),
        "version_policy": READ,
        "max_batch_size": READ,
        "input": READ,
        "input.name": READ,
        "input.data_type": READ,
        "input.format": _warn("tensors are passed on as sent"),
        "input.dims": READ,
        "input.reshape": _refuse("declare the model's own shape"),
        "input.is_shape_tensor": _refuse("shape tensors are TensorRT's alone"),
        "input.allow_ragged_batch": _refuse("pad unequal requests with a padding rule instead"),
        "input.optional": READ,
        "input.is_non_linear_format_io": _refuse("non-linear formats are TensorRT's alone"),
        "output": READ,
        "output.name": READ,
        "output.data_type": READ,
        "output.dims": READ,
        "output.reshape": _refuse("declare the model's own shape"),
        "output.label_filename": READ,
        "output.is_shape_tensor": _refuse("shape tensors are TensorRT's alone"),
        "output.is_non_linear_format_io": _refuse("non-linear formats are TensorRT's alone"),
        "batch_input": _refuse("inputs made from the batch are not supported"),
        "batch_output": _refuse("outputs divided otherwise than by rows are not supported"),
        "optimization": READ,
        "optimization.graph": READ,
        "optimization.priority": _warn("models share a device by their cost"),
        "optimization.cuda": _warn("CUDA graphs are set by the provider's own options"),
        "optimization.execution_accelerators": READ,
        "optimization.input_pinned_memory": _warn("the provider decides"),
        "optimization.output_pinned_memory": _warn("the provider decides"),
        "optimization.gather_kernel_buffer_threshold": _warn("batches are assembled on the host"),
        "optimization.eager_batching": _warn("batches form when an instance is free"),
        "dynamic_batching": READ,
        "dynamic_batching.preferred_batch_size": READ,
        "dynamic_batching.max_queue_delay_microseconds": READ,
        "dynamic_batching.preserve_ordering": _warn("answers of one stream are always in order"),
        "dynamic_batching.priority_levels": READ,
        "dynamic_batching.default_priority_level": READ,
        "dynamic_batching.default_queue_policy": READ,
        "dynamic_batching.default_queue_policy.timeout_action": _refuse("only REJECT is supported"),
        "dynamic_batching.default_queue_policy.default_timeout_microseconds": READ,
        "dynamic_batching.default_queue_policy.allow_timeout_override": READ,
        "dynamic_batching.default_queue_policy.max_queue_size": READ,
        "dynamic_batching.priority_queue_policy": _refuse("all levels share the default policy"),
        "sequence_batching": _refuse("stateful sequences are not supported"),
        "ensemble_scheduling": _refuse("ensembles are not supported"),
        "instance_group": READ,
        "instance_group.name": READ,
        "instance_group.kind": READ,
        "instance_group.count": READ,
        "instance_group.rate_limiter": _warn("models share a device by their cost"),
        "instance_group.gpus": READ,
        "instance_group.secondary_devices": _refuse("secondary devices are not supported"),
        "instance_group.profile": _refuse("optimisation profiles are TensorRT's alone"),
        "instance_group.passive": _refuse("passive instances are not supported"),
        "instance_group.host_policy": _warn("bind the process to processors instead"),
        "default_model_filename": READ,
        "cc_model_filenames": _refuse("one file serves every device"),
        "metric_tags": _warn("metrics carry model and version"),
        "parameters": READ,
        "model_warmup": READ,
        "model_operations": READ,
        "model_transaction_policy": READ,
        "model_transaction_policy.decoupled": _refuse("ONNX models answer each request once"),
        "model_repository_agents": _refuse("repository agents are not supported"),
        "response_cache": READ,
        "response_cache.enable": _warn("every request is computed"),
        "model_metrics": _warn("histogram buckets are the same for all models"),
    }
)


def check_fields(config: Message) -> list[str]:
    """Return one warning for each kind of field present that is ignored.

    Raises:
        ModelLoadError: a field is present that is not supported; its path is named.
    """
    warnings: dict[str, None] = {}
    for path, where in _present(config, ""):
        treatment, why = FIELDS[path]
        if treatment is Treatment.REFUSE:
            raise ModelLoadError(f"field '{path}'{where} is not supported: {why}")
        if treatment is Treatment.WARN:
            warnings[f"field '{path}' is ignored: {why}"] = None
    return list(warnings)


def _present(message: Message, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield path and owner of every field set, down to the depth that the table describes."""
    name = getattr(message, "name", "") if prefix else ""
    for descriptor, value in message.ListFields():
        path = prefix + descriptor.name
        yield path, f" (of '{name}')" if name else ""
        if any(known.startswith(path + ".") for known in FIELDS):
            for part in _messages(value):
                yield from _present(part, path + ".")


def _messages(value: Any) -> list[Message]:
    return [value] if hasattr(value, "ListFields") else list(value)
