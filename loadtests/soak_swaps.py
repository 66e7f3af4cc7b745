"""Swaps model versions under load: by a watched repository, and by explicit loads."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.soak_http import fetch
from loadtests.soak_load import Target, under_load
from loadtests.soak_models import OFFSET, offset_model, publish, small_repository, withdraw
from loadtests.soak_server import GatewayProcess, settings

if TYPE_CHECKING:
    from loadtests.soak_load import Tally


async def swap(server: GatewayProcess, repository: Path, count: int, period_s: float = 0.0) -> Tally:
    """Replace the version under load `count` times, each as soon as the last one answers.

    Args:
        server: serves `repository` in mode poll or explicit.
        repository: holds the newest version only, before and after.
        count: how many swaps.
        period_s: least time from one swap to the next.

    Returns:
        What became of the requests; a swap counts when its version has answered.
    """
    explicit = server.mode == "explicit"
    versions = sorted(int(path.name) for path in (repository / OFFSET).iterdir())
    async with under_load(Target(server.http_port, server.grpc_port)) as tally:
        await tally.reached(str(versions[-1]))
        for version in range(versions[-1] + 1, versions[-1] + 1 + count):
            began_s = time.monotonic()
            publish(repository, OFFSET, version, offset_model(version))
            if explicit:
                await _load(server.http_port, tally)
            await tally.reached(str(version))
            withdraw(repository, OFFSET, version - 1)
            await asyncio.sleep(max(0.0, began_s + period_s - time.monotonic()))
    return tally


async def _load(http_port: int, tally: Tally) -> None:
    answer = await fetch(http_port, "POST", f"/v2/repository/models/{OFFSET}/load")
    if answer.status != 200:
        tally.problem(f"load answered {answer.status}: {answer.error}")


def run_swaps(mode: str, count: int, period_s: float) -> Tally:
    """Swap versions of a gateway of its own in repository mode `poll` or `explicit`."""
    directory = Path(tempfile.mkdtemp())
    try:
        repository = small_repository(directory)
        with GatewayProcess(settings(repository, mode), directory) as server:
            return asyncio.run(swap(server, repository, count, period_s))
    finally:
        shutil.rmtree(directory)
