"""Run the inspection of a model file in a child process, bounded in time and memory."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from dataclasses import dataclass
from subprocess import DEVNULL, PIPE, Popen
from typing import TYPE_CHECKING, Final

from gateway.backends.onnxruntime.graph import GraphReport, decode
from gateway.core.background import MOST, give_way
from gateway.core.errors import ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.core.types import Artifact

_MODULE: Final = "gateway.backends.onnxruntime.inspection"
_REFUSED_STATUS: Final = 3
# A parsed file takes its bytes twice (as read, as messages) and protobuf a little more; the interpreter with
# numpy and onnx maps under 1 GiB of address space.
_BASE_MEMORY_BYTES: Final = 2 << 30
_MEMORY_PER_FILE_BYTE: Final = 4


@dataclass(frozen=True, slots=True)
class InspectionLimits:
    """Bounds and allowances of one inspection.

    Attributes:
        allow_custom_ops: let operators of unknown domains through.
        max_model_bytes: largest file plus external data; 0 for no limit.
        timeout_s: seconds the child process may take.
        overridable: initializers that callers may override.
    """

    allow_custom_ops: bool = False
    max_model_bytes: int = 0
    timeout_s: float = 60.0
    overridable: tuple[str, ...] = ()


async def inspect_file(artifact: Artifact, limits: InspectionLimits) -> GraphReport:
    """Inspect the artifact's model file.

    The file may still change between this and its loading; whoever writes into the version directory is
    trusted not to do that, and the session's own signature is compared with the report afterwards.
    Cancellation kills the child process.

    Raises:
        ModelLoadError: the file must not be loaded, with the reason; or the inspection itself failed.
    """
    child = _Child()
    running = asyncio.ensure_future(asyncio.to_thread(child.run, artifact, limits))
    try:
        async with asyncio.timeout(limits.timeout_s):
            status, text, errors = await asyncio.shield(running)
    except TimeoutError:
        raise ModelLoadError(f"inspecting the file took more than {limits.timeout_s:g} s") from None
    finally:
        child.stop()
        await asyncio.wait([running])
    if status == _REFUSED_STATUS:
        raise ModelLoadError(text.decode())
    return _report(status, text, errors)


class _Child:
    """One child process, started and read by a worker thread, stopped from any.

    The event loop must not start it: uvloop forks, which stalled the loop 25 ms in a process of 660 MB
    (page tables are copied), while `subprocess` uses vfork and stalls nobody but its own thread.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._process: Popen[bytes] | None = None
        self._stopped = False

    def run(self, artifact: Artifact, limits: InspectionLimits) -> tuple[int, bytes, bytes]:
        """Run the inspection; return exit status, standard output and standard error."""
        # -P: a model directory that happens to be the working directory must not supply modules.
        command = (sys.executable, "-P", "-m", _MODULE, _request(artifact, limits))
        with self._guard:
            if self._stopped:
                return -1, b"", b"stopped before it began"
            self._process = Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)  # noqa: S603 - our own module
        give_way(self._process.pid, MOST)
        with self._process as process:
            text, errors = process.communicate()
        return process.returncode, text, errors

    def stop(self) -> None:
        """Kill the process if it runs, and let it not begin if it does not."""
        with self._guard:
            self._stopped = True
            if self._process is not None:
                self._process.kill()


def _request(artifact: Artifact, limits: InspectionLimits) -> str:
    request = {
        "directory": str(artifact.directory),
        "model_file": str(artifact.model_file),
        "allow_custom_ops": limits.allow_custom_ops,
        "max_model_bytes": limits.max_model_bytes,
        "max_memory_bytes": _BASE_MEMORY_BYTES + _MEMORY_PER_FILE_BYTE * _size(artifact.model_file),
        "overridable": limits.overridable,
    }
    return json.dumps(request)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _report(status: int, text: bytes, errors: bytes) -> GraphReport:
    try:
        if status == 0:
            return decode(text)
    except ValueError as error:
        raise ModelLoadError("inspecting the file gave no readable answer") from error
    # The last line of a traceback names the exception; a killed child (out of memory) has none.
    last = errors.decode(errors="replace").strip().rpartition("\n")[2]
    raise ModelLoadError(f"inspecting the file failed (status {status}): {last or 'the process was killed'}")
