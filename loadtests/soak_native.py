"""The long counts of the native gRPC transport: broken-off calls, idle connections, fuzzing."""

from __future__ import annotations

import asyncio
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadtests.soak_native_idle import CONNECTIONS as IDLE_CONNECTIONS
from loadtests.soak_native_idle import allow_files, idle_http1, idle_http2
from loadtests.soak_native_load import cancels, serving
from loadtests.soak_table import Row, bytes_row
from loadtests.soak_wire_fuzz import CORE, DIFFERENTIAL, NoFuzzer, generated, guided

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtests.soak_wire_fuzz import Fuzzed

MIB: Final = 1 << 20
CANCELLED_REQUESTS: Final = 1_000_000
LEAST_CANCELLED_REQUESTS: Final = 200_000
"""Whatever the fraction: a slope over fewer is the allocator's noise, multiplied."""
CANCEL_BYTES_PER_100K: Final = 1 * MIB
IDLE_BYTES_EACH: Final = 50 << 10
GUIDED_S: Final = 1800.0
GENERATED_S: Final = 900.0
"""Of the core, and of the comparison with grpcio: an hour in all."""
GUIDED_GROWTH_BYTES: Final = 64 * MIB
"""What libFuzzer keeps for inputs that reach new code is in it."""


def broken_off(fraction: float) -> Iterator[Row]:
    """Send requests, some reset, left half open or lost with their connection; judge all others."""
    requests = max(LEAST_CANCELLED_REQUESTS, math.ceil(CANCELLED_REQUESTS * fraction))
    with serving() as server:
        report = cancels(server, requests)
    traffic = report.traffic
    name, count = "native, cancels", f"{traffic.started:,} requests"
    given_up = f"{traffic.broken_off:,} reset, {report.connections:,} connections"
    bad = traffic.problems.total() + abs(traffic.unaccounted)
    why = [f"{times} times {problem}" for problem, times in traffic.problems.most_common(5)]
    yield Row(f"{name}, answers", count, given_up, f"{bad} wrong", "0", ok=not bad, why=why)
    yield bytes_row(
        f"{name}, memory per 100k", count, round(report.growth_bytes_per_100k), CANCEL_BYTES_PER_100K
    )
    for what, more in (("descriptors", report.fds), ("threads", report.threads)):
        # Pools may not have been full at the start.
        yield Row(f"{name}, {what}", count, "start to end", f"{more:+d}", "+2", ok=more <= 2)
    yield Row(f"{name}, in flight", count, "at the end", str(report.left), "0", ok=not report.left)
    fired = sum(report.limits.values())
    limits = [f"{limit} {times}" for limit, times in report.limits.items()]
    yield Row(f"{name}, limits", count, "fired", str(fired), "0", ok=not fired, why=limits)


def idle(fraction: float) -> Iterator[Row]:
    """Hold idle connections of both protocols open beside clients that work."""
    connections = allow_files(math.ceil(IDLE_CONNECTIONS * fraction))
    for name, hold in (("HTTP/2", idle_http2), ("HTTP/1.1", idle_http1)):
        patient = {"max_connections": 2 * connections + 1000, "keep_alive_timeout_s": 3600}
        with serving(http=patient) as server:
            report = asyncio.run(hold(server, connections))
        count = f"{report.connections:,} connections"
        said = f"{report.answered:,} answers beside them"
        bad = len(report.problems)
        yield Row(f"idle, {name}, answers", count, said, f"{bad} wrong", "0", ok=not bad, why=report.problems)
        figure, most = (f"{size / 1024:.1f} KiB" for size in (report.bytes_each, IDLE_BYTES_EACH))
        ok = report.bytes_each <= IDLE_BYTES_EACH
        yield Row(f"idle, {name}, memory each", count, "resident memory", figure, most, ok=ok)


def fuzzing(fraction: float) -> Iterator[Row]:
    """Fuzz the core and compare the transports, for an hour in all."""
    yield from _guided(GUIDED_S * fraction)
    for name, test in (("generated", CORE), ("beside grpcio", DIFFERENTIAL)):
        yield _fuzz_row(
            f"native, fuzz, {name}", GENERATED_S * fraction, generated(test, GENERATED_S * fraction)
        )


def _guided(seconds: float) -> Iterator[Row]:
    name = "native, fuzz, guided"
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        try:
            found = guided(seconds, Path(folder))
        except NoFuzzer as exc:
            # Hypothesis has the whole hour then, but for less than coverage would have found.
            yield Row(name, "-", "no wheel of atheris here", "not run", "0 failed", ok=True, why=[str(exc)])
            yield _fuzz_row("native, fuzz, instead", seconds, generated(CORE, seconds))
            return
    yield _fuzz_row(name, seconds, found)
    yield bytes_row("native, fuzz, memory", found.count, found.grown_bytes, GUIDED_GROWTH_BYTES)


def _fuzz_row(name: str, seconds: float, found: Fuzzed) -> Row:
    failed = "1 failed" if found.problem else "0 failed"
    why = [found.problem]
    return Row(name, f"{seconds:.0f} s", found.count, failed, "0", ok=not found.problem, why=why)
