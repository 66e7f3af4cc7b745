"""The monitor beside a gateway: a process of its own that is started again whenever it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, Self

from gateway.core.background import give_way

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path
    from types import TracebackType

_log = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""Who ran so long is started again after the first pause."""
LESS_NICE: Final = 5
"""Added to its niceness: where processors are scarce, a third of the gateway's claim to them. Not less: what
it does seldom and at once, a checkpoint, must not take minutes beside a gateway that has all hands full."""
GRACE_S: Final = 10.0
"""For the last checkpoint."""


def monitor_command(config: Path) -> tuple[str, ...]:
    """Return the command that runs the monitor until its standard input ends."""
    return (sys.executable, "-m", "gateway", "monitor", "serve", "--config", str(config), "--end-with-input")


class MonitorProcess:
    """Keeps the monitor running while entered; leaving ends it with SIGTERM, then SIGKILL.

    It ends with this process however that ends: its standard input is a pipe that only we hold. It is in a
    session of its own, so that Ctrl-C reaches the gateway alone, which ends it after its own last rows.

    Args:
        command: to run.
        pause: waits between attempts.

    Attributes:
        starts: how often it was started.
    """

    def __init__(
        self, command: Sequence[str], pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.starts = 0
        self._command = tuple(command)
        self._pause = pause
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start it."""
        self._task = asyncio.create_task(self._keep(), name="monitor process")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _keep(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = time.monotonic()
            code = await self._run()
            if time.monotonic() - began_s >= STEADY_S:
                pause_s = FIRST_PAUSE_S
            _log.error("the monitor ended; starting it again", extra={"code": code, "in_s": pause_s})
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _run(self) -> int | str:
        """Run it once; cancelling ends it."""
        self.starts += 1
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=subprocess.PIPE,
                # Standard output may be promised to one JSON line.
                stdout=sys.stderr.fileno(),
                start_new_session=True,
            )
        except OSError as exc:
            return str(exc)
        give_way(process.pid, LESS_NICE)
        try:
            return await process.wait()
        except asyncio.CancelledError:
            await _ended(process)
            raise


async def _ended(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(GRACE_S):
            await process.wait()
    except TimeoutError:
        _log.warning("the monitor did not end in time and is killed", extra={"grace_s": GRACE_S})
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
