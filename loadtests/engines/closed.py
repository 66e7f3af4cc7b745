"""wrk and h2load as engines: closed loops of one repeated request, at the least cost per request."""

from __future__ import annotations

import json
import math
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from loadtests.engines.job import EngineFailed, Job
from loadtests.generators import (
    MissingGenerator,
    Target,
    ensure_installed,
    h2load,
    h2load_load,
    wrk,
    wrk_load,
)
from loadtests.open_inference import framed
from loadtests.requests_on_file import RequestFile
from loadtests.tally import QUANTILES, Tally, quantiles_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LEAST_SHARE = 0.9
"""Of a good answer's size that the mean answer must have: h2load sees no gRPC status; failures are short."""


@contextmanager
def run_wrk(job: Job) -> Iterator[Callable[[], Tally]]:
    """Run wrk; see `Engine`."""
    _ensure_installed()
    request = _on_file(job, job.requests[0].body, job.requests[0].headers)
    target = Target(job.url, request, job.core)
    with wrk(target, job.arrival.in_flight, math.ceil(job.seconds)) as process:
        yield lambda: wrk_tally(process.communicate()[0])


def wrk_tally(output: str) -> Tally:
    """Read what post.lua printed.

    Raises:
        EngineFailed: it printed no figures.
    """
    try:
        load = wrk_load(output)
    except ValueError as exc:
        raise EngineFailed(str(exc)) from exc
    printed = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    latency_ms = {name: printed[f"{name}_us"] / 1e3 for name in QUANTILES}
    return Tally(
        due=load.requests,
        good=load.requests - load.failed,
        seconds=load.seconds,
        latency_ms=latency_ms,
        failed=load.failed,
        problems=(f"wrk counted {load.failed} failures",) if load.failed else (),
    )


@contextmanager
def run_h2load(job: Job) -> Iterator[Callable[[], Tally]]:
    """Run h2load; see `Engine`."""
    _ensure_installed()
    grpc_headers = (*job.requests[0].headers, ("content-type", "application/grpc"), ("te", "trailers"))
    request = _on_file(job, framed(job.requests[0].body), grpc_headers)
    loop, log = job.arrival, job.folder / "h2load.log"
    connections = loop.connections_for(http=False)
    target = Target(job.url, request, job.core)
    with h2load(target, loop.in_flight, math.ceil(job.seconds), log, connections) as process:
        yield lambda: h2load_tally(process.communicate()[0], log, job.answer_bytes + 5)


def h2load_tally(output: str, log: Path, answer_bytes: int) -> Tally:
    """Read h2load's summary and log.

    Args:
        output: what it printed.
        log: its line per request.
        answer_bytes: size of a good answer, its prefix included.

    Raises:
        EngineFailed: there are no figures.
    """
    try:
        load = h2load_load(output, log)
    except ValueError as exc:
        raise EngineFailed(str(exc)) from exc
    lines = np.loadtxt(log, dtype=np.int64, ndmin=2)
    good = load.requests - load.failed
    problems = [f"h2load counted {load.failed} failures"] if load.failed else []
    received = re.search(r"\((\d+)\) data", output)
    if received is None or int(received[1]) < good * answer_bytes * _LEAST_SHARE:
        problems.append(f"h2load received {received[1] if received else 'no'} bytes in {good} answers")
    return Tally(
        due=load.requests,
        good=good,
        seconds=load.seconds,
        latency_ms=quantiles_ms(lines[lines[:, 1] == 200, 2] / 1e6),
        failed=max(load.failed, len(problems)),
        problems=tuple(problems),
    )


def _ensure_installed() -> None:
    try:
        ensure_installed()
    except MissingGenerator as exc:
        raise EngineFailed(str(exc)) from exc


def _on_file(job: Job, body: bytes, headers: tuple[tuple[str, str], ...]) -> RequestFile:
    path = job.folder / "request.body"
    path.write_bytes(body)
    return RequestFile(path, tuple(f"{name}: {value}" for name, value in headers))
