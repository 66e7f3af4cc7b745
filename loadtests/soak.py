"""The long counts: swaps, kills, fuzzing, conformance, leaks, lag, the native transport; then one table.

`python -m loadtests.soak [--fraction F] [--only NAME ...]`. The full run takes about twenty minutes, and
exits 1 when a check fails; `native-fuzz`, an hour, and `triton`, half an hour, are run only when named.
`make test` runs the same building blocks with smaller counts.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadtests.monitor_kills import kills as monitor_kills
from loadtests.soak_fuzz import FuzzReport, fuzz, rounds
from loadtests.soak_kills import Ending, kill_under_load, served, terminations
from loadtests.soak_lag import Lag, measure, write_large_model
from loadtests.soak_lazy import lazy
from loadtests.soak_leaks import leaks
from loadtests.soak_models import OFFSET, small_repository
from loadtests.soak_native import broken_off, idle
from loadtests.soak_native import fuzzing as native_fuzzing
from loadtests.soak_properties import properties
from loadtests.soak_registry import registry
from loadtests.soak_rollouts import harm
from loadtests.soak_rollouts import kills as rollout_kills
from loadtests.soak_schemathesis import EXAMPLES, run_schemathesis
from loadtests.soak_server import GatewayProcess, settings
from loadtests.soak_swaps import run_swaps
from loadtests.soak_table import Row, bytes_row, table
from loadtests.soak_triton import troubled_fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SWAP_PERIOD_S: Final = 2.0
SWAPS: Final = 60
"""Two minutes of each kind."""
TERMINATIONS: Final = 20
KILLS: Final = 5
FUZZ_S: Final = 150.0
LEAK_REQUESTS: Final = 200_000
LEAST_LEAK_REQUESTS: Final = 40_000
"""Whatever the fraction: a slope over fewer is the allocator's noise, multiplied."""
LAG_S: Final = 60.0

MIB: Final = 1 << 20
FUZZ_BODY_BYTES: Final = 4 * MIB
FUZZ_GROWTH_BYTES: Final = FUZZ_BODY_BYTES + 16 * MIB
LEAK_BYTES_PER_100K: Final = 4 * MIB
LAG_P999_S: Final = 0.005
LAG_MAX_S: Final = 0.025


def swaps(fraction: float) -> Iterator[Row]:
    """Replace a version every two seconds under load, found by polling and loaded by a client."""
    count = math.ceil(SWAPS * fraction)
    for mode in ("poll", "explicit"):
        tally = run_swaps(mode, count, SWAP_PERIOD_S)
        bad = tally.failed + tally.refused + tally.unanswered
        said = f"{tally.right} answers by {len(tally.versions)} versions"
        yield Row(
            f"swaps, {mode}", f"{count} swaps", said, f"{bad} failed", "0", ok=not bad, why=tally.problems
        )


def kills(fraction: float) -> Iterator[Row]:
    """End the gateway under load by SIGTERM, and by SIGKILL with a restart."""
    yield _terminated(terminations(math.ceil(TERMINATIONS * fraction)))
    wrong: list[str] = []
    count = math.ceil(KILLS * fraction)
    for _ in range(count):
        with served() as (server, directory):
            tally = asyncio.run(kill_under_load(server))
            wrong += [problem for problem in tally.problems if problem.startswith("version ")]
            with GatewayProcess(settings(directory / "repository"), directory) as again:
                if not again.ready["ready"]:
                    wrong.append(f"not ready after the restart: {again.ready}")
    failed = f"{len(wrong)} wrong or not ready"
    yield Row("SIGKILL and restart", f"{count} kills", "ready again", failed, "0", ok=not wrong, why=wrong)


def _terminated(endings: Sequence[Ending]) -> Row:
    bad = sum(e.tally.failed + e.tally.unanswered + (e.exit_code != 0) for e in endings)
    right = sum(e.tally.right for e in endings)
    why = [problem for e in endings for problem in e.tally.problems]
    why += [f"exit code {e.exit_code}" for e in endings if e.exit_code]
    said = f"{right} answers, exit code 0"
    return Row("SIGTERM under load", f"{len(endings)} ends", said, f"{bad} failed", "0", ok=not bad, why=why)


def fuzzing(fraction: float) -> Iterator[Row]:
    """Send mutated messages for a while; nothing may fail, and memory stays where it was."""
    with served(limits={"max_body_bytes": FUZZ_BODY_BYTES}) as (server, _):
        asyncio.run(fuzz(server, 500, 0))
        server.reset_peak()
        warm_bytes = server.usage().rss_bytes
        report = FuzzReport()
        for seed in rounds(FUZZ_S * fraction):
            part = asyncio.run(fuzz(server, 500, seed))
            report.answers += part.answers
            report.problems += part.problems
        grown_bytes = server.usage().peak_bytes - warm_bytes
    count = f"{report.answers.total()} answers"
    said = ", ".join(f"{answer} {n}" for answer, n in report.answers.most_common(4))
    bad = len(report.problems)
    yield Row("fuzzing, answers", count, said, f"{bad} not allowed", "0", ok=not bad, why=report.problems[:5])
    yield bytes_row("fuzzing, memory", count, grown_bytes, FUZZ_GROWTH_BYTES)


def conformance(fraction: float) -> Iterator[Row]:
    """Hold the gateway to its OpenAPI document with generated requests."""
    for mode, named in (("none", False), ("none", True), ("explicit", True)):
        examples = math.ceil(EXAMPLES * fraction)
        with served(mode=mode) as (server, directory):
            findings = run_schemathesis(server.http_port, examples, directory, named=named)
        name = f"schemathesis, {mode}, {'a real model' if named else 'made-up models'}"
        count, result = f"{examples} per operation", f"exit code {findings.exit_code}"
        ok = findings.exit_code == 0
        yield Row(
            name,
            count,
            result,
            "none" if ok else "some",
            "no finding",
            ok=ok,
            why=[findings.failures[-4000:]],
        )


def leaking(fraction: float) -> Iterator[Row]:
    """Watch memory, descriptors and threads over many requests, cancelled and broken-off ones among them."""
    with served() as (server, _):
        report = asyncio.run(leaks(server, max(LEAST_LEAK_REQUESTS, math.ceil(LEAK_REQUESTS * fraction))))
    count = f"{report.sent} requests"
    yield bytes_row("leaks, memory per 100k", count, round(report.growth_bytes_per_100k), LEAK_BYTES_PER_100K)
    for name, more in (("descriptors", report.fds), ("threads", report.threads)):
        # Pools may not have been full at the start.
        yield Row(f"leaks, {name}", count, "start to end", f"{more:+d}", "+2", ok=more <= 2)


def lag(fraction: float) -> Iterator[Row]:
    """Measure how long the event loop is held up while a large model comes and goes."""
    directory = Path(tempfile.mkdtemp())
    try:
        repository = small_repository(directory)
        write_large_model(repository)
        config = settings(repository, "explicit")
        config["repository"]["load_at_start"] = [OFFSET]
        with GatewayProcess(config, directory) as server:
            report = asyncio.run(measure(server, LAG_S * fraction))
    finally:
        shutil.rmtree(directory)
    machine = f"machine alone {_ms(report.machine.p999_s)} / {_ms(report.machine.max_s)}"
    yield _lag_row("loop lag, own metric", report.loop, f"{report.loads} loads of 250 MB")
    yield _lag_row("loop lag, outside probe", report.probe, machine)


def _lag_row(name: str, found: Lag, said: str) -> Row:
    limit = f"{_ms(LAG_P999_S)} / {_ms(LAG_MAX_S)}"
    ok = found.p999_s <= LAG_P999_S and found.max_s <= LAG_MAX_S
    figure = f"p99.9 {_ms(found.p999_s)} / max {_ms(found.max_s)}"
    return Row(name, f"{found.samples} samples", said, figure, limit, ok=ok)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


CHECKS: Final[Mapping[str, Callable[[float], Iterator[Row]]]] = {
    "swaps": swaps,
    "kills": kills,
    "fuzzing": fuzzing,
    "conformance": conformance,
    "properties": properties,
    "leaks": leaking,
    "lag": lag,
    "lazy": lazy,
    "registry": registry,
    "rollout-kills": rollout_kills,
    "rollout-harm": harm,
    "monitor-kills": monitor_kills,
    "native-cancels": broken_off,
    "idle": idle,
    "native-fuzz": native_fuzzing,
    "triton": troubled_fleet,
}
ALONE: Final = frozenset({"native-fuzz", "triton"})
"""Run only when named: an hour, and half an hour."""


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="of every count and time; 1 is a full run"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=CHECKS,
        help="repeatable; without it all but native-fuzz and triton",
    )
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only or (name for name in CHECKS if name not in ALONE):
        began_s = time.monotonic()
        rows += CHECKS[name](options.fraction)
        print(f"{name}: {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    print(table(rows))
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
