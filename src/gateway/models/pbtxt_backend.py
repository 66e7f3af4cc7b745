"""Translates config.pbtxt's `parameters` and `optimization` into options of the ONNX Runtime backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.core.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway._proto import model_config_pb2 as pb

# Triton's parameter -> (option of the backend, its values and what they mean; None: any integer).
_PARAMETERS: Final[Mapping[str, tuple[str, Mapping[str, Any] | None]]] = {
    "intra_op_thread_count": ("intra_op_threads", None),
    "inter_op_thread_count": ("inter_op_threads", None),
    "execution_mode": ("execution_mode", {"0": "sequential", "1": "parallel"}),
    "enable_mem_arena": ("enable_mem_arena", {"0": False, "1": True}),
    "enable_mem_pattern": ("enable_mem_pattern", {"0": False, "1": True}),
}
_GRAPH_LEVELS: Final = {-1: "basic", 0: "all", 1: "extended", 2: "disabled"}
_ACCELERATORS: Final = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
# Names that Triton gives to TensorRT provider options, where they differ from the provider's own.
_TENSORRT_OPTIONS: Final = {"max_workspace_size_bytes": "trt_max_workspace_size"}
_TENSORRT_PRECISIONS: Final = {
    "FP32": {},
    "FP16": {"trt_fp16_enable": "1"},
    "BF16": {"trt_bf16_enable": "1"},
    "INT8": {"trt_int8_enable": "1"},
}


def backend_options(config: pb.ModelConfig) -> tuple[dict[str, Any], list[str]]:
    """Return the backend options that `config` declares, and warnings on what is ignored.

    Raises:
        ModelLoadError: a value does not fit, or an accelerator is unknown.
    """
    options: dict[str, Any] = {}
    session: dict[str, str] = {}
    notes: list[str] = []
    for key, parameter in sorted(config.parameters.items()):
        value = parameter.string_value
        if key in _PARAMETERS:
            option, choices = _PARAMETERS[key]
            options[option] = _value(key, value, choices)
        elif key == "memory.enable_memory_arena_shrinkage":
            options["arena_shrinkage"] = bool(value)
        elif key.startswith("session."):
            session[key] = value
        else:
            notes.append(f"field 'parameters' key '{key}' is ignored: no such option")
    if session:
        options["session_options"] = session
    return options | _optimization(config) | _files(config), notes


def _value(key: str, value: str, choices: Mapping[str, Any] | None) -> Any:
    if choices is None and value.strip().isdecimal():
        return int(value)
    if choices is not None and value.strip() in choices:
        return choices[value.strip()]
    expected = "a number" if choices is None else f"one of {sorted(choices)}"
    raise ModelLoadError(f"field 'parameters' key '{key}': expected {expected}, got '{value}'")


def _optimization(config: pb.ModelConfig) -> dict[str, Any]:
    optimization = config.optimization
    options: dict[str, Any] = {}
    if optimization.HasField("graph"):
        level = optimization.graph.level
        if level not in _GRAPH_LEVELS:
            raise ModelLoadError(
                f"field 'optimization.graph.level': expected one of {sorted(_GRAPH_LEVELS)}, got {level}"
            )
        options["graph_optimization_level"] = _GRAPH_LEVELS[level]
    accelerators = optimization.execution_accelerators
    gpu = [_provider(a.name, a.parameters) for a in accelerators.gpu_execution_accelerator]
    cpu = [_provider(a.name, a.parameters) for a in accelerators.cpu_execution_accelerator]
    if gpu or cpu:
        options["providers"] = _completed(gpu, cpu)
    return options


def _completed(gpu: list[dict[str, Any]], cpu: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the providers in order, each list followed by the plain provider of its device."""
    chosen = [*gpu]
    if gpu and all(p["name"] != _ACCELERATORS["cuda"] for p in gpu):
        chosen.append({"name": _ACCELERATORS["cuda"], "options": {}})
    return [*chosen, *cpu, {"name": "CPUExecutionProvider", "options": {}}]


def _provider(name: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    if name not in _ACCELERATORS:
        raise ModelLoadError(
            f"field 'optimization.execution_accelerators': '{name}' is not supported, "
            f"expected one of {sorted(_ACCELERATORS)}"
        )
    options = dict(sorted(parameters.items()))
    if name == "tensorrt":
        options = _tensorrt(options)
    return {"name": _ACCELERATORS[name], "options": options}


def _tensorrt(parameters: dict[str, str]) -> dict[str, str]:
    precision = parameters.pop("precision_mode", "FP32")
    if precision not in _TENSORRT_PRECISIONS:
        raise ModelLoadError(
            "field 'optimization.execution_accelerators': precision_mode must be one of "
            f"{sorted(_TENSORRT_PRECISIONS)}, got '{precision}'"
        )
    named = {_TENSORRT_OPTIONS.get(key, key): value for key, value in parameters.items()}
    return named | _TENSORRT_PRECISIONS[precision]


def _files(config: pb.ModelConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if libraries := list(config.model_operations.op_library_filename):
        options["custom_op_libraries"] = libraries
    if optional := _optional(config):
        options["optional_inputs"] = optional
    return options


def _optional(config: pb.ModelConfig) -> list[str]:
    return [tensor.name for tensor in config.input if tensor.optional]
