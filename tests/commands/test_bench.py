"""The load generators against servers that misbehave, and gRPC."""

import asyncio
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from gateway._proto import open_inference_pb2 as pb
from gateway.commands.bench import BenchOptions, summarise
from gateway.commands.client import Address
from gateway.commands.load_grpc import prepare_grpc
from gateway.commands.load_http import prepare_http
from gateway.commands.samples import SampleOptions
from gateway.commands.tally import Load, Tally


async def test_error_answers_are_counted_by_message(digits: Any) -> None:
    """Once the model starts to refuse, errors are counted with status and text, and the run still ends."""
    run = prepare_http(digits.address, "digits", "", SampleOptions())
    digits.answer("POST", "/v2/models/digits/infer", {"error": "queue is full"}, 429)
    tally = Tally()
    async with asyncio.timeout(30):
        await run(Load(tally, concurrency=2, seconds=0.1))
    assert not tally.latencies_ns
    assert list(tally.errors) == ['429: {"error": "queue is full"}']


async def test_a_connection_cut_short_is_an_error(digits: Any) -> None:
    """A server that closes in the middle of an answer ends that connection's loop."""
    run = prepare_http(digits.address, "digits", "", SampleOptions())
    digits.answers["POST", "/v2/models/digits/infer"] = (200, {"connection": "close"}, b"")
    tally = Tally()
    async with asyncio.timeout(30):
        await run(Load(tally, concurrency=1, seconds=60))
    assert len(tally.latencies_ns) == 1
    assert [message.partition(":")[0] for message in tally.errors] == ["connection lost"]


async def test_a_server_that_goes_is_an_error(digits: Any) -> None:
    """A connection refused at the start of the run is counted, not raised."""
    run: Any = prepare_http(digits.address, "digits", "", SampleOptions())
    run._address = Address(False, "127.0.0.1", 1)  # nobody's: the server has gone
    tally = Tally()
    await run(Load(tally, concurrency=1, seconds=0.1))
    assert [message.partition(":")[0] for message in tally.errors] == ["no connection"]


def test_summary_of_a_known_tally() -> None:
    """Rates and percentiles follow from the counts."""
    tally = Tally()
    tally.latencies_ns.extend(i * 1_000_000 for i in range(1, 101))
    tally.error("x")
    options = BenchOptions(address=Address(False, "h", 1), model="m", rows=4)
    figures = summarise(options, tally, 2.0)
    assert (figures.requests, figures.requests_per_s, figures.rows_per_s) == (100, 50.0, 200.0)
    assert (figures.p50_ms, figures.p99_ms) == (50.5, 99.01)
    assert figures.errors == {"x": 1}


def test_error_messages_are_bounded() -> None:
    """However many different messages come, few are kept and all are counted."""
    tally = Tally()
    for i in range(100):
        tally.error(str(i))
    assert len(tally.errors) == 21
    assert tally.errors.total() == 100


class _Inference(grpc.GenericRpcHandler):
    """Metadata and infer of one model with inputs of three kinds; refuses what is not well formed."""

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        return grpc.unary_unary_rpc_method_handler(
            {"ModelMetadata": self._metadata, "ModelInfer": self._infer}[method]
        )

    def _metadata(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        name = pb.ModelMetadataRequest.FromString(request).name
        if name != "m":
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {name}")
        answer = pb.ModelMetadataResponse(name=name, platform="p")
        answer.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
        answer.inputs.add(name="s", datatype="BYTES", shape=[-1])
        return answer.SerializeToString()

    def _infer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        message = pb.ModelInferRequest.FromString(request)
        shapes = [list(tensor.shape) for tensor in message.inputs]
        sizes = [len(raw) for raw in message.raw_input_contents]
        if (shapes, sizes) != ([[2, 4], [2]], [32, 20]):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{shapes} {sizes}")
        return pb.ModelInferResponse(model_name="m").SerializeToString()


@pytest.fixture
def grpc_address() -> Iterator[Address]:
    with futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers([_Inference()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield Address(False, "127.0.0.1", port)
        server.stop(None).wait()


async def test_grpc_load(grpc_address: Address) -> None:
    """Well-formed requests of every input go out over one channel and are counted."""
    run = prepare_grpc(grpc_address, "m", "", SampleOptions(rows=2))
    tally = Tally()
    await run(Load(tally, concurrency=3, seconds=0.1))
    assert len(tally.latencies_ns) > 0
    assert not tally.errors


def test_grpc_errors_name_code_and_message(grpc_address: Address) -> None:
    """An unknown model is refused before any load is made."""
    with pytest.raises(Exception, match="NOT_FOUND: unknown model nope"):
        prepare_grpc(grpc_address, "nope", "", SampleOptions())
