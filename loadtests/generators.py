"""Starts wrk and h2load and reads their figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtests.requests_on_file import RequestFile

_PACKAGES: Final = {"wrk": "wrk", "h2load": "nghttp2-client", "taskset": "util-linux"}
_GRPC_CONNECTIONS: Final = 8
"""Most gRPC connections: a channel of a client carries many calls, so beyond 8 in flight they share."""


@dataclass(frozen=True, slots=True)
class Load:
    """Figures of one run of a generator; `failed` counts what it could see: no answer, or an HTTP status."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send a load and from which core."""

    url: str
    request: RequestFile
    core: int


class MissingGenerator(Exception):
    """A generator is not installed and cannot be; the message says what to do."""


def ensure_installed() -> None:
    """Install what is missing with apt-get when that is possible.

    Raises:
        MissingGenerator: not root, no apt-get, or it failed.
    """
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    advice = f"install {' '.join(missing)} (Debian's names), then run this again"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingGenerator(f"{advice}: this user cannot")
    print(f"installing {' '.join(missing)} ...", flush=True)
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-qq", "-y", *missing]):
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise MissingGenerator(f"{advice}: {' '.join(command)} failed")


@contextmanager
def wrk(target: Target, concurrency: int, seconds: int) -> Iterator[subprocess.Popen[str]]:
    """Run a closed loop over HTTP/1.1, a connection for each request in flight; read with `wrk_load`."""
    script = str(Path(__file__).with_name("post.lua"))
    command = ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "--timeout", "30s", "-s", script]
    with _started(
        target, [*command, target.url, "--", str(target.request.path), *target.request.headers]
    ) as p:
        yield p


def wrk_load(output: str) -> Load:
    """Read what post.lua printed.

    Raises:
        ValueError: it printed no figures.
    """
    line = next((line for line in output.splitlines() if line.startswith("{")), None)
    if line is None:
        raise ValueError(f"wrk printed no figures: {output}")
    figures = json.loads(line)
    return Load(
        figures["requests"],
        figures["duration_us"] / 1e6,
        figures["p50_us"] / 1e3,
        figures["p99_us"] / 1e3,
        figures["errors"],
    )


@contextmanager
def h2load(
    target: Target, concurrency: int, seconds: int, log: Path, connections: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """Run a closed loop over HTTP/2, over 8 connections at most if 0; read with `h2load_load`."""
    connections = connections or min(concurrency, _GRPC_CONNECTIONS)
    shape = [f"-c{connections}", f"-m{concurrency // connections}", f"-D{seconds}"]
    with _started(target, [*_h2load(target.request, log), *shape, target.url]) as process:
        yield process


@contextmanager
def h2load_at(target: Target, offsets_s: Sequence[float], log: Path) -> Iterator[subprocess.Popen[str]]:
    """Send requests at given times on one connection, however slow the answers; read with `h2load_load`.

    Each gap comes out up to a millisecond too long, so the rate is what the result says, not what was asked.

    Args:
        target: where to.
        offsets_s: when, ascending, from the start.
        log: written by h2load, a line per request.
    """
    script = log.with_suffix(".times")
    script.write_text("".join(f"{offset * 1e3:.3f}\t{target.url}\n" for offset in offsets_s))
    shape = ["-c1", "-m4096", f"-n{len(offsets_s)}", f"--timing-script-file={script}"]
    with _started(target, [*_h2load(target.request, log), *shape]) as process:
        yield process


def _h2load(request: RequestFile, log: Path) -> list[str]:
    log.unlink(missing_ok=True)
    headers = [f"--header={header}" for header in request.headers]
    return ["h2load", "-t1", f"--log-file={log}", f"--data={request.path}", *headers]


def h2load_load(output: str, log: Path) -> Load:
    """Read h2load's summary and its log: start in microseconds, status, microseconds taken.

    Raises:
        ValueError: it printed no figures, or answered nothing.
    """
    summary = re.search(r"requests: .* (\d+) failed, (\d+) errored, (\d+) timeout", output)
    finished = re.search(r"finished in ([\d.]+)(ms|s),", output)
    if summary is None or finished is None or not log.exists() or not log.stat().st_size:
        raise ValueError(f"h2load printed no figures: {output}")
    lines = np.loadtxt(log, dtype=np.int64, ndmin=2)
    seconds = float(finished[1]) / (1000 if finished[2] == "ms" else 1)
    p50_us, p99_us = np.percentile(lines[:, 2], [50, 99])
    failed = max(int(summary[1]), int(np.count_nonzero(lines[:, 1] != 200)))
    return Load(len(lines), seconds, float(p50_us) / 1e3, float(p99_us) / 1e3, failed)


@contextmanager
def _started(target: Target, command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Lend a generator on its core; killed if it still runs at the end of the block."""
    pinned = ["taskset", "-c", str(target.core), *command]
    process = subprocess.Popen(pinned, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
