"""Looks for leaks of memory, descriptors and threads over many requests, some cancelled or broken off."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc.aio
import numpy as np

from loadtests.soak_grpc import channel, unary
from loadtests.soak_http import HttpConnection, NoAnswer, fetch
from loadtests.soak_load import grpc_infer, http_infer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.soak_server import GatewayProcess, Usage

_CLIENTS: Final = 4  # of each protocol
_SAMPLES: Final = 20
_WARM_UP: Final = 20_000  # requests: pools and caches fill once, and allocators come to rest
_ROW: Final = (1.0, 2.0, 3.0, 4.0)


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What the process held on the way.

    Attributes:
        sent: requests.
        growth_bytes_per_100k: slope of resident memory over the second half, bytes per 100,000 requests.
        fds: descriptors more at the end than at the start, all clients gone.
        threads: threads more, likewise.
    """

    sent: int
    growth_bytes_per_100k: float
    fds: int
    threads: int


async def leaks(server: GatewayProcess, requests: int, seed: int = 0) -> LeakReport:
    """Send requests in `_SAMPLES` rounds, with new connections in each, and look after each round."""
    share = max(1, requests // _SAMPLES // (2 * _CLIENTS))
    chance = random.Random(seed)
    await _round(server, _WARM_UP // (2 * _CLIENTS), chance)
    before = await _settled_usage(server)
    samples = []
    for _ in range(_SAMPLES):
        await _round(server, share, chance)
        samples.append((await _settled_usage(server)).rss_bytes)
    after = await _settled_usage(server)
    per_round = share * 2 * _CLIENTS
    return LeakReport(
        sent=per_round * _SAMPLES,
        growth_bytes_per_100k=slope(samples[_SAMPLES // 2 :]) / per_round * 100_000,
        fds=after.fds - before.fds,
        threads=after.threads - before.threads,
    )


async def _round(server: GatewayProcess, share: int, chance: random.Random) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(_http(server.http_port, share, chance))
            group.create_task(_rpc(server.grpc_port, share, chance))


async def _settled_usage(server: GatewayProcess) -> Usage:
    """Return what is held once the server has seen every client go: an answer that comes after says so."""
    for port in (server.http_port, server.metrics_port):
        await fetch(port, "GET", "/metrics")
    return server.usage()


async def _http(port: int, count: int, chance: random.Random) -> None:
    """Send requests over HTTP; one in twenty drops its connection before the answer, or in its own middle."""
    left = count
    while left > 0:
        async with HttpConnection(port) as connection:
            while left > 0:
                left -= 1
                data = http_infer(_ROW)
                if chance.random() < 0.05:
                    connection.writer.write(data[: chance.choice((len(data), len(data) // 2))])
                    break
                try:
                    await connection.exchange(data)
                except NoAnswer:
                    break


async def _rpc(port: int, count: int, chance: random.Random) -> None:
    """Send requests over gRPC; one in twenty is cancelled on its way."""
    async with channel(port) as over:
        infer = unary(over)
        for _ in range(count):
            call = infer(grpc_infer(_ROW))
            if chance.random() < 0.05:
                call.cancel()
            try:
                await call
            except asyncio.CancelledError:
                if not call.cancelled():
                    raise
            except grpc.aio.AioRpcError:
                break


def slope(values: Sequence[int]) -> float:
    """Return the growth per step, by least squares."""
    growth, _ = np.polyfit(np.arange(len(values)), np.asarray(values, np.float64), 1)
    return float(growth)
