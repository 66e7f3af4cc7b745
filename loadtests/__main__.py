"""`python -m loadtests COMMAND`: run, compare, sweep and plot scenarios, compare peers, report, soak."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from loadtests import page, page_entries, peers, soak
from loadtests.direct import DirectProcess
from loadtests.figures_table import settings, table, verdicts
from loadtests.peers_command import base_scenario, peer_entries
from loadtests.plots import draw
from loadtests.report import direct_table
from loadtests.scenario import MODELS, GatewayTarget, Scenario, ScenarioError, read_scenario
from loadtests.session import Session, Setup, kept

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OUT: Final = Path(__file__).resolve().parent.parent / "build" / "loadtests"
IMAGES: Final = OUT.parents[1] / "docs" / "img"


def main() -> None:
    """Run a command; exit status 0, 1 (requests went wrong), 2 (bad scenario), 3 (a threshold was missed)."""
    if sys.argv[1:2] == ["soak"]:
        del sys.argv[1]
        soak.main()
        return
    args = _arguments()
    try:
        sys.exit(args.command(args))
    except ScenarioError as exc:
        print(exc, file=sys.stderr)
        sys.exit(2)


def run(args: argparse.Namespace) -> int:
    """Measure scenarios, one line each."""
    changes = _changes(args.set)
    return _measured(args, {s.name: s for s in (read_scenario(path, changes) for path in args.scenarios)})


def compare(args: argparse.Namespace) -> int:
    """Measure two scenarios in turns."""
    changes = _changes(args.set)
    first, second = (read_scenario(path, changes) for path in (args.a, args.b))
    labels = (first.name, second.name) if first.name != second.name else (str(args.a), str(args.b))
    return _measured(args, dict(zip(labels, (first, second), strict=True)))


def sweep(args: argparse.Namespace) -> int:
    """Measure one scenario at several values of one key, in turns."""
    changes = _changes(args.set)
    entries = {
        f"{args.over}={text}": read_scenario(args.scenario, {**changes, args.over: _value(text)})
        for text in args.values
    }
    return _measured(args, entries)


def compare_peers(args: argparse.Namespace) -> int:
    """Measure the gateway beside other servers, each started anew for each run."""
    base = base_scenario(args.model, args.rows, args.in_flight, args.seconds, args.repeat)
    gateways = {"gateway": GatewayTarget(kind="gateway")}
    for text in args.gateway:
        label, _, config = text.partition("=")
        gateways[label] = GatewayTarget(kind="gateway", config=json.loads(config), label=label)
    try:
        entries = peer_entries(args.peers or peers.NAMES, args.protocols, base, gateways)
    except LookupError as exc:
        raise ScenarioError(str(exc)) from exc
    with DirectProcess(args.cores[0]) as direct:
        model = base.bench_model
        runs = [
            {"model": model.name, "rows": rows, **direct.measure(model.file, rows, 0.5)}
            for rows in (1, 8, 32, 64)
        ]
    print(f"ONNX Runtime called directly, one thread:\n\n{direct_table(runs)}\n", flush=True)
    return _measured(args, entries, keep_running=False)


def plot(args: argparse.Namespace) -> int:
    """Draw records as SVG."""
    for path in draw(args.records, args.into, args.prefix):
        print(path)
    return 0


def report(args: argparse.Namespace) -> int:
    """Measure all that docs/performance.md shows; write its tables, and draw its charts."""
    folder = args.records or OUT / f"report-{time.strftime('%Y%m%d-%H%M%S')}"
    if args.records is None:
        extent = page_entries.QUICK if args.quick else page_entries.FULL
        names = args.peers or peers.NAMES
        try:
            page.Report(folder, OUT / "models", tuple(args.cores), extent, names).measure(args.parts)
        except LookupError as exc:
            raise ScenarioError(str(exc)) from exc
    elsewhere = folder if args.quick else IMAGES
    for path in page.write_page(folder, args.into or elsewhere):
        print(path)
    return page.status(folder)


def _measured(args: argparse.Namespace, entries: Mapping[str, Scenario], **setup: Any) -> int:
    """Measure, print the table and what was missed; return the exit status."""
    os.sched_setaffinity(0, {args.cores[1]})  # this process checks answers: it must not disturb the server
    OUT.mkdir(parents=True, exist_ok=True)
    records = OUT / f"{args.name}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    with tempfile.TemporaryDirectory(prefix="run-", dir=OUT) as folder:
        where = Setup((args.cores[0], args.cores[1]), Path(folder), records, **setup)
        measured = Session(where).measure(entries)
    found = kept(measured)
    print(f"\nmedian (least-most) of the runs that nothing disturbed:\n\n{table(found)}\n")
    print(settings(found) + "\n")
    left_out = len(measured) - sum(map(len, found.values()))
    print(f"{left_out} of {len(measured)} runs left out: others used the core\nrecords: {records}")
    sentences, status = verdicts(found)
    print("\n".join(f"MISSED: {sentence}" for sentence in sentences) or "every threshold met")
    return status


def _changes(texts: Sequence[str]) -> dict[str, object]:
    pairs = [text.partition("=") for text in texts]
    return {key: _value(value) for key, _, value in pairs}


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="name")
    usable = sorted(os.sched_getaffinity(0))

    def on_cores(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "--cores",
            nargs=2,
            type=int,
            choices=usable,
            default=[usable[0], usable[-1]],
            metavar=("SERVER", "GENERATOR"),
        )

    def command(name: str, function: Any, *, reads_scenarios: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        made.set_defaults(command=function)
        if not reads_scenarios:
            return made
        on_cores(made)
        made.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="lay a value over the scenario, as in arrival.in_flight=64; repeatable",
        )
        return made

    command("run", run).add_argument("scenarios", nargs="+", type=Path, metavar="SCENARIO")
    two = command("compare", compare)
    two.add_argument("a", type=Path)
    two.add_argument("b", type=Path)
    swept = command("sweep", sweep)
    swept.add_argument("scenario", type=Path)
    swept.add_argument("--over", required=True, metavar="KEY", help="as in arrival.in_flight")
    swept.add_argument("values", nargs="+", metavar="VALUE")
    several = command("peers", compare_peers)
    several.add_argument("peers", nargs="*", metavar="NAME", help=f"of {', '.join(peers.NAMES)}; all if none")
    several.add_argument("--protocols", nargs="+", choices=("http", "grpc"), default=["http", "grpc"])
    several.add_argument("--model", choices=sorted(MODELS), default="digits")
    several.add_argument("--rows", type=int, default=1, help="per request")
    several.add_argument("--in-flight", type=int, default=32)
    several.add_argument("--seconds", type=float, default=5, help="of each run")
    several.add_argument("--repeat", type=int, default=3, help="runs of each")
    several.add_argument(
        "--gateway",
        action="append",
        default=[],
        metavar="LABEL=CONFIG",
        help="one more gateway, its configuration as JSON; repeatable",
    )
    whole = command("report", report, reads_scenarios=False)
    on_cores(whole)
    whole.add_argument("--quick", action="store_true", help="less of everything, charts beside the records")
    whole.add_argument("--parts", nargs="+", choices=page.PARTS, default=page.PARTS)
    whole.add_argument("--peers", nargs="+", metavar="NAME", help="in the first part; all if not given")
    whole.add_argument("--into", type=Path, help="folder of the charts; docs/img unless --quick")
    whole.add_argument("--records", type=Path, metavar="FOLDER", help="measure nothing, draw these again")
    plotted = command("plot", plot, reads_scenarios=False)
    plotted.add_argument("records", nargs="+", type=Path, metavar="RECORDS")
    plotted.add_argument("--into", type=Path, default=OUT, help="folder; docs/img for what is published")
    plotted.add_argument("--prefix", default="load", help="of the files' names")
    commands.add_parser("soak", help="the long counts: `python -m loadtests.soak`")
    return parser.parse_args()


if __name__ == "__main__":
    main()
