"""CPU time and memory of a process and everything below it, from /proc."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes, now and at most; shared pages count once in each process."""

    rss_bytes: int
    peak_bytes: int


def cpu_s(pid: int) -> float:
    """Return utime + stime of a process and its living descendants, and of those it has waited for."""
    ticks = _stat_fields()
    return sum(sum(map(int, ticks[child][11:15])) for child in _tree(pid, ticks)) / os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of one process, to the nanosecond: for short stretches.

    Linux makes the id of a process's clock from its pid (clock_getcpuclockid(3)); ticks, as `cpu_s` counts
    them, are 10 ms.
    """
    return time.clock_gettime((~pid << 3) | 2)


def side_threads_cpu_s(pid: int) -> float:
    """Return the CPU time of a process's threads but the main one, those that have ended left out."""
    total_ns = 0
    for task in Path("/proc", str(pid), "task").iterdir():
        if int(task.name) != pid:
            try:
                total_ns += int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
    return total_ns / 1e9


def memory(pid: int) -> Memory:
    """Return the memory of a process and its living descendants."""
    rss_bytes = peak_bytes = 0
    for child in _tree(pid, _stat_fields()):
        try:
            lines = (Path("/proc") / str(child) / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        fields = dict(line.split(":", 1) for line in lines)
        rss_bytes += int(fields.get("VmRSS", "0 kB").split()[0]) * _KIB
        peak_bytes += int(fields.get("VmHWM", "0 kB").split()[0]) * _KIB
    return Memory(rss_bytes, peak_bytes)


def _stat_fields() -> dict[int, list[str]]:
    """Return the fields of every process's stat that follow its name."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(stat.parent.name)] = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return found


def _tree(pid: int, fields: dict[int, list[str]]) -> list[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for child, stat in fields.items():
        children[int(stat[1])].append(child)
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found += [current] if current in fields else []
        todo += children[current]
    return found
