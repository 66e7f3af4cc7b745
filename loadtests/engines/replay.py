"""The replay as an engine: prepares the order, starts the process, reads its result."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from loadtests.arrivals import Closed, offsets_s
from loadtests.engines.job import EngineFailed, Job
from loadtests.open_inference import identified
from loadtests.peers.base import WireAnswer
from loadtests.replay.order import REQUEST_ID, Order
from loadtests.tally import Sample, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROOT: Final = Path(__file__).resolve().parents[2]
_ERROR_CHARACTERS: Final = 2000


@contextmanager
def run_replay(job: Job) -> Iterator[Callable[[], Tally]]:
    """Run the replay; see `Engine`."""
    order, result = job.folder / "replay.json", job.folder / "replay-result.json"
    result.unlink(missing_ok=True)
    _order(job).write(order)
    command = ["taskset", "-c", str(job.core), sys.executable, "-m", "loadtests.replay"]
    files = [str(order), str(result)]
    process = subprocess.Popen([*command, *files], cwd=_ROOT, stderr=subprocess.PIPE, text=True)

    def finished() -> Tally:
        said = process.communicate()[1]
        if process.returncode or not result.exists():
            raise EngineFailed(f"the replay failed: {said[-_ERROR_CHARACTERS:]}")
        return _tally(json.loads(result.read_text()), len(job.requests))

    try:
        yield finished
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _order(job: Job) -> Order:
    requests = job.requests
    if job.payload.ids:
        requests = [identified(job.protocol, request, REQUEST_ID) for request in requests]
    bodies = job.folder / "replay.bodies"
    bodies.write_bytes(b"".join(request.body for request in requests))
    loop = job.arrival if isinstance(job.arrival, Closed) else None
    http = job.protocol.startswith("http")
    connections = job.arrival.connections if loop is None else loop.connections_for(http=http)
    return Order(
        protocol=job.protocol,
        host=job.address[0],
        port=job.address[1],
        path=requests[0].path,
        headers=[[f"{name}: {value}" for name, value in request.headers] for request in requests],
        bodies=str(bodies),
        lengths=[len(request.body) for request in requests],
        connections=connections,
        in_flight=0 if loop is None else loop.in_flight,
        offsets="" if loop is not None else _schedule(job),
        seconds=job.seconds,
        ids=job.payload.ids,
        deadlines=job.payload.deadlines,
        traceparent=job.payload.traceparent,
        client=job.payload.client or "grpcio",
    )


def _schedule(job: Job) -> str:
    path = job.folder / "replay-offsets.npy"
    try:
        np.save(path, offsets_s(job.arrival, job.seconds))
    except ValueError as exc:
        raise EngineFailed(str(exc)) from exc
    return str(path)


def _tally(result: dict[str, Any], distinct: int) -> Tally:
    samples = tuple(
        Sample(number % distinct, WireAnswer(headers, base64.b64decode(body)))
        for number, headers, body in result.pop("samples")
    )
    problems = tuple(result.pop("problems"))
    return Tally(**result, problems=problems, samples=samples)
