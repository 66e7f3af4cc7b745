"""Create ONNX Runtime sessions: options, threads, providers; blocking, for a worker thread."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import onnxruntime

from gateway.backends.onnxruntime.providers import CPU_PROVIDER, ProviderPlan, library_problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.backends.onnxruntime.options import OnnxRuntimeOptions

_LEVELS: Final = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
_FATAL: Final = 4
# Worker threads spin for a while after each run; beside an event loop on the same cores that costs latency.
# Measured on 2 cores: stopping at the end of a run costs the run nothing.
_STOP_SPINNING: Final = "session.force_spinning_stop"


class NodeArg(Protocol):
    """One input or output as a session describes it."""

    name: str
    type: str
    shape: Sequence[int | str | None]


class Session(Protocol):
    """What we use of `onnxruntime.InferenceSession`; safe to run from several threads at once."""

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Any], options: Any) -> list[Any]:
        """Run with NumPy arrays."""

    def run_with_ort_values(
        self, outputs: Sequence[str], feeds: Mapping[str, Any], options: Any
    ) -> list[Any]:
        """Run with OrtValues."""

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        """Run what the binding names."""

    def io_binding(self) -> Any:
        """Return a fresh binding."""

    def get_inputs(self) -> Sequence[NodeArg]:
        """Return the inputs that have no default."""

    def get_outputs(self) -> Sequence[NodeArg]:
        """Return the outputs."""

    def get_providers(self) -> Sequence[str]:
        """Return the providers in use."""


def available_providers() -> list[str]:
    """Return the execution providers of this build, in its order."""
    return list(onnxruntime.get_available_providers())


class CudaLibraries:
    """Loads, once, the CUDA libraries that the gpu extra installs as Python packages."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tried = False

    def load(self) -> None:
        """Load them; what is missing shows when the provider's own library is loaded."""
        with self._guard:
            if not self._tried:
                self._tried = True
                # It reports failures by print; standard output belongs to the command line.
                with contextlib.redirect_stdout(sys.stderr):
                    onnxruntime.preload_dlls()

    def problem(self, provider: str) -> str | None:
        """Return why a provider's library does not load, or None; loads it."""
        if provider == CPU_PROVIDER:
            return None
        self.load()
        return library_problem(provider, Path(onnxruntime.__file__).parent)


def thread_counts(options: OnnxRuntimeOptions, cpus: int, instances: int) -> tuple[int, int]:
    """Return intra-op and inter-op threads of one session that `instances` runs share.

    A session has one pool for all its runs, and each run's own thread works too: `instances` callers and
    `intra - 1` pool threads fill the processors exactly when all run at once.
    """
    intra = options.intra_op_threads or max(1, cpus - instances + 1)
    inter = options.inter_op_threads or (cpus if options.execution_mode == "parallel" else 1)
    return intra, inter


def pool_threads(options: OnnxRuntimeOptions, threads: tuple[int, int]) -> int:
    """Return how many threads a session with these counts starts when it is created; see `thread_counts`."""
    intra, inter = threads
    return intra - 1 + (inter - 1 if options.execution_mode == "parallel" else 0)


def open_session(
    path: Path, options: OnnxRuntimeOptions, plan: ProviderPlan, threads: tuple[int, int]
) -> Session:
    """Create a session from a file.

    By path, never from bytes: from bytes it stalls the interpreter 20 times longer and keeps them.

    Raises:
        Exception: whatever ONNX Runtime raises; the caller says which model.
    """
    session: Session = onnxruntime.InferenceSession(
        str(path),
        _session_options(options, threads),
        providers=[(choice.name, dict(choice.options)) for choice in plan.providers],
        enable_fallback=0,  # it prints, and repeats a failed run elsewhere without saying so
        read_config_from_model=0,  # the model's author does not choose the server's threads
    )
    return session


def _session_options(options: OnnxRuntimeOptions, threads: tuple[int, int]) -> Any:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads, made.inter_op_num_threads = threads
    made.execution_mode = (
        onnxruntime.ExecutionMode.ORT_PARALLEL
        if options.execution_mode == "parallel"
        else onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    )
    made.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, _LEVELS[options.graph_optimization_level]
    )
    made.enable_cpu_mem_arena = options.enable_mem_arena
    made.enable_mem_pattern = options.enable_mem_pattern
    made.log_severity_level = _FATAL  # what goes wrong is raised, and said once by us
    for key, value in {_STOP_SPINNING: "1", **options.session_options}.items():
        made.add_session_config_entry(key, value)
    for library in options.custom_op_libraries:
        made.register_custom_ops_library(library)
    return made


def run_options(options: OnnxRuntimeOptions, plan: ProviderPlan) -> Any:
    """Return the options that every run of a model shares; never changed afterwards."""
    made = onnxruntime.RunOptions()
    made.log_severity_level = _FATAL  # else every bad request writes its error to standard error
    if options.arena_shrinkage:
        arenas = ["cpu:0"] if options.enable_mem_arena else []
        if plan.device.kind == "cuda":
            arenas.append(f"gpu:{plan.device.ordinal}")
        if arenas:
            made.add_run_config_entry("memory.enable_memory_arena_shrinkage", ";".join(arenas))
    return made
