"""Ends a gateway under load: politely, rudely, and by force with a restart."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtests.soak_http import HttpConnection
from loadtests.soak_load import Load, Target, http_infer
from loadtests.soak_models import small_repository
from loadtests.soak_server import GatewayProcess, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtests.soak_load import Tally

LAME_DUCK_S = 0.5
"""Every other end has this wait for load balancers, the others none."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a gateway ended, and what became of its last requests."""

    exit_code: int
    tally: Tally


async def terminate_under_load(server: GatewayProcess, warm_up: int = 200) -> Ending:
    """Send SIGTERM amid requests, and wait until the process and every client has ended."""
    async with Load(Target(server.http_port, server.grpc_port)) as load:
        await load.tally.answered(warm_up)
        server.terminate()
        await load.gone()
        return Ending(await server.ended(), load.tally)


async def terminate_twice(server: GatewayProcess) -> int:
    """Hold a request open, so that the first SIGTERM waits for it; return the exit code of the second."""
    async with HttpConnection(server.http_port) as connection:
        connection.writer.write(http_infer((0.0,) * 4)[:-1])
        await connection.writer.drain()
        server.terminate()
        await asyncio.to_thread(server.wait_for_log, "a second signal stops at once")
        server.terminate()
        return await server.ended(timeout_s=10.0)


async def kill_under_load(server: GatewayProcess, warm_up: int = 200) -> Tally:
    """Send SIGKILL amid requests; every answer that came must still have been right and whole."""
    async with Load(Target(server.http_port, server.grpc_port)) as load:
        await load.tally.answered(warm_up)
        server.kill()
        await load.gone()
        await server.ended()
        return load.tally


@contextmanager
def served(mode: str = "none", **server: Any) -> Iterator[tuple[GatewayProcess, Path]]:
    """Run a gateway with the small models in a directory of its own; gives it and the directory."""
    directory = Path(tempfile.mkdtemp())
    try:
        config = settings(small_repository(directory), mode, **server)
        with GatewayProcess(config, directory) as process:
            yield process, directory
    finally:
        shutil.rmtree(directory)


def terminations(count: int) -> list[Ending]:
    """Start a gateway and send it SIGTERM under load, `count` times."""
    endings = []
    for number in range(count):
        with served(shutdown={"lame_duck_s": number % 2 * LAME_DUCK_S}) as (server, _directory):
            endings.append(asyncio.run(terminate_under_load(server)))
    return endings
