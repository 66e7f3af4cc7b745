"""What a measurement ran on: the machine, its software, and how much of each core went elsewhere."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from gateway.commands.version import is_compiled

_PACKAGES = ("grpcio", "numpy", "onnxruntime", "uvicorn", "uvloop")


@dataclass(frozen=True, slots=True)
class CoreTime:
    """Seconds one core has spent since boot: running anything, taken away by the host, doing nothing."""

    busy_s: float
    steal_s: float
    idle_s: float

    def since(self, before: CoreTime) -> CoreTime:
        """Return what was spent between `before` and this."""
        return CoreTime(
            self.busy_s - before.busy_s, self.steal_s - before.steal_s, self.idle_s - before.idle_s
        )


def core_time(core: int) -> CoreTime:
    """Read one core's line of /proc/stat.

    Raises:
        LookupError: there is no such core.
    """
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, idle, iowait, irq, softirq, steal = (
                int(field) / os.sysconf("SC_CLK_TCK") for field in fields[:8]
            )
            return CoreTime(user + nice + system + irq + softirq, steal, idle + iowait)
    raise LookupError(f"no core {core} in /proc/stat")


def describe() -> dict[str, object]:
    """Return what a reader needs to judge the figures: processor, kernel, versions, commit.

    `compiled` is true of gateways that are started with this process's own package.
    """
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [
        line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "commit": _commit(),
        "compiled": is_compiled(),
        "load_average": os.getloadavg(),
    }


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
