"""What the gateway costs in front of Triton: calling it directly and through the gateway, in turns.

    python -m loadtests.triton_latency                                every part, under four minutes
    python -m loadtests.triton_latency --quick                        every part in about 40 s, for a look
    python -m loadtests.triton_latency --parts added --save FILE      one part, kept beside those in FILE
    python -m loadtests.triton_latency --show FILE --into docs        writes docs/triton-measurements.md

One server and one gateway, both on all processors, and h2load as the client: closed loops over gRPC. The ways
that are compared follow each other as A B B A, so that a machine that drifts drifts for all. A run counts
only if the server says that it answered as many requests rightly as the client had answered.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import struct
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import tritonclient.grpc

from loadtests.generators import Load, Target, h2load, h2load_load
from loadtests.process_tree import process_cpu_s
from loadtests.requests_on_file import DIGITS, BenchModel, RequestFile, grpc_message
from loadtests.triton_page import put_table
from loadtests.triton_scene import FleetGateway
from tests.triton import models
from tests.triton.server import TritonServer, triton
from tests.triton.zoo import digits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PLAIN, _DYNAMIC, _BIG = "digits", "digits-dynamic", "big"
_BIG_FLOATS: Final = 1 << 18
"""1 MiB of FP32."""
_CLIENT_CORE: Final = 1
_MOST_LOST: Final = 128
"""Requests under way when this run ends, or the one before: answered by the server, unread by the client."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to ask.

    Attributes:
        name: as the table has it.
        model: the model's public name.
        direct: it is asked of Triton itself.
    """

    name: str
    model: str
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A comparison.

    Attributes:
        title: what is compared.
        on_triton: the model on Triton.
        ways: the first is what the others are compared with.
        in_flight: requests under way.
    """

    title: str
    on_triton: str
    ways: tuple[Way, ...]
    in_flight: tuple[int, ...]


PARTS: Final[Mapping[str, Part]] = {
    "added": Part(
        "a small model without batching",
        _PLAIN,
        (Way("Triton directly", _PLAIN, direct=True), Way("through the gateway", _PLAIN)),
        (1, 8, 32),
    ),
    "batching": Part(
        "who forms batches",
        _DYNAMIC,
        (
            Way("Triton directly, its batches", _DYNAMIC, direct=True),
            Way("gateway, Triton's batches", "passed"),
            Way("gateway, its own batches", "batched"),
        ),
        (8, 32, 64),
    ),
    "memory": Part(
        "tensors of 1 MiB, in and out",
        _BIG,
        (
            Way("Triton directly, gRPC", _BIG, direct=True),
            Way("gateway, gRPC", "big-grpc"),
            Way("gateway, shared memory", "big-shared"),
        ),
        (1, 4),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way at one number of requests under way.

    Attributes:
        part: of `PARTS`.
        way: its name.
        in_flight: requests under way.
        rate: requests per second.
        p50_us: latency.
        p99_us: latency.
        cpu_us: of the gateway's process, for each request; 0 for Triton directly.
    """

    part: str
    way: str
    in_flight: int
    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float


class Bench:
    """A server, a gateway before it, and the requests."""

    def __init__(self, server: TritonServer, process: FleetGateway, directory: Path) -> None:
        self._server = server
        self._process = process
        self._directory = directory

    def part(self, name: str, seconds: int, rounds: int) -> list[Row]:
        """Measure a part; `rounds` stretches of each way there and as many back."""
        part, rows = PARTS[name], []
        for in_flight in part.in_flight:
            for way in part.ways:
                self._stretch(part, way, in_flight, 1)
            found: dict[Way, list[tuple[Load, float]]] = {way: [] for way in part.ways}
            for _ in range(rounds):
                for way in (*part.ways, *reversed(part.ways)):
                    found[way].append(self._stretch(part, way, in_flight, seconds))
            rows += [_row(name, way, in_flight, stretches) for way, stretches in found.items()]
        return rows

    def _stretch(self, part: Part, way: Way, in_flight: int, seconds: int) -> tuple[Load, float]:
        """Return what the client saw, and the gateway's CPU time in seconds."""
        port = self._server.grpc_port if way.direct else self._process.grpc_port
        url = f"http://127.0.0.1:{port}/inference.GRPCInferenceService/ModelInfer"
        target = Target(url, self._request(part, way), _CLIENT_CORE)
        log = self._directory / "h2load.log"
        before, cpu_s = self._answered(part), process_cpu_s(self._process.pid)
        with h2load(target, in_flight, seconds, log) as client:
            load = h2load_load(client.communicate()[0], log)
        cpu_s = process_cpu_s(self._process.pid) - cpu_s
        if not self._server.running:
            raise RuntimeError(
                f"{way.name}, {in_flight} in flight: Triton ended\n{self._server.said()[-2000:]}"
            )
        answered = self._answered(part) - before
        if load.failed or not load.requests <= answered <= load.requests + _MOST_LOST:
            raise RuntimeError(f"{way.name}: {load.requests} answers, {load.failed} failed, {answered} there")
        return load, cpu_s

    def _answered(self, part: Part) -> int:
        """Return how many rows the server has answered; batches of ours are one request there."""
        with tritonclient.grpc.InferenceServerClient(self._server.grpc) as client:
            (stats,) = client.get_inference_statistics(part.on_triton).model_stats
            return int(stats.inference_count)

    def _request(self, part: Part, way: Way) -> RequestFile:
        model, features = (
            ("x", _BIG_FLOATS) if part.on_triton == _BIG else (DIGITS.input_name, DIGITS.features)
        )
        asked = BenchModel(way.model, Path(), 1, model, features)
        body = grpc_message(asked, asked.tensor(1, seed=1))
        path = self._directory / f"{way.model}.grpc"
        path.write_bytes(struct.pack(">BI", 0, len(body)) + body)
        return RequestFile(path, ("content-type: application/grpc", "te: trailers"))

    def check(self) -> None:
        """Ask every way once and compare its answer with that of Triton.

        Raises:
            RuntimeError: they differ.
        """
        for part in PARTS.values():
            answers = [self._asked(part, way) for way in part.ways]
            if not all(np.allclose(answers[0], answer, rtol=1e-5) for answer in answers):
                raise RuntimeError(f"{part.title}: the answers differ")

    def _asked(self, part: Part, way: Way) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        port = self._server.grpc_port if way.direct else self._process.grpc_port
        message = self._request(part, way).path.read_bytes()[5:]
        with tritonclient.grpc.service_pb2_grpc.grpc.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)]
        ) as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            answer = tritonclient.grpc.service_pb2.ModelInferResponse.FromString(infer(message))
        (output,) = [
            np.frombuffer(data, np.float32)
            for tensor, data in zip(answer.outputs, answer.raw_output_contents, strict=True)
            if tensor.datatype == "FP32"
        ]
        return output


def _row(part: str, way: Way, in_flight: int, stretches: Sequence[tuple[Load, float]]) -> Row:
    loads, cpus_s = zip(*stretches, strict=True)
    requests = sum(load.requests for load in loads)

    def mean(value: Callable[[Load], float]) -> float:
        return float(sum(value(load) * load.requests for load in loads) / requests)

    return Row(
        part=part,
        way=way.name,
        in_flight=in_flight,
        rate=requests / sum(load.seconds for load in loads),
        p50_us=mean(lambda load: load.p50_ms) * 1e3,
        p99_us=mean(lambda load: load.p99_ms) * 1e3,
        cpu_us=0.0 if way.direct else sum(cpus_s) / requests * 1e6,
    )


def config(server: TritonServer) -> dict[str, object]:
    """Return the gateway's configuration: the same models in the ways that are compared."""

    def entry(name: str, model: str, **more: str) -> dict[str, object]:
        return {"name": name, "backend": "triton", "triton": {"model": model, **more}}

    return {
        "server": {"ports": {"http": 0, "grpc": 0, "metrics": 0, "admin": 0}},
        "triton": [{"name": "fleet", "endpoints": [server.grpc], "batching": "passthrough"}],
        "models": [
            entry(_PLAIN, _PLAIN, shared_memory="off"),
            entry("passed", _DYNAMIC, shared_memory="off"),
            entry("batched", _DYNAMIC, shared_memory="off", batching="gateway"),
            entry("big-grpc", _BIG, shared_memory="off"),
            entry("big-shared", _BIG, shared_memory="auto"),
        ],
    }


def big() -> models.Model:
    """Return `y = x` of 1 MiB a row; the fixed size lets the output be in shared memory, too."""
    tensors = [models.Tensor(name, "FP32", [_BIG_FLOATS]) for name in ("x", "y")]
    return models.Model(script="identity", inputs=tensors[:1], outputs=tensors[1:], files={1: None})


def run(parts: Sequence[str], seconds: int, rounds: int) -> list[Row]:
    """Return the rows of these parts."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kept = {
            _PLAIN: digits(1),
            _DYNAMIC: digits(1, more=(models.dynamic(),)),
            _BIG: big(),
        }
        server = stack.enter_context(triton(models.write(directory / "repository", kept)))
        process = stack.enter_context(FleetGateway(config(server), directory))
        bench = Bench(server, process, directory)
        bench.check()
        return [row for part in parts for row in bench.part(part, seconds, rounds)]


HEADINGS: Final = ("in flight", "way", "requests/s", "p50", "p99", "added p50", "added p99", "gateway's CPU")


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return the rows of a part's table; added is to the first way at the same number in flight."""
    base = {row.in_flight: row for row in reversed(rows)}
    return [_cells(row, base[row.in_flight]) for row in rows]


def _cells(row: Row, base: Row) -> tuple[str, ...]:
    def added(us: float) -> str:
        return "" if row is base else f"{us:+.0f} us"

    return (
        str(row.in_flight),
        row.way,
        f"{row.rate:,.0f}",
        f"{row.p50_us:,.0f} us",
        f"{row.p99_us:,.0f} us",
        added(row.p50_us - base.p50_us),
        added(row.p99_us - base.p99_us),
        "" if row is base else f"{row.cpu_us:.0f} us",
    )


def load_rows(file: Path) -> list[Row]:
    """Return the rows kept in a file."""
    return [Row(**row) for row in json.loads(file.read_text())] if file.exists() else []


def main() -> int:
    """Measure or show what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="one second of each")
    parser.add_argument("--seconds", type=int, default=2, help="of a stretch")
    parser.add_argument("--rounds", type=int, default=2, help="two stretches of each way in a round")
    parser.add_argument("--save", type=Path, help="a file that keeps the rows")
    parser.add_argument("--show", type=Path, help="measures nothing: takes the rows of this file")
    parser.add_argument("--into", type=Path, help="the folder of triton-measurements.md")
    options = parser.parse_args()
    if options.show:
        rows = load_rows(options.show)
    elif options.quick:
        rows = run(options.parts, 1, 1)
    else:
        rows = run(options.parts, options.seconds, options.rounds)
    if options.save:
        kept = [row for row in load_rows(options.save) if row.part not in options.parts]
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(json.dumps([dataclasses.asdict(row) for row in (*kept, *rows)], indent=1))
    for name in PARTS:
        if found := [row for row in rows if row.part == name]:
            table = cells(found)
            print(PARTS[name].title, *map(" | ".join, (HEADINGS, *table)), sep="\n")
            if options.into:
                put_table(options.into, name, HEADINGS, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
