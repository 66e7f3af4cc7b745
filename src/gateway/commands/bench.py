"""`gateway bench`: a quick closed-loop figure of one model on a running gateway, with generated inputs."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import uvloop
from rich.console import Console
from rich.table import Table

from gateway.commands.failure import CommandFailed, Exit
from gateway.commands.load_http import prepare_http
from gateway.commands.samples import SampleOptions
from gateway.commands.tally import Load, LoadRun, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.commands.client import Address

NOTE = (
    "A quick look: closed loop, and this generator takes CPU time from a server on the same machine. "
    "loadtests/ is the measuring tool."
)
_GRACE_S = 10.0
"""Time after the end of the run for answers that are still to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to run.

    Attributes:
        address: of the gateway: its HTTP port, or its gRPC port when `protocol` is grpc.
        model: its name.
        version: its version, or empty for the gateway's choice.
        rows: per request.
        concurrency: requests under way at any time.
        seconds: duration.
        protocol: http or grpc.
        shapes: input -> full shape, where the guess from the metadata is wrong.
        as_json: print JSON instead of a table.
    """

    address: Address
    model: str
    version: str = ""
    rows: int = 1
    concurrency: int = 32
    seconds: float = 5.0
    protocol: str = "http"
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """The outcome: rates per second, latencies in milliseconds, errors by message."""

    model: str
    protocol: str
    concurrency: int
    rows_per_request: int
    seconds: float
    requests: int
    requests_per_s: float
    rows_per_s: float
    p50_ms: float
    p99_ms: float
    errors: Mapping[str, int]


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read `INPUT:1,3,48,320` (all axes, the batch axis included).

    Raises:
        CommandFailed: it is not of that form.
    """
    name, colon, sizes = text.rpartition(":")
    try:
        shape = tuple(int(size) for size in sizes.split(",") if size)
    except ValueError:
        shape = (-1,)
    if not colon or min(shape, default=0) < 0:
        raise CommandFailed(f"not a shape: {text!r}; expected INPUT:1,3,48,320", Exit.USAGE)
    return name, shape


def bench(options: BenchOptions) -> None:
    """Run the load and print the figures on standard output.

    Raises:
        CommandFailed: no gateway, no such model, or not one request was answered well.
    """
    run = _prepare(options)
    tally = Tally()
    seconds = uvloop.run(_timed(run, Load(tally, options.concurrency, options.seconds)))
    figures = summarise(options, tally, seconds)
    if options.as_json:
        sys.stdout.write(json.dumps(asdict(figures)) + "\n")
    else:
        _print(figures)
    if not tally.latencies_ns:
        raise CommandFailed("not one request was answered well")


def _prepare(options: BenchOptions) -> LoadRun:
    samples = SampleOptions(options.rows, options.shapes)
    if options.protocol == "grpc":
        from gateway.commands.load_grpc import prepare_grpc  # noqa: PLC0415  grpcio loads in 100 ms

        return prepare_grpc(options.address, options.model, options.version, samples)
    return prepare_http(options.address, options.model, options.version, samples)


async def _timed(run: LoadRun, load: Load) -> float:
    """Run a load and return the seconds it took, a bounded wait for the last answers included."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(load.seconds + _GRACE_S):
            await run(load)
    except TimeoutError:
        load.tally.error(f"no answer within {_GRACE_S:g} s of the end")
    return time.perf_counter() - started


def summarise(options: BenchOptions, tally: Tally, seconds: float) -> Figures:
    """Return the figures of a run that took `seconds`."""
    requests = len(tally.latencies_ns)
    return Figures(
        model=options.model,
        protocol=options.protocol,
        concurrency=options.concurrency,
        rows_per_request=options.rows,
        seconds=round(seconds, 3),
        requests=requests,
        requests_per_s=round(requests / seconds, 1),
        rows_per_s=round(requests * options.rows / seconds, 1),
        p50_ms=tally.percentile_ms(50),
        p99_ms=tally.percentile_ms(99),
        errors=dict(tally.errors),
    )


def _print(figures: Figures) -> None:
    table = Table("requests/s", "rows/s", "p50 ms", "p99 ms", "requests", "errors", title_justify="left")
    table.title = (
        f"{figures.model} over {figures.protocol}: {figures.concurrency} in flight, "
        f"{figures.rows_per_request} rows each, {figures.seconds:.1f} s"
    )
    table.add_row(
        f"{figures.requests_per_s:,.0f}",
        f"{figures.rows_per_s:,.0f}",
        f"{figures.p50_ms:.2f}",
        f"{figures.p99_ms:.2f}",
        f"{figures.requests:,}",
        f"{sum(figures.errors.values()):,}",
    )
    console = Console()
    console.print(table)
    for message, count in figures.errors.items():
        console.print(f"{count} x {message}", markup=False)
    console.print(NOTE, markup=False)
