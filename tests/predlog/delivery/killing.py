"""Kill a process that delivers, and stop the monitor under it, and see what became of every row."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.predlog.delivery.monitor_server import MonitorServer, unix_address

ROOT = Path(__file__).parents[3]


@dataclass
class Tally:
    """What was found.

    Attributes:
        kills: of the delivering process.
        stops: of the monitor.
        rows: that the monitor has, each counted once.
        copies: frames that reached it more than once.
        faults: sentences; none, if all is well.
    """

    kills: int = 0
    stops: int = 0
    rows: int = 0
    copies: int = 0
    faults: list[str] = field(default_factory=list)


def kill_many(directory: Path, kills: int, seed: int) -> Tally:
    """Let processes live one after the other in one directory, kill each, and end the last one well."""
    chance, tally = random.Random(seed), Tally()
    monitor = MonitorServer(unix_address(directory))
    monitor.start()
    told: list[dict[str, Any]] = []
    try:
        for _ in range(kills):
            told.append(_live(directory, monitor, chance, tally))
            tally.kills += 1
        last = _end_well(directory, monitor)
    finally:
        monitor.stop()
    tally.rows = sum(monitor.rows.values())
    tally.copies = monitor.copies - len(monitor.rows)
    _compare(monitor, told, last, tally)
    return tally


def _live(directory: Path, monitor: MonitorServer, chance: random.Random, tally: Tally) -> dict[str, Any]:
    """Return what a process told last before it was killed."""
    with _process(directory, monitor) as process:
        assert process.stdout is not None
        told: dict[str, Any] = {}
        for number in range(chance.randint(1, 40)):
            told = json.loads(process.stdout.readline())
            if number % 13 == 12:
                monitor.stop()
                monitor.start()
                tally.stops += 1
        process.kill()
        for line in process.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):
                told = json.loads(line)
    return told


def _end_well(directory: Path, monitor: MonitorServer) -> dict[str, Any]:
    with _process(directory, monitor) as process:
        assert process.stdout is not None
        process.stdout.readline()
        out, _ = process.communicate("end\n", timeout=60)
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


def _process(directory: Path, monitor: MonitorServer) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.predlog.delivery.shipping", str(directory), monitor.address]
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _compare(monitor: MonitorServer, told: list[dict[str, Any]], last: dict[str, Any], tally: Tally) -> None:
    """See that what a process had on disk, or acknowledged, is there; and nothing is left."""
    received: dict[int, int] = {}
    for (epoch, _), rows in monitor.rows.items():
        received[epoch] = received.get(epoch, 0) + rows
    for one in told:
        safe = one["applied"] + one["spooled_rows"]
        there = received.get(one["epoch"], 0)
        if there < safe:
            tally.faults.append(f"epoch {one['epoch']}: {safe} rows were safe, {there} are there")
        if one["put"] != one["applied"] + one["spooled_rows"] + one["memory_rows"]:
            tally.faults.append(f"epoch {one['epoch']}: {one}")
    epochs = [one["epoch"] for one in [*told, last]]
    if epochs != sorted(set(epochs)):
        tally.faults.append(f"epochs do not grow: {epochs}")
    left = last["memory_rows"] + last["spooled_rows"] + last["earlier_spooled"]
    if left or last["dropped"] or last["earlier_dropped"] or last["put"] != last["applied"]:
        tally.faults.append(f"at the end: {last}")
    if last["recovered_rows"] != last["earlier_applied"]:
        tally.faults.append(f"recovered and not applied: {last}")
