"""Turn what ONNX Runtime raises into our errors: one line, no paths, and who is to blame."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.core.errors import BackendError, BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_CHARACTERS: Final = 400
_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
# A source file and line of the library's build, then the signature of a C++ function, templates and all.
_SOURCE = re.compile(
    r"(?:/[^\s/:]+)*/onnxruntime(?:_src)?/\S*\.(?:cc|cpp|cu|cuh|h|hpp):\d+\s+[^()]*"
    r"\((?:[^()]|\([^()]*\))*\)\s*(?:\[with [^\]]*\]\s*)?"
)
_STATUS = re.compile(
    r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: "
)
_WHOLE_BACKEND = re.compile(
    r"BFCArena|Failed to allocate memory|out of memory|bad_alloc|(?:CUDA|CUDNN|CUBLAS) (?:failure|error)"
    r"|cudaError|device[ -](?:is )?lost|DeviceReset|no CUDA-capable device"
)
_WHOLE_BACKEND_TYPES: Final = frozenset({"DeviceReset", "EngineError"})


def one_line(error: BaseException, hidden: Sequence[str] = ()) -> str:
    """Return the message on one line, without source locations and without the texts in `hidden`."""
    text = _CODE.sub("", str(error) or type(error).__name__)
    text = _SOURCE.sub("", text)
    text = _STATUS.sub(_operator, text)
    for path in sorted(filter(None, hidden), key=len, reverse=True):
        text = text.replace(path.rstrip("/") + "/", "").replace(path, "the model file")
    text = " ".join(text.split())
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"


def _operator(match: re.Match[str]) -> str:
    operator, name = match.groups()
    return f"{operator} node '{name}': " if name else f"{operator} node: "


def is_of_the_backend(error: Exception) -> bool:
    """Whether the backend as a whole failed: out of memory, on the host or the device, or a lost device."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in _WHOLE_BACKEND_TYPES
        or _WHOLE_BACKEND.search(str(error)) is not None
    )


def run_error(error: Exception, model: str, hidden: Sequence[str] = ()) -> BackendError:
    """Return the error for a run that raised `error`; to be raised from it.

    Running out of memory, on the host or the device, and a lost device count as failures of the backend as
    a whole: the next input would meet them as well.
    """
    kind = BackendUnavailable if is_of_the_backend(error) else BackendError
    return kind(f"model '{model}' failed to run: {one_line(error, hidden)}")
