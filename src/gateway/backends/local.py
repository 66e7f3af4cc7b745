"""The backend of models that run in this process; without its library a gateway serves fleets alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.backends.onnxruntime.options import BACKEND, PLATFORM
from gateway.core.errors import ModelLoadError
from gateway.core.interfaces import Backend

try:
    from gateway.backends.onnxruntime.backend import OnnxRuntimeBackend
except ModuleNotFoundError as missing:
    if missing.name != "onnxruntime":
        raise
    IS_INSTALLED = False
else:
    IS_INSTALLED = True

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from gateway.core.interfaces import LoadedModel
    from gateway.core.options import LoadOptions, ModelSpec
    from gateway.core.types import Artifact

    WarmUpRun: TypeAlias = Callable[[LoadedModel, ModelSpec], Awaitable[list[str]]]


class LocalBackend(Backend, Protocol):
    """A backend whose models take this process's memory."""

    def counting(self, warm_up: WarmUpRun) -> WarmUpRun:
        """Return a warm-up that adds what its runs make a model allocate to its `memory_bytes`."""


def local_backend(notice: Callable[[str], None] | None = None) -> LocalBackend:
    """Return ONNX Runtime's backend, or what stands in its place where that is not installed.

    Args:
        notice: as `OnnxRuntimeBackend` takes it.
    """
    return OnnxRuntimeBackend(notice) if IS_INSTALLED else MissingBackend()


class MissingBackend:
    """Refuses every load in words."""

    name = BACKEND
    platform = PLATFORM

    async def load(self, artifact: Artifact, options: LoadOptions) -> LoadedModel:
        """Raise.

        Raises:
            ModelLoadError: always, and says what to install.
        """
        raise ModelLoadError(
            f"model '{options.spec.name}': {artifact.model_file.name} needs ONNX Runtime, which is not "
            "installed: pip install 'model-gateway[cpu]', or [gpu]"
        )

    def counting(self, warm_up: WarmUpRun) -> WarmUpRun:
        """Return it as it is: nothing is loaded."""
        return warm_up
