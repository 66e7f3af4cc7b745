"""Mutates valid HTTP and gRPC messages and sends them: each must be answered, and nothing harmed."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from gateway._proto import open_inference_pb2 as pb
from loadtests.soak_grpc import channel, unary
from loadtests.soak_http import HttpConnection, NoAnswer, request
from loadtests.soak_load import grpc_infer, http_infer
from loadtests.soak_models import NUMBERS, OFFSET, TEXT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from loadtests.soak_grpc import Unary
    from loadtests.soak_server import GatewayProcess

ALLOWED_HTTP: Final = frozenset({200, 400, 404, 405, 408, 413, 414, 429, 431, 501, 503, 504})
"""Whatever is sent: no 500, and 501, 503, 504 for the causes that docs/errors.md lists."""
ALLOWED_RPC: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAVAILABLE,  # load and unload where the mode does not allow them
        grpc.StatusCode.DEADLINE_EXCEEDED,  # a mutated timeout
    }
)
_ANSWER_S: Final = 30.0
_ODD_BYTES: Final = (
    b"\x00",
    b"\xff",
    b"\x80",
    b"\r\n",
    b'"',
    b"\\",
    b"{",
    b"[",
    b"%00",
    b",",
    b"-",
    b"\xf0\x9f",
)
_ODD_NUMBERS: Final = (
    b"-1",
    b"0",
    b"9223372036854775808",
    b"1e400",
    b"NaN",
    b"4294967295",
    b"0x10",
    b"1" * 400,
)


class Mutator:
    """Changes messages; the same seed gives the same changes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._ways: Sequence[Callable[[bytes], bytes]] = (
            self._flip, self._drop, self._insert, self._repeat, self._cut, self._number, self._swap,
        )  # fmt: skip

    def __call__(self, data: bytes) -> bytes:
        """Return `data` with one to four changes."""
        for _ in range(self._random.randint(1, 4)):
            data = self._random.choice(self._ways)(data)
        return data

    def choice(self, seeds: Sequence[bytes]) -> bytes:
        """Pick a message to change."""
        return self._random.choice(seeds)

    def _span(self, data: bytes) -> tuple[int, int]:
        start = self._random.randint(0, len(data))
        return start, min(len(data), start + self._random.choice((1, 2, 4, 8, 32, 128)))

    def _flip(self, data: bytes) -> bytes:
        at, _ = self._span(data)
        return data[:at] + bytes([self._random.randrange(256)]) + data[at + 1 :]

    def _drop(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + data[end:]

    def _insert(self, data: bytes) -> bytes:
        at, _ = self._span(data)
        return data[:at] + self._random.choice(_ODD_BYTES) * self._random.choice((1, 1, 2, 100)) + data[at:]

    def _repeat(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:end] + data[start:end] * self._random.choice((1, 2, 50)) + data[end:]

    def _cut(self, data: bytes) -> bytes:
        return data[: self._random.randint(0, len(data))]

    def _number(self, data: bytes) -> bytes:
        """Put an odd number where digits are."""
        places = [i for i, byte in enumerate(data) if 0x30 <= byte <= 0x39]
        if not places:
            return data
        at = self._random.choice(places)
        return data[:at] + self._random.choice(_ODD_NUMBERS) + data[at + 1 :]

    def _swap(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + data[end : end + end - start] + data[start:end] + data[2 * end - start :]


@dataclass(slots=True)
class FuzzReport:
    """What came back.

    Attributes:
        answers: by HTTP status or gRPC code.
        problems: answers that no message may get, with the message that got them.
    """

    answers: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def note(self, answer: str, *, allowed: bool, sent: bytes) -> None:
        """Count an answer."""
        self.answers[answer] += 1
        if not allowed:
            self.problems.append(f"{answer} to {sent[:2000]!r}")


def http_seeds() -> list[bytes]:
    """Return valid HTTP requests of every kind."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [[0.5, 1, -2e3, 4]] * 2}
    outputs = [{"name": "y", "parameters": {"binary_data": True}}]
    infer = json.dumps({"id": "a", "parameters": {"timeout": 10**7}, "inputs": [tensor], "outputs": outputs})
    texts = json.dumps(
        {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [2], "data": ["a\\n", "\u00e9"]}]}
    )
    numbers = json.dumps(
        {"inputs": [{"name": "x", "datatype": "INT8", "shape": [1, 2], "data": [-128, 127]}]}
    )
    chunked = (
        f"POST /v2/models/{OFFSET}/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    return [
        http_infer((1.0, 2.0, 3.0, 4.0)),
        request("POST", f"/v2/models/{OFFSET}/infer", infer.encode()),
        request(
            "POST",
            f"/v2/models/{OFFSET}/versions/1/infer",
            gzip.compress(infer.encode()),
            Content_Encoding="gzip",
        ),
        request("POST", f"/v2/models/{TEXT}/infer", texts.encode()),
        request("POST", f"/v2/models/{NUMBERS}/infer", numbers.encode()),
        request("POST", f"/v2/models/{OFFSET}/infer", bytes(16), Inference_Header_Content_Length="0"),
        request("POST", f"/v2/models/{OFFSET}/generate", b'{"x":[1,2,3,4],"id":"g"}'),
        request("POST", "/v2/repository/index", b'{"ready":true}'),
        request("GET", f"/v2/models/{OFFSET}/stats", Accept_Encoding="gzip;q=0.5, deflate"),
        chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(infer), infer.encode()),
    ]


def rpc_seeds() -> list[tuple[str, bytes]]:
    """Return methods with valid messages."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    typed = pb.ModelInferRequest(model_name=OFFSET, id="i", inputs=[tensor])
    typed.parameters["timeout"].int64_param = 10**7
    text = pb.ModelInferRequest(model_name=TEXT, raw_input_contents=[b"\x01\x00\x00\x00a" * 2])
    text.inputs.add(name="x", datatype="BYTES", shape=[2])
    return [
        ("ModelInfer", grpc_infer((1.0, 2.0, 3.0, 4.0))),
        ("ModelInfer", typed.SerializeToString()),
        ("ModelInfer", text.SerializeToString()),
        ("ModelMetadata", pb.ModelMetadataRequest(name=OFFSET, version="1").SerializeToString()),
        ("ModelStatistics", pb.ModelStatisticsRequest(name=OFFSET).SerializeToString()),
        ("RepositoryIndex", pb.RepositoryIndexRequest(ready=True).SerializeToString()),
    ]


async def fuzz_http(port: int, mutator: Mutator, count: int, report: FuzzReport) -> None:
    """Send `count` mutated requests, each on a connection of its own that is half-closed after it."""
    seeds = http_seeds()
    for _ in range(count):
        sent = mutator(mutator.choice(seeds))
        async with asyncio.timeout(_ANSWER_S), HttpConnection(port) as connection:
            connection.writer.write(sent)
            connection.writer.write_eof()
            for status in [status async for status in _statuses(connection)] or [0]:
                # No answer at all is right for no request, and for a client that went before its answer.
                report.note(str(status), allowed=not status or status in ALLOWED_HTTP, sent=sent)


async def _statuses(connection: HttpConnection) -> AsyncIterator[int]:
    """Give the status of each answer until the server closes."""
    with contextlib.suppress(NoAnswer):
        while True:
            yield (await connection.answer()).status


async def fuzz_rpc(port: int, mutator: Mutator, count: int, report: FuzzReport) -> None:
    """Send `count` mutated messages over one connection, which must outlive them."""
    seeds = rpc_seeds()
    async with channel(port) as over:
        methods: dict[str, Unary] = {name: unary(over, name) for name, _ in seeds}
        for index in range(count):
            name, seed = seeds[index % len(seeds)]
            sent = mutator(seed)
            try:
                await methods[name](sent, timeout=_ANSWER_S)
            except grpc.aio.AioRpcError as exc:
                report.note(exc.code().name, allowed=exc.code() in ALLOWED_RPC, sent=sent)
            else:
                report.note("OK", allowed=True, sent=sent)


async def fuzz(server: GatewayProcess, count: int, seed: int) -> FuzzReport:
    """Send `count` mutated messages over each protocol at once; the same seed sends the same ones."""
    report = FuzzReport()
    async with asyncio.TaskGroup() as group:
        group.create_task(fuzz_http(server.http_port, Mutator(seed), count, report))
        group.create_task(fuzz_rpc(server.grpc_port, Mutator(seed), count, report))
    return report


def rounds(duration_s: float) -> Iterator[int]:
    """Count up from 1 until the time is over."""
    end_s = time.monotonic() + duration_s
    number = 0
    while time.monotonic() < end_s:
        yield (number := number + 1)
