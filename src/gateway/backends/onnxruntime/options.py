"""The options of the ONNX Runtime backend and how they are read from a model's settings."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from gateway.core.errors import ModelLoadError

BACKEND: Final = "onnxruntime"
"""The backend's name."""
PLATFORM: Final = "onnxruntime_onnx"
GraphLevel: TypeAlias = Literal["disabled", "basic", "extended", "layout", "all"]
ExecutionMode: TypeAlias = Literal["sequential", "parallel"]


def _no_entries() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ProviderChoice:
    """One execution provider asked for.

    Attributes:
        name: full name, `CUDAExecutionProvider`.
        options: the provider's own options, passed through.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=_no_entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntimeOptions:
    """How ONNX Runtime loads and runs one model.

    Attributes:
        providers: execution providers in order of preference, each a name (`cuda` is short for
            `CUDAExecutionProvider`) or `{name, options}`; empty: TensorRT, CUDA, CPU as available.
        intra_op_threads: threads that share one operator; 0: the usable processors less those that the
            other instances take.
        inter_op_threads: threads that run operators side by side in parallel mode; 0: 1, or in parallel
            mode the usable processors.
        execution_mode: `parallel` pays only for graphs with wide branches.
        graph_optimization_level: how far the graph is rewritten at load.
        session_options: session configuration entries, key -> value, passed through.
        cuda: options for the CUDA provider wherever it is used without options of its own.
        enable_mem_arena: keep freed CPU memory for the next run; off for rare, huge requests.
        enable_mem_pattern: plan memory per input shape; off when every shape is different.
        arena_shrinkage: give memory back to the system after every run, at a cost per run.
        io_binding: copy inputs and outputs by IO binding; None: on accelerators.
        allow_custom_ops: let the model use custom operators and load `custom_op_libraries`; both run
            native code inside the server.
        custom_op_libraries: shared libraries with custom operators; refused unless `allow_custom_ops`.
        optional_inputs: initializers with a default in the file that requests may override.
        max_model_bytes: largest file plus external data; 0 for no limit.
        inspection_timeout_s: seconds that inspecting the file may take.
        row_check: before batching, prove by running that rows do not influence each other.
        inline_runs: let the event loop itself make runs on the CPU that are shorter than handing them to a
            thread and back, about 0.1 ms; as measured, by the size of the inputs. Turn it off for a model
            whose time hangs on its data: nothing else is served during such a run.
    """

    providers: tuple[ProviderChoice, ...] = ()
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    execution_mode: ExecutionMode = "sequential"
    graph_optimization_level: GraphLevel = "all"
    session_options: Mapping[str, str] = field(default_factory=_no_entries)
    cuda: Mapping[str, str] = field(default_factory=_no_entries)
    enable_mem_arena: bool = True
    enable_mem_pattern: bool = True
    arena_shrinkage: bool = False
    io_binding: bool | None = None
    allow_custom_ops: bool = False
    custom_op_libraries: tuple[str, ...] = ()
    optional_inputs: tuple[str, ...] = ()
    max_model_bytes: int = 0
    inspection_timeout_s: float = 60.0
    row_check: bool = True
    inline_runs: bool = True


def parse_options(raw: Mapping[str, Any]) -> OnnxRuntimeOptions:
    """Read options from `ModelSpec.backend_options`; text is accepted for numbers and switches.

    Raises:
        ModelLoadError: an unknown option, with near matches, or a value that does not fit.
    """
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in _READERS:
            raise ModelLoadError(f"unknown option '{key}' of backend onnxruntime{_near(key)}")
        try:
            values[key] = _READERS[key](value)
        except (TypeError, ValueError) as error:
            raise ModelLoadError(f"option '{key}' of backend onnxruntime: {error}") from error
    options = OnnxRuntimeOptions(**values)
    _check(options)
    return options


def _near(key: str) -> str:
    matches = difflib.get_close_matches(key, _READERS, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(m) for m in matches)}?" if matches else ""


def _check(options: OnnxRuntimeOptions) -> None:
    if options.custom_op_libraries and not options.allow_custom_ops:
        raise ModelLoadError(
            "custom_op_libraries run native code inside the server; refused unless allow_custom_ops is set"
        )
    for key in options.session_options:
        if key in _REFUSED_ENTRIES:
            raise ModelLoadError(f"session option '{key}' is refused: {_REFUSED_ENTRIES[key]}")
    named = (*(c.options for c in options.providers), options.cuda)
    for key in (key for provider_options in named for key in provider_options):
        if key in _CODE_LOADING and not options.allow_custom_ops:
            raise ModelLoadError(
                f"provider option '{key}' loads native code; refused unless allow_custom_ops is set"
            )


# Entries that would undo what the inspection of the file has established.
_REFUSED_ENTRIES: Final[Mapping[str, str]] = {
    "session.model_external_initializers_file_folder_path": "external data must lie in the version directory",
    "session.load_model_format": "only ONNX files are inspected and served",
    "ep.context_file_path": "precompiled contexts are not served",
    "ep.context_enable": "precompiled contexts are not served",
}
_CODE_LOADING: Final = frozenset({"trt_extra_plugin_lib_paths"})


def full_provider_name(name: str) -> str:
    """Return ONNX Runtime's name of a provider from it, or from a short form such as `cuda`."""
    return _SHORT_NAMES.get(name.lower(), name)


_SHORT_NAMES: Final[Mapping[str, str]] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}


def _providers(value: Any) -> tuple[ProviderChoice, ...]:
    items = [value] if isinstance(value, str | Mapping) else list(value)
    return tuple(map(_provider, items))


def _provider(value: Any) -> ProviderChoice:
    if isinstance(value, str):
        return ProviderChoice(full_provider_name(value))
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise TypeError("each provider is a name, or a mapping with 'name' and 'options'")
    if extra := sorted(set(value) - {"name", "options"}):
        raise ValueError(f"unknown key '{extra[0]}' of provider '{value['name']}'")
    return ProviderChoice(full_provider_name(value["name"]), _entries(value.get("options") or {}))


def _count(value: Any) -> int:
    number = value if isinstance(value, int) and not isinstance(value, bool) else int(str(value))
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{value} is not a positive number of seconds")
    return seconds


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {
        "1": True,
        "true": True,
        "on": True,
        "yes": True,
        "0": False,
        "false": False,
        "off": False,
        "no": False,
    }
    try:
        return words[str(value).strip().lower()]
    except KeyError:
        raise ValueError(f"{value!r} is neither true nor false") from None


def _maybe_switch(value: Any) -> bool | None:
    return None if value is None or value == "auto" else _switch(value)


def _entries(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError("expected a mapping of names to values")
    return MappingProxyType({str(k): _entry(v) for k, v in value.items()})


def _entry(value: Any) -> str:
    return ("0", "1")[value] if isinstance(value, bool) else str(value)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
        raise TypeError("expected a list of names")
    return tuple(value)


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
        return str(value)

    return read


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "providers": _providers,
    "intra_op_threads": _count,
    "inter_op_threads": _count,
    "execution_mode": _one_of("sequential", "parallel"),
    "graph_optimization_level": _one_of("disabled", "basic", "extended", "layout", "all"),
    "session_options": _entries,
    "cuda": _entries,
    "enable_mem_arena": _switch,
    "enable_mem_pattern": _switch,
    "arena_shrinkage": _switch,
    "io_binding": _maybe_switch,
    "allow_custom_ops": _switch,
    "custom_op_libraries": _names,
    "optional_inputs": _names,
    "max_model_bytes": _count,
    "inspection_timeout_s": _seconds,
    "row_check": _switch,
    "inline_runs": _switch,
}
