"""Sends requests at fixed times from a process of its own, and says of each what became of it.

Run as `python -m loadtests.soak_registry_load PORT RATE`; ends when its standard input does. No answer
changes when a request is sent. Prints one line per request, JSON: when it was sent in wall-clock seconds, how
many seconds its answer took, the version that gave it or what was wrong with it, and how late it was sent.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import struct
import sys
import time
from collections import deque
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from loadtests.soak_http import HttpAnswer, HttpConnection, NoAnswer
from loadtests.soak_load import http_infer
from loadtests.soak_models import WIDTH

CONNECTIONS: Final = 64
"""Taken in turn, so that none is idle for long; enough for answers that take a third of a second."""
_FLOATS: Final = struct.Struct(f"<{WIDTH}f")


class Sent(NamedTuple):
    """One request.

    Attributes:
        at_s: when it was sent, wall-clock seconds since the epoch.
        took_s: until its answer was here.
        version: which gave it; empty when it is wrong or there is none.
        problem: what is wrong.
        late_s: how much later it was sent than was planned.
    """

    at_s: float
    took_s: float
    version: str
    problem: str
    late_s: float


async def offer(port: int, rate: float, ended: asyncio.Event) -> list[Sent]:
    """Send `rate` requests a second until `ended` is set, then wait for the answers."""
    found: list[Sent] = []
    chance = random.Random(0)
    async with AsyncExitStack() as stack:
        idle = deque([await stack.enter_async_context(HttpConnection(port)) for _ in range(CONNECTIONS)])
        free = asyncio.Semaphore(CONNECTIONS)
        began_s, count = time.perf_counter(), 0
        async with asyncio.TaskGroup() as group:
            while not ended.is_set():
                due_s = began_s + count / rate
                count += 1
                if (ahead_s := due_s - time.perf_counter()) > 0:
                    await asyncio.sleep(ahead_s)
                await free.acquire()
                values = tuple(float(chance.randrange(1 << 20)) for _ in range(WIDTH))
                group.create_task(_ask(idle, free, values, due_s, found))
    return found


async def _ask(
    idle: deque[HttpConnection],
    free: asyncio.Semaphore,
    values: tuple[float, ...],
    due_s: float,
    found: list[Sent],
) -> None:
    connection = idle.popleft()
    at_s, began_s = time.time(), time.perf_counter()
    try:
        version, problem = judged(values, await connection.exchange(http_infer(values)))
    except (NoAnswer, OSError) as error:
        version, problem = "", f"no answer: {error}"
    found.append(Sent(at_s, time.perf_counter() - began_s, version, problem, began_s - due_s))
    idle.append(connection)
    free.release()


def judged(values: tuple[float, ...], answer: HttpAnswer) -> tuple[str, str]:
    """Return the version that answered as that version should; else an empty one and what is wrong."""
    if answer.status != 200:
        return "", f"HTTP {answer.status}: {answer.error}"
    split = int(answer.headers["inference-header-content-length"])
    version = str(json.loads(answer.body[:split])["model_version"])
    got = answer.body[split:]
    if got != _FLOATS.pack(*(value + float(version) for value in values)):
        return "", f"version {version} answered {got.hex()} to {values}"
    return version, ""


async def _main(port: int, rate: float) -> None:
    ended = asyncio.Event()

    def end() -> None:
        asyncio.get_running_loop().remove_reader(sys.stdin)
        ended.set()

    asyncio.get_running_loop().add_reader(sys.stdin, end)
    found = await offer(port, rate, ended)
    for sent in found:
        print(json.dumps(sent))


if __name__ == "__main__":
    gc.disable()  # a collection would be seen as latency
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2])))
