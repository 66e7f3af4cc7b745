"""Count the processors this process may really use: affinity mask and cgroup quotas, versions 1 and 2."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT: Final = Path("/")


def usable_cpus(root: Path = _ROOT, *, affinity: int | None = None) -> int:
    """Return how many processors' worth of time this process gets, at least 1, fractions rounded up.

    ONNX Runtime's own default counts the machine's cores and ignores quotas: in a container of 2 CPUs on a
    64-core host it starts 64 threads, which the kernel then throttles.

    Args:
        root: where `/proc` and `/sys` are found.
        affinity: processors in the affinity mask; None asks the kernel.
    """
    allowed = affinity if affinity is not None else len(os.sched_getaffinity(0))
    quotas = [quota for quota in (*_quotas_v2(root), *_quotas_v1(root)) if quota > 0]
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas)]))


def _quotas_v2(root: Path) -> Iterator[float]:
    """Every ancestor's limit counts: the tightest of them is in force."""
    for group in _groups(root, ""):
        for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
            for folder in _up(root / mount, group):
                words = _read(folder / "cpu.max").split()
                if len(words) == 2 and words[0] != "max":
                    yield _ratio(words[0], words[1])


def _quotas_v1(root: Path) -> Iterator[float]:
    for group in _groups(root, "cpu"):
        for mount in ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"):
            for folder in _up(root / mount, group):
                quota = _read(folder / "cpu.cfs_quota_us")
                yield _ratio(quota, _read(folder / "cpu.cfs_period_us"))


def _groups(root: Path, controller: str) -> Iterator[str]:
    """Yield this process's groups under a controller; "" is version 2's single hierarchy."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            yield path


def _up(mount: Path, group: str) -> Iterator[Path]:
    """Yield the group's folder and its ancestors; inside a container perhaps only the mount exists."""
    parts = [part for part in group.split("/") if part not in {"", ".."}]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _ratio(quota: str, period: str) -> float:
    try:
        return float(quota) / float(period)
    except (ValueError, ZeroDivisionError):
        return 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
