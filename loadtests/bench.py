"""Prints the gateway's throughput, latency and CPU per request beside ONNX Runtime called directly.

The gateway has one core and the generators (wrk for binary HTTP, h2load for gRPC) another. Every run is
preceded by direct calls in batches of 32 on the gateway's core, so that a slow minute of the machine slows
both; runs are repeated in turns, not in a row, and those that other programs disturbed are left out. Records
go to build/loadtests/bench-TIME.jsonl.

Exit status: 0; 1 if any request failed or was answered wrongly; 3 if a target is missed (--targets).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from loadtests.direct import DirectModel, DirectProcess
from loadtests.generators import MissingGenerator, ensure_installed
from loadtests.machine import describe
from loadtests.measure import Bench, Cell
from loadtests.report import cells, comparison_disturbed, direct_table, load_table, quiet, spread
from loadtests.requests_on_file import DENSE, DIGITS
from loadtests.served import ServedGateway

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OUT: Final = Path(__file__).resolve().parent.parent / "build" / "loadtests"
_MODELS: Final = {model.name: model for model in (DIGITS, DENSE)}
_DIRECT_S: Final = 0.4
_WARM_UP_S: Final = 1
_TARGETS: Final = {("dense", "http", 8, 64): 0.70, ("dense", "http", 1, 64): 0.45}
"""Share of direct batch-32 rows/s to reach, by model, protocol, rows per request, requests in flight."""


def main() -> None:
    """Run the load test."""
    args = _arguments()
    try:
        ensure_installed()
    except MissingGenerator as exc:
        sys.exit(str(exc))
    os.sched_setaffinity(0, {args.cores[1]})  # this process checks answers: it must not disturb the server
    _OUT.mkdir(parents=True, exist_ok=True)
    out = _OUT / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    loads, directs = _measure(args, out)
    print(f"\nONNX Runtime called directly, one thread:\n\n{direct_table(directs)}")
    kept = quiet(loads, is_disturbed=comparison_disturbed)
    print(f"\nThrough the gateway, median (least-most):\n\n{load_table(kept)}")
    print(f"\n{len(loads) - len(kept)} of {len(loads)} runs left out: others used the core")
    print(f"records: {out}")
    missed = _targets(kept)
    if any(record["errors"] for record in loads):
        sys.exit(1)
    sys.exit(3 if missed and args.targets else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(_MODELS), default=list(_MODELS))
    parser.add_argument("--protocols", nargs="+", choices=("http", "grpc"), default=["http", "grpc"])
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 8, 32, 64], metavar="N")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8], metavar="N", help="rows per request")
    parser.add_argument("--seconds", type=int, default=3, help="of each run")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each combination")
    parser.add_argument("--cores", nargs=2, type=int, default=[0, 1], metavar=("SERVER", "GENERATOR"))
    parser.add_argument("--targets", action="store_true", help="fail if a target is missed")
    args = parser.parse_args()
    if not set(args.cores) <= os.sched_getaffinity(0):
        parser.error(f"cores {args.cores} are not both usable here: {sorted(os.sched_getaffinity(0))} are")
    return args


def _measure(args: argparse.Namespace, out: Path) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    models = [_MODELS[name] for name in args.models]
    table = [
        Cell(*combination) for combination in product(models, args.protocols, args.concurrency, args.rows)
    ]
    loads: list[Mapping[str, Any]] = []
    directs: list[Mapping[str, Any]] = []
    with ExitStack() as stack:
        file = stack.enter_context(out.open("w"))
        gateway = stack.enter_context(ServedGateway(models, args.cores[0], _OUT))
        direct = stack.enter_context(DirectProcess(args.cores[0]))
        bench = Bench(gateway, direct, {m.name: DirectModel(m.file) for m in models}, args.cores[1], _OUT)
        _write(file, {"kind": "machine", **describe()})
        for model, protocol in product(models, args.protocols):
            bench.run(Cell(model, protocol, max(args.concurrency), max(args.rows)), _WARM_UP_S)
        for number in range(args.repeat):
            for model, rows in product(models, args.concurrency):
                record = {"kind": "direct", "repeat": number, "model": model.name, "rows": rows}
                directs.append(record | direct.measure(model.file, rows, _DIRECT_S))
                _write(file, directs[-1])
            # Back and forth, so that what drifts with time meets every cell early and late.
            for cell in table if number % 2 == 0 else reversed(table):
                loads.append(_record(cell, number, asdict(bench.run(cell, args.seconds))))
                _write(file, loads[-1])
                _print_run(loads[-1])
    return [record for cell in _in_order(loads, table) for record in cell], directs


def _record(cell: Cell, number: int, figures: dict[str, Any]) -> dict[str, Any]:
    where = {"model": cell.model.name, "protocol": cell.protocol, "rows": cell.rows}
    return {"kind": "load", "repeat": number, **where, "concurrency": cell.concurrency, **figures}


def _in_order(loads: Sequence[Mapping[str, Any]], table: Sequence[Cell]) -> list[list[Mapping[str, Any]]]:
    grouped = cells(loads)
    keys = [(cell.model.name, cell.protocol, cell.rows, cell.concurrency) for cell in table]
    return [grouped[key] for key in keys]


def _write(file: Any, record: Mapping[str, Any]) -> None:
    file.write(json.dumps(record) + "\n")
    file.flush()


def _print_run(record: Mapping[str, Any]) -> None:
    print(
        f"{record['repeat']} {record['model']:7} {record['protocol']:5}{record['rows']:3} rows",
        f"{record['concurrency']:3} in flight: {record['rows_per_s']:9,.0f} rows/s",
        f"{record['ratio']:5.0%} ({record['cpu_ratio']:4.0%} by CPU) {record['p99_ms']:7.1f} ms p99",
        f"{record['cpu_us']:6,.0f} us batch {record['mean_batch']:5.1f} | foreign {record['foreign']:.0%}",
        f"steal {record['steal']:.0%} generator idle {record['generator_idle']:.0%}",
        *record["errors"],
        flush=True,
    )


def _targets(loads: Sequence[Mapping[str, Any]]) -> bool:
    """Print how the targets stand; return whether one was missed by the median."""
    missed = False
    grouped = cells(loads)
    for (model, protocol, rows, concurrency), target in _TARGETS.items():
        if repeats := grouped.get((model, protocol, rows, concurrency)):
            got = spread(record["ratio"] for record in repeats)
            missed |= got.median < target
            verdict = "MISSED" if got.median < target else "reached"
            print(
                f"target: {model} over {protocol}, {rows} rows, {concurrency} in flight: "
                f"{got.text('.0%')} of direct batch-32, asked for {target:.0%}: {verdict}"
            )
    return missed


if __name__ == "__main__":
    main()
