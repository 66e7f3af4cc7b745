"""ModelStreamInfer through both gRPC clients: order, errors in band, half-close, cancellation."""

from __future__ import annotations

import asyncio
import queue
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from tests.acceptance.clients import ON_BOTH, Client, LoopThread, connected, floats
from tests.acceptance.process import RunningGateway, until
from tests.acceptance.test_describe import counters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import numpy.typing as npt

pytestmark = ON_BOTH

CLOSE_ON_ERROR = {"triton_grpc_error": "true"}


def request(model: str, request_id: str, array: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Return the arguments of a request on a stream."""
    tensor = tritonclient.grpc.InferInput("x", list(array.shape), "FP32").set_data_from_numpy(array)
    return {"model_name": model, "inputs": [tensor], "request_id": request_id}


class Stream(Protocol):
    """A stream that is open."""

    def send(self, request: dict[str, Any]) -> None:
        """Send a request."""

    def receive(self) -> Any:
        """Wait for the next answer; raise it if it is an error."""

    def finish(self) -> None:
        """Half-close, and wait until the server has answered everything and ended the stream."""

    def cancel(self) -> None:
        """Give it up."""

    def close(self) -> None:
        """Free what it holds."""


class SyncStream(Stream):
    """A stream of tritonclient.grpc."""

    def __init__(self, gateway: RunningGateway, headers: dict[str, str]) -> None:
        self._client = tritonclient.grpc.InferenceServerClient(gateway.grpc)
        self._answers: queue.Queue[Any] = queue.Queue()
        self._client.start_stream(lambda result, error: self._answers.put(error or result), headers=headers)

    def send(self, request: dict[str, Any]) -> None:
        self._client.async_stream_infer(**request)

    def receive(self) -> Any:
        return _unless_error(self._answers.get(timeout=60))

    def finish(self) -> None:
        self._client.stop_stream()

    def cancel(self) -> None:
        self._client.stop_stream(cancel_requests=True)

    def close(self) -> None:
        self._client.close()


class AioStream(Stream):
    """A stream of tritonclient.grpc.aio, on a loop of its own."""

    def __init__(self, gateway: RunningGateway, headers: dict[str, str]) -> None:
        self._requests: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._answers: queue.Queue[Any] = queue.Queue()
        self._loop = LoopThread()
        self._pumped = self._loop.begin(self._pump(gateway.grpc, headers))

    def send(self, request: dict[str, Any]) -> None:
        self._loop.begin(self._requests.put(request)).result()

    def receive(self) -> Any:
        return _unless_error(self._answers.get(timeout=60))

    def finish(self) -> None:
        self._loop.begin(self._requests.put(None)).result()
        self._pumped.result(60)

    def cancel(self) -> None:
        self._call.cancel()
        self._pumped.result(60)

    def close(self) -> None:
        self._pumped.cancel()
        self._loop.close()

    async def _pump(self, address: str, headers: dict[str, str]) -> None:
        async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
            self._call = client.stream_infer(self._sent(), headers=headers)
            try:
                async for result, error in self._call:
                    self._answers.put(error or result)
            except grpc.aio.AioRpcError as error:
                self._answers.put(InferenceServerException(error.details(), str(error.code())))
            except asyncio.CancelledError:
                self._answers.put(InferenceServerException("cancelled", "StatusCode.CANCELLED"))

    async def _sent(self) -> AsyncIterator[dict[str, Any]]:
        while (request := await self._requests.get()) is not None:
            yield request


def _unless_error(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture(params=[{}], ids=["plain"])
def headers(request: pytest.FixtureRequest) -> dict[str, str]:
    headers: dict[str, str] = request.param
    return headers


@pytest.fixture(params=[SyncStream, AioStream], ids=["grpc", "grpc.aio"])
def stream(request: pytest.FixtureRequest, zoo: RunningGateway, headers: dict[str, str]) -> Iterator[Stream]:
    stream: Stream = request.param(zoo, headers)
    yield stream
    stream.close()


@pytest.fixture
def other(zoo: RunningGateway) -> Iterator[Client]:
    """A client beside the stream."""
    with connected("grpc", zoo) as client:
        yield client


def test_answers_come_in_the_order_of_requests(stream: Stream) -> None:
    """Whichever of several models they are for; each with its own id and data."""
    models = ("scaled", "identity_fp32", "optional")
    for number in range(120):
        stream.send(request(models[number % 3], str(number), np.full((1, 2), number, np.float32)))
    for number in range(120):
        result = stream.receive()
        expected = (number * 2.0, float(number), number + 10.0)[number % 3]
        assert result.get_response().id == str(number)
        assert result.as_numpy("y").tolist() == [[expected, expected]]
        assert result.get_response().parameters["triton_final_response"].bool_param
    stream.finish()


def test_a_slow_answer_holds_back_those_behind_it(stream: Stream, other: Client, zoo: RunningGateway) -> None:
    """The second request has run before the first one's batch is full, and is answered after it."""
    done = counters(other, "scaled")["inference_count"]
    stream.send(request("patient", "slow", floats([1])))
    stream.send(request("scaled", "quick", floats([1, 2])))
    until(lambda: counters(other, "scaled")["inference_count"] == done + 1)
    assert zoo.waiting("patient") == 1
    other.infer("patient", {"x": floats([2], [3], [4])})
    assert [stream.receive().get_response().id for _ in range(2)] == ["slow", "quick"]
    stream.finish()


def test_an_error_is_an_answer_and_the_stream_goes_on(stream: Stream) -> None:
    """In its place in the order, with the words a single call would get."""
    stream.send(request("scaled", "1", floats([1, 2])))
    stream.send(request("nothing", "2", floats([1, 2])))
    stream.send(request("scaled", "3", floats([1, 2, 3])))
    stream.send(request("scaled", "4", floats([3, 4])))
    assert stream.receive().as_numpy("y").tolist() == [[2, 4]]
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'nothing' is not found"):
        stream.receive()
    with pytest.raises(InferenceServerException, match="unexpected shape for input 'x' for model 'scaled'"):
        stream.receive()
    assert stream.receive().as_numpy("y").tolist() == [[6, 8]]
    stream.finish()


@pytest.mark.parametrize("headers", [CLOSE_ON_ERROR], ids=["close-on-error"], indirect=True)
def test_an_error_ends_the_stream_if_asked_for(stream: Stream) -> None:
    """With Triton's header the first error is the stream's status."""
    stream.send(request("nothing", "1", floats([1, 2])))
    with pytest.raises(InferenceServerException, match="'nothing' is not found") as raised:
        stream.receive()
    assert raised.value.status() == "StatusCode.NOT_FOUND"


def test_what_was_sent_before_the_half_close_is_answered(stream: Stream) -> None:
    """A client may half-close at once and still gets every answer."""
    for number in range(20):
        stream.send(request("scaled", str(number), np.full((1, 2), number, np.float32)))
    stream.finish()
    assert [stream.receive().get_response().id for _ in range(20)] == [str(number) for number in range(20)]


def test_a_cancelled_stream_takes_its_requests_along(
    stream: Stream, other: Client, zoo: RunningGateway
) -> None:
    """They leave the queue, and the server serves others."""
    stream.send(request("patient", "1", floats([1])))
    until(lambda: zoo.waiting("patient") == 1)
    stream.cancel()
    with pytest.raises(InferenceServerException) as raised:
        stream.receive()
    assert raised.value.status() == "StatusCode.CANCELLED"
    until(lambda: zoo.waiting("patient") == 0)
    assert other.infer("scaled", {"x": floats([1, 2])}).as_numpy("y").tolist() == [[2, 4]]
