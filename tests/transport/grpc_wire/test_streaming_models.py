"""Models with any number of responses, over each transport: the protocol's streams with a real client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from gateway.api.context import ApiContext
from gateway.api.grpc_services import rpc_services
from gateway.api.readiness import ReadinessNotifier
from gateway.api.server_metadata import ServerMetadata
from gateway.core.errors import BackendError
from gateway.testing import EchoService, VirtualClock
from gateway.transport.options import GrpcServerOptions
from tests.api.drivers import DECOUPLED, Catalog, Repository
from tests.api.messages import infer, rows_of, stream_response
from tests.transport.grpc_wire.servers import NO_LIMITS, TRANSPORTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway._proto import open_inference_pb2 as pb
    from gateway.core.types import InferRequest, InferResponse

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"


class Scripted(EchoService):
    """Gives a response whenever it is let go on, two of them, and then perhaps fails."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Semaphore(0)
        self.begun = asyncio.Event()
        self.closed = asyncio.Event()
        self.failure: Exception | None = None

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        try:
            self.begun.set()
            for final in (False, True):
                await self.go.acquire()
                yield self._response(request, request.inputs, final=final and self.failure is None)
            if self.failure is not None:
                raise self.failure
        finally:
            self.closed.set()


@pytest.fixture
def service() -> Scripted:
    return Scripted()


@pytest.fixture
async def channel(service: Scripted, transport: str) -> AsyncIterator[grpc.aio.Channel]:
    """A client of the inference protocol with a model `many` that is decoupled, and a plain one, `rows`."""
    catalog = Catalog()
    catalog.put("rows")
    catalog.put("many", signature=DECOUPLED)
    context = ApiContext(
        service=service,
        catalog=catalog,
        repository=Repository(),
        readiness=ReadinessNotifier(),
        clock=VirtualClock(1000.0),
        metadata=ServerMetadata("model-gateway", "1.2.3"),
        max_stream_inflight=3,
    )
    server = TRANSPORTS[transport](rpc_services(context), GrpcServerOptions(port=0))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=NO_LIMITS) as channel:
        yield channel
    await server.stop(0.0)


def stream_of(channel: grpc.aio.Channel, **options: Any) -> Any:
    multicallable: Any = channel.stream_stream(METHOD, response_deserializer=stream_response)
    return multicallable(**options)


def is_final(answer: pb.ModelStreamInferResponse) -> bool:
    return answer.infer_response.parameters["triton_final_response"].bool_param


async def test_each_response_comes_when_it_is_there(channel: grpc.aio.Channel, service: Scripted) -> None:
    """Several for one request, the last marked; others on the stream do not wait for them."""
    stream = stream_of(channel)
    await stream.write(infer([[1, 2]], model="many", request_id="d"))
    service.go.release()
    first = await stream.read()
    assert (rows_of(first.infer_response), is_final(first)) == ([[1, 2]], False)
    await stream.write(infer([[3, 4]], request_id="plain"))
    assert (await stream.read()).infer_response.id == "plain"
    service.go.release()
    last = await stream.read()
    assert (last.infer_response.id, is_final(last)) == ("d", True)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_failure_comes_behind_the_responses(channel: grpc.aio.Channel, service: Scripted) -> None:
    """As a message; the stream goes on."""
    service.failure = BackendError("it broke")
    stream = stream_of(channel)
    await stream.write(infer(model="many", request_id="d"))
    for _ in range(2):
        service.go.release()
        assert not (await stream.read()).error_message
    failed = await stream.read()
    assert (failed.error_message, failed.infer_response.id) == ("it broke", "d")
    await stream.write(infer(request_id="after"))
    assert (await stream.read()).infer_response.id == "after"
    await stream.done_writing()
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_failure_may_end_the_stream(channel: grpc.aio.Channel, service: Scripted) -> None:
    """With Triton's header; the responses before it arrive."""
    service.failure = BackendError("it broke")
    stream = stream_of(channel, metadata=(("triton_grpc_error", "true"),))
    await stream.write(infer(model="many"))
    for _ in range(2):
        service.go.release()
        assert not (await stream.read()).error_message
    assert await stream.code() is grpc.StatusCode.INTERNAL
    assert await stream.details() == "it broke"


@pytest.mark.parametrize("end", ["cancel", "close", "deadline"])
async def test_a_client_that_goes_closes_its_responses(
    channel: grpc.aio.Channel, service: Scripted, end: str
) -> None:
    """However it goes, the model hears of it."""
    stream = stream_of(channel, timeout=1.0 if end == "deadline" else None)
    await stream.write(infer(model="many"))
    await service.begun.wait()
    if end == "cancel":
        stream.cancel()
    elif end == "close":
        await channel.close()
    await service.closed.wait()
    if end == "deadline":
        assert await stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED
