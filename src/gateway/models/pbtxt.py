"""Reads a config.pbtxt, or its JSON twin, into the fields of a ModelSpec."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from google.protobuf import json_format, text_format

from gateway._proto import model_config_pb2 as pb
from gateway._proto.pool import POOL
from gateway.core.errors import ModelLoadError
from gateway.core.options import BatchingOptions, InstanceGroup, ModelSpec, VersionPolicy, WarmUp
from gateway.core.types import CPU, Device
from gateway.models.pbtxt_backend import backend_options
from gateway.models.pbtxt_fields import check_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_FILE: Final = "config.pbtxt"
JSON_CONFIG: Final = "config"
"""What complaints about a config sent with a load request begin with: the parameter's name."""
MICROSECOND_S: Final = 1e-6
_PLATFORMS: Final = {"": "onnxruntime", "onnxruntime_onnx": "onnxruntime"}


@dataclass(frozen=True, slots=True)
class DeclaredModel:
    """What a config.pbtxt says.

    Attributes:
        spec: the spec given, with what the file declares; labels are not read yet.
        model_filename: name of the model file in the version's directory.
        label_files: output -> file of class labels, relative to the model's directory.
        warnings: what is ignored, to be told once.
    """

    spec: ModelSpec
    model_filename: str
    label_files: Mapping[str, str]
    warnings: tuple[str, ...]


def parse_text(text: str) -> pb.ModelConfig:
    """Parse protobuf's text format.

    Raises:
        ModelLoadError: with line and column.
    """
    try:
        return text_format.Parse(text, pb.ModelConfig(), descriptor_pool=POOL)
    except (text_format.ParseError, UnicodeError) as exc:
        raise ModelLoadError(f"{CONFIG_FILE}: {exc}") from exc


def parse_json(text: str) -> pb.ModelConfig:
    """Parse the JSON form that clients send with a load request.

    Raises:
        ModelLoadError: with the reason.
    """
    if not text.lstrip().startswith("{"):  # protobuf takes an empty array for an empty message
        raise ModelLoadError(f"{JSON_CONFIG}: expected a JSON object")
    try:
        return json_format.Parse(text, pb.ModelConfig(), descriptor_pool=POOL)
    except (json_format.ParseError, json.JSONDecodeError, RecursionError) as exc:
        raise ModelLoadError(f"{JSON_CONFIG}: {exc}") from exc


def declare(
    config: pb.ModelConfig, spec: ModelSpec, *, name: str = "", source: str = CONFIG_FILE
) -> DeclaredModel:
    """Return what `config` makes of `spec`. Pure.

    Args:
        config: the parsed file.
        spec: defaults; everything that the file does not mention stays.
        name: the directory's name, which the config's own name must equal; empty: not checked.
        source: where the config is from; complaints and warnings begin with it.

    Raises:
        ModelLoadError: a field is unsupported or contradicts another; it is named.
    """
    try:
        declared = _declared(config, spec, name)
    except ModelLoadError as exc:
        raise ModelLoadError(f"{source}: {exc}") from exc
    warnings = tuple(f"{source}: {warning}" for warning in declared.warnings)
    return dataclasses.replace(declared, warnings=warnings)


def _declared(config: pb.ModelConfig, spec: ModelSpec, name: str) -> DeclaredModel:
    warnings = check_fields(config)
    if name and config.name not in {"", name}:
        raise ModelLoadError(
            f"unexpected directory name '{name}' for model '{config.name}', "
            "directory name must equal model name"
        )
    options, notes = backend_options(config)
    instances, device_notes = _instances(config)
    warm_up, warm_notes = _warm_up(config, spec.warm_up)
    declared = dataclasses.replace(
        spec,
        backend=_backend(config),
        versions=_versions(config, spec.versions),
        batching=_batching(config, spec.batching),
        instances=instances or spec.instances,
        warm_up=warm_up,
        backend_options={**spec.backend_options, **options},
        max_batch_size=_max_batch_size(config),
        declared_config=config.SerializeToString(deterministic=True),
    )
    return DeclaredModel(
        declared,
        _model_filename(config),
        {
            o.name: _inner_path("output.label_filename", o.label_filename)
            for o in config.output
            if o.label_filename
        },
        (*warnings, *notes, *device_notes, *warm_notes, *_queue_notes(config)),
    )


def _backend(config: pb.ModelConfig) -> str:
    if config.platform not in _PLATFORMS:
        raise ModelLoadError(
            f"field 'platform': '{config.platform}' is not supported, expected 'onnxruntime_onnx'"
        )
    return config.backend or _PLATFORMS[config.platform]


def _versions(config: pb.ModelConfig, default: VersionPolicy) -> VersionPolicy:
    choice = config.version_policy.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy(all=True)
    if choice == "latest":
        return VersionPolicy(latest=max(1, config.version_policy.latest.num_versions))
    if choice == "specific":
        numbers = tuple(sorted(set(config.version_policy.specific.versions)))
        if not numbers or numbers[0] < 1:
            raise ModelLoadError(
                "field 'version_policy.specific.versions' must list positive version numbers, "
                f"got {list(numbers)}"
            )
        return VersionPolicy(specific=numbers)
    return default


def _completes_itself(config: pb.ModelConfig) -> bool:
    """Whether the batch size is left to the model file: neither it nor any tensor is declared."""
    return config.max_batch_size == 0 and not config.input and not config.output


def _max_batch_size(config: pb.ModelConfig) -> int | None:
    if config.max_batch_size < 0:
        raise ModelLoadError(f"field 'max_batch_size' must be non-negative, got {config.max_batch_size}")
    return None if _completes_itself(config) else config.max_batch_size


def _batching(config: pb.ModelConfig, default: BatchingOptions) -> BatchingOptions:
    if config.max_batch_size <= 0:
        if config.HasField("dynamic_batching") and not _completes_itself(config):
            raise ModelLoadError("field 'dynamic_batching' needs max_batch_size > 0")
        options = default if _completes_itself(config) else dataclasses.replace(default, enabled=False)
        return (
            _scheduling(config.dynamic_batching, options) if config.HasField("dynamic_batching") else options
        )
    enabled = config.HasField("dynamic_batching")
    options = dataclasses.replace(default, enabled=enabled, max_batch_rows=config.max_batch_size)
    return _scheduling(config.dynamic_batching, options) if enabled else options


def _scheduling(dynamic: pb.ModelDynamicBatching, options: BatchingOptions) -> BatchingOptions:
    preferred = tuple(sorted(set(dynamic.preferred_batch_size)))
    if preferred and (preferred[0] < 1 or preferred[-1] > options.max_batch_rows):
        raise ModelLoadError(
            "field 'dynamic_batching.preferred_batch_size' must lie within 1 and "
            f"max_batch_size {options.max_batch_rows}, got {list(preferred)}"
        )
    if dynamic.default_priority_level > dynamic.priority_levels:
        raise ModelLoadError(
            "field 'dynamic_batching.default_priority_level' "
            f"{dynamic.default_priority_level} is beyond priority_levels {dynamic.priority_levels}"
        )
    options = dataclasses.replace(
        options,
        preferred_rows=preferred,
        max_delay_s=dynamic.max_queue_delay_microseconds * MICROSECOND_S,
        priority_levels=dynamic.priority_levels,
        default_priority=dynamic.default_priority_level,
    )
    if not dynamic.HasField("default_queue_policy"):
        return options
    return _queueing(dynamic.default_queue_policy, options)


def _queueing(policy: pb.ModelQueuePolicy, options: BatchingOptions) -> BatchingOptions:
    timeout_s = policy.default_timeout_microseconds * MICROSECOND_S
    # Triton counts requests, the gateway rows; a queue must at least hold one request of the largest size.
    rows = (
        max(policy.max_queue_size, options.max_batch_rows)
        if policy.max_queue_size
        else options.max_queue_rows
    )
    return dataclasses.replace(
        options,
        default_timeout_s=timeout_s or None,
        allow_timeout_override=policy.allow_timeout_override,
        max_queue_rows=rows,
    )


def _queue_notes(config: pb.ModelConfig) -> list[str]:
    if not config.dynamic_batching.default_queue_policy.max_queue_size:
        return []
    return ["field 'dynamic_batching.default_queue_policy.max_queue_size' counts rows here"]


def _instances(config: pb.ModelConfig) -> tuple[tuple[InstanceGroup, ...], list[str]]:
    groups: list[InstanceGroup] = []
    notes: list[str] = []
    for group in config.instance_group:
        on_gpu = group.kind == pb.ModelInstanceGroup.KIND_GPU
        if group.kind == pb.ModelInstanceGroup.KIND_CPU:
            devices: list[Device | None] = [CPU]
        elif group.gpus:
            devices = [Device("cuda", index) for index in group.gpus]
        else:
            devices = [Device("cuda", 0) if on_gpu else None]
            if on_gpu:
                notes.append("field 'instance_group' of KIND_GPU without 'gpus' means GPU 0 here")
        groups.extend(InstanceGroup(device=device, count=max(1, group.count)) for device in devices)
    return tuple(groups), notes


def _warm_up(config: pb.ModelConfig, default: WarmUp) -> tuple[WarmUp, list[str]]:
    if not config.model_warmup:
        return default, []
    first = config.model_warmup[0]
    data = {name: _warm_up_data(item) for name, item in first.inputs.items()}
    shapes = {name: _warm_up_shape(config, item) for name, item in first.inputs.items()}
    # One set of inputs is kept; samples that differ only in batch size are runs of it.
    alike = [w for w in config.model_warmup if dict(w.inputs.items()) == dict(first.inputs.items())]
    notes = [
        f"field 'model_warmup' sample '{w.name}' is ignored: its inputs are not those of '{first.name}'"
        for w in config.model_warmup
        if w not in alike
    ]
    warm_up = dataclasses.replace(
        default,
        enabled=True,
        rows=tuple(sorted({max(1, w.batch_size) for w in alike})),
        repeat=max(1, *(w.count for w in alike)) if alike else 1,
        shapes=shapes,
        data=data,
        required=True,
    )
    return warm_up, notes


def _warm_up_data(item: pb.ModelWarmup.Input) -> str:
    kind = item.WhichOneof("input_data_type")
    if kind == "input_data_file":
        return _inner_path("model_warmup.inputs.input_data_file", item.input_data_file)
    return "random" if kind == "random_data" else "zero"


def _warm_up_shape(config: pb.ModelConfig, item: pb.ModelWarmup.Input) -> tuple[int, ...]:
    return (1, *item.dims) if config.max_batch_size > 0 else tuple(item.dims)


def _model_filename(config: pb.ModelConfig) -> str:
    return _inner_path("default_model_filename", config.default_model_filename or "model.onnx")


def _inner_path(field: str, path: str) -> str:
    """Return a relative path that stays inside the directory it is relative to."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ModelLoadError(f"field '{field}' must be a plain relative path, got '{path}'")
    return path
