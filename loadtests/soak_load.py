"""Keeps a gateway under load and judges every answer: right, wrong, refused, failed, or never accepted."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from gateway._proto import open_inference_pb2 as pb
from loadtests.soak_grpc import channel, failure, unary
from loadtests.soak_http import HttpAnswer, HttpConnection, NoAnswer, request
from loadtests.soak_models import OFFSET, WIDTH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Self

_FLOATS: Final = struct.Struct(f"<{WIDTH}f")
_MOST_PROBLEMS: Final = 20


@dataclass(slots=True)
class Tally:
    """What became of the requests.

    A request was accepted when the server had read it. Of one that got no byte of an answer because its
    connection ended, that cannot be known from outside; HTTP lets a server close an idle connection while
    a request is on its way (RFC 9112, section 9.3.1), so those are counted apart, as `unanswered`.

    Attributes:
        right: answered with what the version named in the answer computes.
        refused: answered by a refusal that says the server is going, or the connection was refused.
        unanswered: the connection ended without a byte of an answer.
        problems: everything else, the first few in words.
        failed: how many of these.
        versions: answers by version.
    """

    right: int = 0
    refused: int = 0
    unanswered: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def problem(self, text: str) -> None:
        """Count a request that failed or was answered wrongly."""
        self.failed += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)

    async def judge(self, version: str, sent: tuple[float, ...], got: bytes) -> None:
        """Compare an answer of the offset model with what its version computes."""
        expected = _FLOATS.pack(*(value + float(version) for value in sent))
        if got != expected:
            self.problem(f"version {version} answered {got.hex()} to {sent}")
            return
        self.right += 1
        self.versions[version] += 1
        async with self._changed:
            self._changed.notify_all()

    async def reached(self, version: str) -> None:
        """Wait until a version has answered; cancelling is harmless."""
        async with self._changed:
            await self._changed.wait_for(lambda: version in self.versions)

    async def answered(self, count: int) -> None:
        """Wait until so many requests have been answered rightly since the start."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.right >= count)


class _Client:
    """One closed loop of requests on one connection; ends when told, or when the server has gone."""

    def __init__(self, port: int, tally: Tally, seed: int) -> None:
        self._port = port
        self._tally = tally
        self._random = random.Random(seed)
        self.stopping = False

    def values(self) -> tuple[float, ...]:
        """Return a row that no other request is likely to send; whole numbers, so that sums are exact."""
        return tuple(float(self._random.randrange(1 << 20)) for _ in range(WIDTH))


class HttpClient(_Client):
    """Requests with binary tensors over HTTP/1.1 keep-alive."""

    async def run(self) -> None:
        """Send until stopped; connect again where the server closed the connection after an answer."""
        while not self.stopping:
            try:
                async with HttpConnection(self._port) as connection:
                    await self._converse(connection)
            except (ConnectionRefusedError, ConnectionResetError):
                self._tally.refused += 1
                return

    async def _converse(self, connection: HttpConnection) -> None:
        while not self.stopping:
            sent = self.values()
            try:
                answer = await connection.exchange(http_infer(sent))
            except NoAnswer as exc:
                if exc.partial:
                    self._tally.problem(f"HTTP answer broken off: {exc}")
                else:
                    self._tally.unanswered += 1
                return
            await self._take(sent, answer)
            if answer.closing:
                return

    async def _take(self, sent: tuple[float, ...], answer: HttpAnswer) -> None:
        if answer.status == 200:
            split = int(answer.headers["inference-header-content-length"])
            version = HttpAnswer(200, {}, answer.body[:split]).json["model_version"]
            await self._tally.judge(version, sent, answer.body[split:])
        elif answer.status == 503 and "shutting down" in answer.error:
            self._tally.refused += 1
            self.stopping = True  # it was told to go elsewhere
        else:
            self._tally.problem(f"HTTP {answer.status}: {answer.error}")


class GrpcClient(_Client):
    """Unary requests over one gRPC channel."""

    async def run(self) -> None:
        """Send until stopped or until the server has gone."""
        async with channel(self._port) as over:
            infer = unary(over)
            while not self.stopping:
                sent = self.values()
                try:
                    answer = pb.ModelInferResponse.FromString(await infer(grpc_infer(sent)))
                except grpc.aio.AioRpcError as exc:
                    if not self._refused(exc):
                        self._tally.problem(failure(exc))
                    return
                await self._tally.judge(answer.model_version, sent, answer.raw_output_contents[0])

    def _refused(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether the server said that it is going, or there was nobody to connect to."""
        details = error.details() or ""
        gone = "shutting down" in details or "onnection refused" in details or "GOAWAY" in details
        if error.code() is not grpc.StatusCode.UNAVAILABLE or not gone:
            return False
        self._tally.refused += 1
        return True


def http_infer(values: tuple[float, ...], model: str = OFFSET) -> bytes:
    """Return an HTTP request for one row with binary tensors both ways."""
    data = _FLOATS.pack(*values)
    described = (
        f'"name":"x","datatype":"FP32","shape":[1,{WIDTH}],"parameters":{{"binary_data_size":{len(data)}}}'
    )
    head = f'{{"parameters":{{"binary_data_output":true}},"inputs":[{{{described}}}]}}'.encode()
    return request(
        "POST", f"/v2/models/{model}/infer", head + data, Inference_Header_Content_Length=str(len(head))
    )


def grpc_infer(values: tuple[float, ...], model: str = OFFSET) -> bytes:
    """Return a ModelInferRequest for one row."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, WIDTH])
    message = pb.ModelInferRequest(
        model_name=model, inputs=[tensor], raw_input_contents=[_FLOATS.pack(*values)]
    )
    return message.SerializeToString()


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes, and with how many clients of each kind."""

    http_port: int
    grpc_port: int
    http_clients: int = 4
    grpc_clients: int = 4


class Load:
    """Clients at work; see `under_load`."""

    def __init__(self, target: Target) -> None:
        self.tally = Tally()
        http = [HttpClient(target.http_port, self.tally, i) for i in range(target.http_clients)]
        rpc = [GrpcClient(target.grpc_port, self.tally, 1000 + i) for i in range(target.grpc_clients)]
        self._clients: list[HttpClient | GrpcClient] = [*http, *rpc]
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._tasks = [self._group.create_task(client.run()) for client in self._clients]
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.stop()
        await self._group.__aexit__(*raised)  # type: ignore[arg-type]  # the three that `with` passes

    def stop(self) -> None:
        """Let every client finish the request it has under way."""
        for client in self._clients:
            client.stopping = True

    async def gone(self) -> None:
        """Wait until every client has noticed that the server went."""
        await asyncio.wait(self._tasks)


@asynccontextmanager
async def under_load(target: Target) -> AsyncIterator[Tally]:
    """Keep the clients busy while the block runs; afterwards each has had its last answer."""
    async with Load(target) as load:
        yield load.tally
