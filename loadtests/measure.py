"""Measures one cell: a closed loop on a gateway, beside direct ONNX Runtime, with some answers checked."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc
import numpy as np

from gateway._proto import open_inference_pb2 as pb
from gateway.commands.client import Address, GatewayClient
from gateway.commands.wire import decode_response, encode_request
from loadtests.generators import Load, Target, h2load, h2load_at, h2load_load, wrk, wrk_load
from loadtests.machine import CoreTime, core_time
from loadtests.requests_on_file import BenchModel, grpc_message, grpc_request, http_request, same

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    import numpy.typing as npt

    from gateway.core.types import Tensor
    from loadtests.direct import DirectModel, DirectProcess
    from loadtests.served import Counters, ServedGateway

    Floats = npt.NDArray[np.float32]

DIRECT_ROWS: Final = 32
"""The batch that the target ratios are of."""
_DIRECT_S: Final = 0.4
_PROBES: Final = 5
_CUT_OFF: Final = frozenset({"ok", "cancelled"})
"""Outcomes that are no errors: wrk and h2load leave what is in flight when their time is up."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination.

    Attributes:
        model: what to ask.
        protocol: http or grpc.
        concurrency: requests in flight; 0 where `arrivals_per_s` decides.
        rows: per request.
        arrivals_per_s: 0 for a closed loop; else requests come at random (Poisson) times, however slow the
            answers are. Over gRPC only: wrk knows no other loop.
    """

    model: BenchModel
    protocol: str
    concurrency: int
    rows: int
    arrivals_per_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one run of a cell gave.

    Attributes:
        requests_per_s: as the generator counted.
        rows_per_s: the same times rows per request.
        p50_ms: median latency, as the generator saw it.
        p99_ms: 99th percentile.
        cpu_us: server CPU per request, of all its processes.
        mean_batch: rows per run of the model.
        direct_rows_per_s: ONNX Runtime alone in batches of 32, measured on the server's core just before.
        direct_share: share of the core that those calls got.
        ratio: `rows_per_s` to `direct_rows_per_s`.
        cpu_ratio: direct CPU per row to the gateway's: what `ratio` is when the gateway has its core to
            itself and keeps it busy. It holds on a noisy machine.
        batch_sizes: runs by the upper bound of their size's bucket.
        closed: runs by why they were closed.
        foreign: share of the server's core that others took meanwhile.
        steal: share of it that the host took.
        generator_idle: share of the generator's core left over; near 0 it is the generator that is measured.
        errors: what went wrong, in words; none if all is well.
    """

    requests_per_s: float
    rows_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    mean_batch: float
    direct_rows_per_s: float
    direct_share: float
    ratio: float
    cpu_ratio: float
    batch_sizes: Mapping[str, float]
    closed: Mapping[str, float]
    foreign: float
    steal: float
    generator_idle: float
    errors: tuple[str, ...] = ()


@dataclass(slots=True)
class Bench:
    """Everything a cell needs.

    Attributes:
        gateway: under load.
        direct: the yardstick, on the gateway's core.
        references: model name -> the same model in this process, to check answers with.
        generator_core: where the generators run.
        folder: for request files and the generators' logs.
    """

    gateway: ServedGateway
    direct: DirectProcess
    references: Mapping[str, DirectModel]
    generator_core: int
    folder: Path
    _seed: int = field(default=1000)

    def run(self, cell: Cell, seconds: int) -> Measurement:
        """Measure direct calls, then the gateway under load for so long."""
        yardstick = self.direct.measure(cell.model.file, DIRECT_ROWS, _DIRECT_S)
        before = self.gateway.counters(cell.model)
        meter = _Meter(self.gateway, self.generator_core)
        load, wrong = self._load(cell, seconds)
        cpu_s, noise = meter.read(load.seconds)
        counted = self.gateway.counters(cell.model).since(before)
        rows_per_s = load.requests * cell.rows / load.seconds
        cpu_us = cpu_s * 1e6 / max(counted.answered.get("ok", 0), 1)
        return Measurement(
            requests_per_s=load.requests / load.seconds,
            rows_per_s=rows_per_s,
            p50_ms=load.p50_ms,
            p99_ms=load.p99_ms,
            cpu_us=cpu_us,
            mean_batch=counted.rows / max(counted.batches, 1),
            direct_rows_per_s=yardstick["rows_per_s"],
            direct_share=yardstick["core_share"],
            ratio=rows_per_s / yardstick["rows_per_s"],
            cpu_ratio=yardstick["row_cpu_us"] * cell.rows / cpu_us,
            batch_sizes=counted.sizes,
            closed=counted.closed,
            errors=(*wrong, *_errors(cell, load, counted)),
            **asdict(noise),
        )

    def _load(self, cell: Cell, seconds: int) -> tuple[Load, list[str]]:
        """Run the generator, and while it runs send requests of our own and check the answers."""
        if cell.protocol == "http":
            request = http_request(cell.model, cell.rows, self.folder)
            target = Target(self.gateway.http_url(cell.model), request, self.generator_core)
            with wrk(target, cell.concurrency, seconds) as process:
                wrong = self._probe(cell, seconds)
                return wrk_load(process.communicate()[0]), wrong
        log = self.folder / "h2load.log"
        request = grpc_request(cell.model, cell.rows, self.folder)
        target = Target(self.gateway.grpc_url(), request, self.generator_core)
        with self._h2load(cell, target, seconds, log) as process:
            wrong = self._probe(cell, seconds)
            return h2load_load(process.communicate()[0], log), wrong

    def _h2load(
        self, cell: Cell, target: Target, seconds: int, log: Path
    ) -> AbstractContextManager[subprocess.Popen[str]]:
        if not cell.arrivals_per_s:
            return h2load(target, cell.concurrency, seconds, log)
        gaps_s = np.random.default_rng(self._seed).exponential(
            1 / cell.arrivals_per_s, seconds * cell.arrivals_per_s
        )
        return h2load_at(target, np.cumsum(gaps_s).tolist(), log)

    def _probe(self, cell: Cell, seconds: int) -> list[str]:
        """Spread some requests over the run, each with other values; return those answered wrongly."""
        wrong: list[str] = []
        pause = threading.Event()  # never set: it only spaces the requests
        for _ in range(_PROBES):
            pause.wait(seconds / (_PROBES + 1))
            self._seed += 1
            tensor = cell.model.tensor(cell.rows, self._seed)
            expected = self.references[cell.model.name].run(tensor.array)
            ask = self._ask_http if cell.protocol == "http" else self._ask_grpc
            if not same(ask(cell.model, tensor), expected):
                wrong.append(f"input of seed {self._seed} was answered with other values than ONNX Runtime's")
        return wrong

    def _ask_http(self, model: BenchModel, tensor: Tensor) -> Floats:
        headers, body = encode_request([tensor])
        with GatewayClient(Address(False, "127.0.0.1", self.gateway.http_port)) as client:
            reply = client.request("POST", f"/v2/models/{model.name}/infer", body, headers)
        if reply.status != 200:
            raise RuntimeError(f"{model.name} answered {reply.status}: {reply.body[:300]!r}")
        return decode_response(reply.headers, reply.body)[1][0].array

    def _ask_grpc(self, model: BenchModel, tensor: Tensor) -> Floats:
        address, _, method = self.gateway.grpc_url().removeprefix("http://").partition("/")
        with grpc.insecure_channel(address) as channel:
            call: Any = channel.unary_unary(f"/{method}")
            answer = pb.ModelInferResponse.FromString(call(grpc_message(model, tensor), timeout=30))
        values = np.frombuffer(answer.raw_output_contents[0], np.float32)
        return values.reshape(tuple(answer.outputs[0].shape))


@dataclass(frozen=True, slots=True)
class _Noise:
    foreign: float
    steal: float
    generator_idle: float


class _Meter:
    """CPU time of the gateway and of both cores from its making on."""

    def __init__(self, gateway: ServedGateway, generator_core: int) -> None:
        self._gateway, self._cores = gateway, (gateway.core, generator_core)
        self._before = self._read()

    def read(self, seconds: float) -> tuple[float, _Noise]:
        """Return the gateway's CPU seconds, and what went elsewhere in a run of `seconds`."""
        cpu_s, core, generator = self._read()
        cpu_s -= self._before[0]
        core, generator = core.since(self._before[1]), generator.since(self._before[2])
        foreign = max(core.busy_s - cpu_s, 0.0) / seconds
        return cpu_s, _Noise(foreign, core.steal_s / seconds, generator.idle_s / seconds)

    def _read(self) -> tuple[float, CoreTime, CoreTime]:
        return self._gateway.cpu_s(), core_time(self._cores[0]), core_time(self._cores[1])


def _errors(cell: Cell, load: Load, counted: Counters) -> list[str]:
    errors = [f"{load.failed} requests failed as the generator saw it"] if load.failed else []
    errors += [
        f"{count:.0f} requests ended with outcome {outcome}"
        for outcome, count in counted.answered.items()
        if outcome not in _CUT_OFF
    ]
    # What the generator counts as answered, the gateway must have answered well: h2load sees no gRPC status.
    answered, slack = counted.answered.get("ok", 0), 2 * cell.concurrency + _PROBES
    if abs(answered - load.requests) > slack:
        errors.append(f"the generator counted {load.requests} answers, the gateway {answered:.0f} good ones")
    return errors
