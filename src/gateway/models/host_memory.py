"""How much memory this process may take: its control group's limit, else the machine's memory. Blocking."""

from __future__ import annotations

from pathlib import Path
from typing import Final

AUTO_SHARE: Final = 0.8
"""Of the memory there is, for models: the rest is for requests, activations, and Python itself."""
_ROOT: Final = Path("/")


def automatic_limit(root: Path = _ROOT) -> int | None:
    """Return the bytes that models may hold in main memory under the limit `auto`; None if nothing is known.

    Args:
        root: where `proc` and `sys` are.
    """
    found = [nbytes for nbytes in (_machine(root), *_control_groups(root)) if nbytes]
    return int(min(found) * AUTO_SHARE) if found else None


def _machine(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) << 10
    return None


def _control_groups(root: Path) -> list[int]:
    """Return the limits of this process's group and those around it, of control groups version 1 and 2."""
    limits: list[int] = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = Path(path.strip("/"))
        # In a container the path may be that of the host, and the group's files lie at the top.
        for place in (group, *group.parents):
            limits += [int(text) for text in _lines(top / place / name) if text.isdigit()]
    return limits


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
