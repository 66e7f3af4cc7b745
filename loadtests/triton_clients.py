"""Requests to a fleet's model at random times, and a verdict on each answer."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc.aio

from gateway._proto import open_inference_pb2 as pb
from loadtests.soak_grpc import channel, failure, unary
from loadtests.soak_http import HttpConnection, NoAnswer, request
from loadtests.soak_models import OFFSET, WIDTH
from loadtests.triton_scene import VERSIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


RIGHT: Final = ""
WRONG: Final = "wrong"
_FLOATS: Final = struct.Struct(f"<{WIDTH}f")


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Attributes:
        sent_s: when it was sent, by the event loop's clock.
        seconds: until its answer.
        error: empty: answered, rightly; else what it was refused with, or `wrong` and how.
    """

    sent_s: float
    seconds: float
    error: str

    @property
    def wrong(self) -> bool:
        """Whether it got an answer that it should not have got."""
        return self.error.startswith(WRONG)


@dataclass(slots=True)
class Answers:
    """What became of requests.

    Attributes:
        sent: how many were sent.
        got: one for each that is over.
    """

    sent: int = 0
    got: list[Answer] = field(default_factory=list)

    def between(self, first_s: float, last_s: float = float("inf")) -> Sequence[Answer]:
        """Return the answers to requests sent in this time."""
        return [answer for answer in self.got if first_s <= answer.sent_s < last_s]


def failed(answers: Sequence[Answer]) -> int:
    """Return how many clients saw an error."""
    return sum(bool(answer.error) for answer in answers)


def reasons(answers: Sequence[Answer]) -> list[str]:
    """Return the errors, the most frequent first, with their counts."""
    return [f"{n} x {text}" for text, n in Counter(a.error for a in answers if a.error).most_common(8)]


class OpenLoad(ABC):
    """Sends requests at random times of a fixed mean rate, whatever becomes of those before.

    Each names one of the versions, and the answer must be what exactly that one gives.

    Args:
        port: of the gateway.
        rate: requests per second.
        model: the model's public name; it computes `x + version`.
        seed: of its randomness.
    """

    def __init__(self, port: int, *, rate: float, model: str = OFFSET, seed: int = 1) -> None:
        self.answers = Answers()
        self._port = port
        self._rate = rate
        self._model = model
        self._random = random.Random(seed)

    async def run(self, stop: asyncio.Event) -> None:
        """Send until told to stop; return when every request has its answer."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        async with self._connected(), asyncio.TaskGroup() as group:
            while not stop.is_set():
                due_s += self._random.expovariate(self._rate)
                await asyncio.sleep(due_s - loop.time())
                self.answers.sent += 1
                group.create_task(self._ask())

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        version = self._random.choice(VERSIONS)
        values = tuple(float(self._random.randrange(1 << 20)) for _ in range(WIDTH))
        sent_s = loop.time()
        verdict = await self._verdict(values, version)
        self.answers.got.append(Answer(sent_s, loop.time() - sent_s, verdict))

    @abstractmethod
    def _connected(self) -> AbstractAsyncContextManager[None]:
        """Return what holds the connections."""

    @abstractmethod
    async def _verdict(self, values: Sequence[float], version: int) -> str:
        """Send one request; return what is wrong with its answer."""


class GrpcLoad(OpenLoad):
    """Over one gRPC channel, each request with a deadline of `deadline_s`."""

    def __init__(
        self, port: int, *, rate: float, deadline_s: float, model: str = OFFSET, seed: int = 1
    ) -> None:
        super().__init__(port, rate=rate, model=model, seed=seed)
        self._deadline_s = deadline_s

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        async with channel(self._port) as over:
            self._infer = unary(over)
            yield

    async def _verdict(self, values: Sequence[float], version: int) -> str:
        try:
            data = await self._infer(message(self._model, values, version), timeout=self._deadline_s)
        except grpc.aio.AioRpcError as error:
            return failure(error)
        return judged(data, values, version)


class HttpLoad(OpenLoad):
    """Over as many HTTP connections as there are requests under way, without deadlines."""

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        self._free: list[HttpConnection] = []
        try:
            yield
        finally:
            for connection in self._free:
                connection.abort()

    async def _verdict(self, values: Sequence[float], version: int) -> str:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": list(values)}
        body = json.dumps({"inputs": [tensor]}).encode()
        path = f"/v2/models/{self._model}/versions/{version}/infer"
        connection = await self._connection()
        try:
            answer = await connection.exchange(request("POST", path, body))
        except NoAnswer as error:
            return f"no answer: {error}"
        self._free.append(connection)
        if answer.status != 200:
            return f"HTTP {answer.status}: {answer.error}"
        said = answer.json
        if said["model_version"] != str(version):
            return f"{WRONG}: version {said['model_version']} answered for {version}"
        right = said["outputs"][0]["data"] == [value + version for value in values]
        return RIGHT if right else f"{WRONG}: data of another request or version, {version} asked"

    async def _connection(self) -> HttpConnection:
        while self._free:
            connection = self._free.pop()
            if not connection.ended:
                return connection
            connection.abort()
        return await HttpConnection(self._port).__aenter__()


def message(model: str, values: Sequence[float], version: int) -> bytes:
    """Return a ModelInferRequest for one row."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, WIDTH])
    asked = pb.ModelInferRequest(
        model_name=model,
        model_version=str(version),
        inputs=[tensor],
        raw_input_contents=[_FLOATS.pack(*values)],
    )
    return asked.SerializeToString()


def judged(data: bytes, values: Sequence[float], version: int) -> str:
    """Return what is wrong with an answer; empty: nothing."""
    answer = pb.ModelInferResponse.FromString(data)
    if answer.model_version != str(version):
        return f"{WRONG}: version {answer.model_version} answered for {version}"
    expected = _FLOATS.pack(*(value + version for value in values))
    if list(answer.raw_output_contents) != [expected]:
        return f"{WRONG}: data of another request or version, {version} asked"
    return RIGHT
