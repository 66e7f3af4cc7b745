"""The monitor's process beside a gateway: started again when it ends, and ended with it."""
# ruff: noqa: ASYNC110, ASYNC220, ASYNC240  other processes leave files: there is nothing else to wait for

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from gateway.commands.serve_monitor import MonitorProcess

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import os, pathlib, signal, sys
def end(*_):
    pathlib.Path(sys.argv[1], "ended").write_text("by SIGTERM")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1], f"{os.getpid()}.pid").touch()
while os.read(0, 1):
    pass
pathlib.Path(sys.argv[1], "ended").write_text("with its input")
"""


async def appeared(directory: Path, pattern: str, count: int = 1) -> list[Path]:
    """Wait for files."""
    async with asyncio.timeout(30):
        while len(found := sorted(directory.glob(pattern))) < count:
            await asyncio.sleep(0.01)
    return found


async def test_it_is_started_again_and_ended_with_sigterm(tmp_path: Path) -> None:
    """Killed, it comes back after a pause; leaving ends the second one politely."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async with MonitorProcess([sys.executable, "-c", PROGRAM, str(tmp_path)], pause):
        (first,) = await appeared(tmp_path, "*.pid")
        os.kill(int(first.stem), signal.SIGKILL)
        await appeared(tmp_path, "*.pid", 2)
    assert (tmp_path / "ended").read_text() == "by SIGTERM"
    assert pauses == [0.5]


async def test_pauses_grow_while_it_cannot_run() -> None:
    """A program that is not there is tried again ever more seldom, up to a bound."""
    pauses: list[float] = []
    enough = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            enough.set()
            await asyncio.Event().wait()

    async with MonitorProcess(["/nowhere/at/all"], pause):
        await enough.wait()
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


async def test_it_ends_when_the_gateway_is_killed(tmp_path: Path) -> None:
    """Its standard input is a pipe that only the gateway holds."""
    keeper = f"""
import asyncio, sys
from gateway.commands.serve_monitor import MonitorProcess
async def main():
    async with MonitorProcess([sys.executable, "-c", {PROGRAM!r}, {str(tmp_path)!r}]):
        await asyncio.Event().wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", keeper]) as gateway:
        await appeared(tmp_path, "*.pid")
        gateway.kill()
    (ended,) = await appeared(tmp_path, "ended")
    async with asyncio.timeout(30):
        while not (text := ended.read_text()):
            await asyncio.sleep(0.01)
    assert text == "with its input"
