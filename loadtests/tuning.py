"""Measures what the settings of batching do, for docs/batching.md: one gateway, one model, many settings.

The model `dense` is served under several names with different settings, so that runs of all of them alternate
on the same machine at the same time. Records go to build/loadtests/tuning-TIME.jsonl; plot_batching.py draws
them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from loadtests.direct import DirectModel, DirectProcess
from loadtests.generators import MissingGenerator, ensure_installed
from loadtests.machine import describe
from loadtests.measure import Bench, Cell
from loadtests.report import disturbed
from loadtests.requests_on_file import DENSE
from loadtests.served import ServedGateway

if TYPE_CHECKING:
    from collections.abc import Mapping

_OUT: Final = Path(__file__).resolve().parent.parent / "build" / "loadtests"
_SERVER_CORE, _GENERATOR_CORE = 0, 1
_CONCURRENCY: Final = (1, 2, 4, 8, 16, 32, 64)
_ARRIVALS_PER_S: Final = (50, 100, 200, 400, 600)
_SIZES: Final[Mapping[str, Mapping[str, Any]]] = {
    "alone": {"enabled": False},
    "rows8": {"max_batch_rows": 8},
    "rows32": {"max_batch_rows": 32},
    "rows64": {"max_batch_rows": 64},
}
_DELAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    f"delay{delay_ms}": {"max_delay_s": delay_ms / 1e3, "max_batch_rows": 32} for delay_ms in (0, 2, 5, 20)
}


def main() -> None:
    """Measure."""
    args = _arguments()
    try:
        ensure_installed()
    except MissingGenerator as exc:
        sys.exit(str(exc))
    os.sched_setaffinity(0, {_GENERATOR_CORE})
    _OUT.mkdir(parents=True, exist_ok=True)
    out = _OUT / f"tuning-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    wrong = _measure(args, out)
    print(f"records: {out}")
    sys.exit(1 if wrong else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=2, help="of each run")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each combination")
    parser.add_argument("--patience", type=int, default=2, help="more runs of one that others disturbed")
    return parser.parse_args()


def _cells() -> list[Cell]:
    models = {name: replace(DENSE, name=name) for name in (*_SIZES, *_DELAYS)}
    closed = [Cell(models[name], "http", n, 1) for n, name in product(_CONCURRENCY, _SIZES)]
    paced = [Cell(models[name], "grpc", 0, 1, rate) for rate, name in product(_ARRIVALS_PER_S, _DELAYS)]
    return closed + paced


def _measure(args: argparse.Namespace, out: Path) -> bool:
    """Write a record per run; return whether any request went wrong."""
    table, wrong = _cells(), False
    models = list({cell.model.name: cell.model for cell in table}.values())
    with ExitStack() as stack:
        file = stack.enter_context(out.open("w"))
        gateway = stack.enter_context(ServedGateway(models, _SERVER_CORE, _OUT, {**_SIZES, **_DELAYS}))
        direct = stack.enter_context(DirectProcess(_SERVER_CORE))
        reference = DirectModel(DENSE.file)
        bench = Bench(gateway, direct, {m.name: reference for m in models}, _GENERATOR_CORE, _OUT)
        file.write(json.dumps({"kind": "machine", **describe()}) + "\n")
        for cell in (table[0], table[-1]):
            bench.run(cell, 1)  # the first connections and calls are slower
        for number in range(args.repeat):
            for cell in table if number % 2 == 0 else reversed(table):
                for _ in range(args.patience + 1):
                    record = _record(cell, number, asdict(bench.run(cell, args.seconds)))
                    file.write(json.dumps(record) + "\n")
                    file.flush()
                    wrong |= bool(record["errors"])
                    _print_run(record)
                    if not disturbed(record):
                        break
    return wrong


def _record(cell: Cell, number: int, figures: dict[str, Any]) -> dict[str, Any]:
    how = {"protocol": cell.protocol, "rows": cell.rows, "concurrency": cell.concurrency}
    where = {"settings": cell.model.name, **how, "arrivals_per_s": cell.arrivals_per_s}
    return {"kind": "paced" if cell.arrivals_per_s else "closed", "repeat": number, **where, **figures}


def _print_run(record: Mapping[str, Any]) -> None:
    load = record["arrivals_per_s"] or record["concurrency"]
    print(
        f"{record['repeat']} {record['kind']} {record['settings']:8} {load:4}:",
        f"{record['rows_per_s']:7,.0f} rows/s",
        f"p50 {record['p50_ms']:6.1f} p99 {record['p99_ms']:6.1f} ms, batch {record['mean_batch']:5.1f}",
        f"{record['cpu_us']:6,.0f} us/request, foreign {record['foreign']:.0%}",
        *record["errors"],
        flush=True,
    )


if __name__ == "__main__":
    main()
