"""Runs a model on ONNX Runtime alone, without the gateway: the yardstick of speed and of results.

As a program it is the yardstick's process: it reads one JSON object a line and answers each with another:
{"model", "rows", "seconds"} with {"rows_per_s", "call_us", "row_cpu_us", "core_share"}; {"bytes", "seconds"},
for plain copies of memory, with {"call_us", "mb_per_s"}.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gateway.backends.onnxruntime.options import OnnxRuntimeOptions
from gateway.backends.onnxruntime.providers import CPU_PLAN
from gateway.backends.onnxruntime.session import Session, open_session, run_options

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

OPTIONS = OnnxRuntimeOptions(intra_op_threads=1)
"""The gateway under load is given the same: one thread, everything else its default."""


class DirectModel:
    """One session, opened by the gateway's own code with the gateway's own session options."""

    def __init__(self, path: Path) -> None:
        self._session: Session = open_session(path, OPTIONS, CPU_PLAN, (1, 1))
        self._run_options = run_options(OPTIONS, CPU_PLAN)
        self._input = self._session.get_inputs()[0]
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, rows: Floats) -> Floats:
        """Return the first output for `rows` of shape [n, features]."""
        answer: Floats = self._session.run(self._outputs, {self._input.name: rows}, self._run_options)[0]
        return answer

    def time_calls(self, rows: int, seconds: float) -> dict[str, float]:
        """Call with `rows` rows for so long, one call after the other.

        Returns:
            rows_per_s; call_us, the median call; row_cpu_us, the CPU time of a row; core_share, the share of
            the core that the calls got.
        """
        features = self._input.shape[1]
        assert isinstance(features, int)
        batch = np.random.default_rng(rows).random((rows, features), np.float32)
        times: list[float] = []
        cpu_s, started_s = time.process_time(), time.perf_counter()
        while (call_s := time.perf_counter()) < started_s + seconds:
            self.run(batch)
            times.append(time.perf_counter() - call_s)
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - started_s
        done = rows * len(times)
        return {
            "rows_per_s": done / wall_s,
            "call_us": median(times) * 1e6,
            "row_cpu_us": cpu_s / done * 1e6,
            "core_share": cpu_s / wall_s,
        }


def time_copies(size: int, seconds: float) -> dict[str, float]:
    """Copy `size` bytes from one place to another for so long, over and over.

    Returns:
        call_us, the median copy; mb_per_s, megabytes (10^6) copied in a second at that pace.
    """
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    times: list[float] = []
    started_s = time.perf_counter()
    while (call_s := time.perf_counter()) < started_s + seconds:
        np.copyto(target, source)
        times.append(time.perf_counter() - call_s)
    return {"call_us": median(times) * 1e6, "mb_per_s": size / median(times) / 1e6}


@dataclass(slots=True)
class DirectProcess:
    """The yardstick's process on a core of its own choosing, kept so that sessions are opened once."""

    core: int
    _process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        command = ["taskset", "-c", str(self.core), sys.executable, "-m", "loadtests.direct"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
        )
        return self

    def __exit__(self, *_: object) -> None:
        """End it: its input ends."""
        if self._process is not None:
            self._process.communicate(timeout=30)

    def measure(self, model: Path, rows: int, seconds: float) -> dict[str, float]:
        """Return what `DirectModel.time_calls` does.

        Raises:
            RuntimeError: the process is gone.
        """
        return self._asked({"model": str(model), "rows": rows, "seconds": seconds})

    def copies(self, size: int, seconds: float) -> dict[str, float]:
        """Return what `time_copies` does.

        Raises:
            RuntimeError: the process is gone.
        """
        return self._asked({"bytes": size, "seconds": seconds})

    def _asked(self, question: dict[str, object]) -> dict[str, float]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"the yardstick's process has ended, asked for {question}")
        answer: dict[str, float] = json.loads(line)
        return answer


def main() -> None:
    """Answer measurements until the input ends."""
    models: dict[str, DirectModel] = {}
    for line in sys.stdin:
        print(json.dumps(_answer(models, json.loads(line))), flush=True)


def _answer(models: dict[str, DirectModel], asked: dict[str, Any]) -> dict[str, float]:
    if "bytes" in asked:
        return time_copies(asked["bytes"], asked["seconds"])
    path = asked["model"]
    if path not in models:
        models[path] = DirectModel(Path(path))
        models[path].time_calls(asked["rows"], 0.1)
    return models[path].time_calls(asked["rows"], asked["seconds"])


if __name__ == "__main__":
    main()
