"""Large bodies: the model first, heavy decoding beside the event loop, cancelled with the request."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gateway._proto import open_inference_pb2 as pb
from gateway.api.decoding import HEAVY_BYTES, DecodePool
from gateway.api.grpc_inference import inference_service
from gateway.api.http_routes import http_routes
from gateway.core.errors import Overloaded
from gateway.core.types import Datatype, ModelSignature, TensorSpec
from gateway.protocol.json_infer import HEADER_LENGTH
from gateway.protocol.status import GrpcCode
from gateway.testing import EchoService, settle
from tests.api.drivers import Catalog, HttpDriver, StreamCall, UnaryCall
from tests.api.messages import infer, stream_response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.api.context import ApiContext
    from gateway.core.calls import Buffer, HttpResponse

WORDS = ModelSignature(
    (TensorSpec("x", Datatype.BYTES, (-1,)),),
    (TensorSpec("x", Datatype.BYTES, (-1,)),),
)
ROWS = 10_000
INFER = "/v2/models/{}/infer"


class Gate:
    """A decoder that waits in its thread until the test opens it."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        self.opened.wait(10.0)  # a failing test ends too


@pytest.fixture
async def pool() -> AsyncIterator[DecodePool]:
    async with DecodePool(threads=1) as pool:
        yield pool


@pytest.fixture
def large(context: ApiContext, catalog: Catalog, pool: DecodePool) -> ApiContext:
    """The context with one decoder thread, and a model `words` of one BYTES input."""
    catalog.put("words", signature=WORDS)
    return replace(context, decode_pool=pool)


def json_body(rows: int = ROWS) -> bytes:
    return json.dumps(
        {"inputs": [{"name": "x", "shape": [rows, 2], "datatype": "FP32", "data": [1.5] * 2 * rows}]}
    ).encode()


def binary_body(datatype: str, tail: bytes, shape: list[int]) -> tuple[bytes, dict[str, str]]:
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": shape,
                    "datatype": datatype,
                    "parameters": {"binary_data_size": len(tail)},
                }
            ]
        }
    ).encode()
    return head + tail, {HEADER_LENGTH: str(len(head))}


def typed(model: str = "rows", rows: int = ROWS, request_id: str = "", datatype: str = "FP32") -> bytes:
    message = pb.ModelInferRequest(model_name=model, id=request_id)
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[rows, 2])
    if datatype == "FP32":
        tensor.contents.fp32_contents.extend([1.5] * 2 * rows)
    else:
        tensor.contents.int64_contents.extend([1] * 2 * rows * 4)
    return message.SerializeToString()


class Exchange:
    """One HTTP exchange that has begun."""

    def __init__(
        self, context: ApiContext, path: str, body: Buffer, headers: dict[str, str] | None = None
    ) -> None:
        self.replies: asyncio.Queue[HttpResponse] = asyncio.Queue()
        route, request = HttpDriver(http_routes(context)).request("POST", path, body, headers)
        assert route.begin is not None
        self.cancel = route.begin(request, self.replies.put_nowait)

    async def reply(self) -> tuple[int, str]:
        response = await self.replies.get()
        return response.status, b"".join(bytes(part) for part in response.body).decode()


@pytest.mark.parametrize("path", [INFER.format("rows"), "/v2/models/rows/generate"])
async def test_large_json_is_decoded_beside_the_loop(
    large: ApiContext, service: EchoService, path: str
) -> None:
    """Beginning an exchange with a large JSON body does not decode it; its answer comes all the same."""
    body = json_body() if path.endswith("infer") else json.dumps({"x": [1.5] * 2 * ROWS}).encode()
    assert len(body) >= HEAVY_BYTES
    exchange = Exchange(large, path, body)
    assert not service.pendings
    status, text = await exchange.reply()
    assert (status, service.pendings[0].request.inputs[0].array.shape) == (200, (ROWS, 2))
    assert text.count("1.5") == 2 * ROWS


async def test_a_large_event_stream_request_is_decoded_beside_the_loop(large: ApiContext) -> None:
    """generate_stream answers a large body too."""
    body = json.dumps({"x": [1.5] * 2 * ROWS}).encode()
    reply = await HttpDriver(http_routes(large)).fetch("POST", "/v2/models/rows/generate_stream", body)
    assert (reply.status, reply.body.count(b"1.5")) == (200, 2 * ROWS)


async def test_large_raw_tensors_are_not_handed_over(large: ApiContext, service: EchoService) -> None:
    """A view over plain raw data costs less than a thread: it is submitted before `begin` returns."""
    data = np.ones((ROWS, 2), np.float32).tobytes()
    exchange = Exchange(large, INFER.format("rows"), *binary_body("FP32", data, [ROWS, 2]))
    assert len(service.pendings) == 1
    assert (await exchange.reply())[0] == 200
    message = UnaryCall(infer(np.ones((ROWS, 2)).tolist()))
    inference_service(large).begin["ModelInfer"](message)
    assert len(service.pendings) == 2


async def test_large_raw_strings_are_decoded_beside_the_loop(large: ApiContext, service: EchoService) -> None:
    """Raw BYTES data is cut element by element, so it is handed over."""
    exchange = Exchange(large, INFER.format("words"), *binary_body("BYTES", bytes(4 * 20_000), [20_000]))
    assert not service.pendings
    assert (await exchange.reply())[0] == 200
    assert service.pendings[0].request.inputs[0].array.size == 20_000


async def test_the_model_is_looked_up_before_a_large_body_is_read(
    large: ApiContext, service: EchoService
) -> None:
    """A large body for no model is not even looked at: that it is malformed is never found out."""
    exchange = Exchange(large, INFER.format("none"), b"{" * HEAVY_BYTES)
    assert exchange.replies.qsize() == 1
    assert (await exchange.reply())[0] == 404
    # An input whose content ends before its tag says.
    malformed = b"\x0a\x04none" + b"\x2a\x84\x80\x04\x0a\xff\xff\x7f" + bytes(HEAVY_BYTES)
    call = UnaryCall(malformed)
    inference_service(large).begin["ModelInfer"](call)
    (status,) = call.answers
    assert getattr(status, "code", None) == GrpcCode.NOT_FOUND
    assert not service.pendings


async def test_datatypes_are_compared_before_large_data_is_read(large: ApiContext) -> None:
    """Data of another datatype than the model takes is refused, right or wrong, without a look at it."""
    said = "inference input 'x' data-type is 'BYTES', but model 'rows' expects 'FP32'"
    body = binary_body("BYTES", b"\xff" * HEAVY_BYTES, [5, 5])
    assert said in (await Exchange(large, INFER.format("rows"), *body).reply())[1]
    message = pb.ModelInferRequest(model_name="rows")
    message.inputs.add(name="x", datatype="BYTES", shape=[1, 2])
    message.raw_input_contents.append(b"\xff" * HEAVY_BYTES)
    call = UnaryCall(message.SerializeToString())
    inference_service(large).begin["ModelInfer"](call)
    (status,) = call.answers
    assert getattr(status, "message", None) == said


async def test_inputs_the_model_lacks_are_refused_before_large_data_is_read(large: ApiContext) -> None:
    """A name that the model does not have is refused likewise."""
    body, headers = binary_body("BYTES", b"\xff" * HEAVY_BYTES, [5, 5])
    body = body.replace(b'"x"', b'"y"')
    _, text = await Exchange(large, INFER.format("rows"), body, headers).reply()
    assert "unexpected inference input 'y' for model 'rows', allowed inputs are: x" in text


async def test_typed_contents_are_decoded_beside_the_loop(large: ApiContext, service: EchoService) -> None:
    """A large gRPC message of typed contents is handed over, and answered."""
    call = UnaryCall(typed())
    inference_service(large).begin["ModelInfer"](call)
    assert not service.pendings
    message, _ = await call.outcome()
    assert pb.ModelInferResponse.FromString(message).outputs[0].shape == [ROWS, 2]


async def test_a_client_that_goes_while_its_body_waits_is_forgotten(
    large: ApiContext, service: EchoService, pool: DecodePool
) -> None:
    """Cancelled before it is decoded, a request never gets to the service, and nothing is answered."""
    gate = Gate()
    waiting = pool.run(gate, 1)
    held = _task(waiting)
    await settle()
    exchange = Exchange(large, INFER.format("rows"), json_body())
    call = UnaryCall(typed())
    inference_service(large).begin["ModelInfer"](call)
    exchange.cancel()
    for cancel in call.cancel_callbacks:
        cancel()
    gate.opened.set()
    await held
    await pool.run(int, 1)
    await settle()
    assert not service.pendings
    assert not call.answers
    assert exchange.replies.empty()


async def test_a_client_that_goes_as_its_body_has_been_decoded_is_forgotten(pool: DecodePool) -> None:
    """A cancellation between the decoder's end and what follows still counts."""
    done = threading.Event()
    went_on: list[object] = []

    def then(_: object) -> Any:
        went_on.append(_)
        return lambda: None

    cancel = pool.begin(done.set, 1, then)
    done.wait()
    cancel()
    await pool.run(int, 1)
    await settle()
    assert not went_on


async def test_the_hook_cancels_the_rest_once_it_was_decoded(large: ApiContext, pool: DecodePool) -> None:
    """After the hand-over the same hook takes the request out of the queue."""
    held = EchoService(held=True)
    exchange = Exchange(replace(large, service=held), INFER.format("rows"), json_body())
    await pool.run(int, 1)
    await settle()
    exchange.cancel()
    assert held.pendings[0].done


async def test_what_a_heavy_body_is_refused_for_is_counted(large: ApiContext) -> None:
    """A body that turns out to be malformed in the thread is answered and reported once."""
    refused: list[Any] = []
    counting = replace(large, refused=lambda *about: refused.append(about))
    assert (await Exchange(counting, INFER.format("rows"), b"{" * HEAVY_BYTES).reply())[0] == 400
    assert len(refused) == 1


async def test_streams_keep_their_order_around_heavy_requests(
    large: ApiContext, service: EchoService
) -> None:
    """A small request behind a large one is submitted and answered behind it."""
    call = StreamCall()
    call.write(typed(request_id="1"), infer(request_id="2"), typed("none", request_id="3"))
    call.half_close()
    await inference_service(large).stream["ModelStreamInfer"](call)
    answers = [stream_response(message) for message in call.received()]
    assert [a.infer_response.id for a in answers] == ["1", "2", "3"]
    assert [bool(a.error_message) for a in answers] == [False, False, True]
    assert [p.request.request_id for p in service.pendings] == ["1", "2"]


async def test_a_stream_that_ends_while_it_decodes_submits_nothing(
    large: ApiContext, service: EchoService, pool: DecodePool
) -> None:
    """The client's going ends the decoding of its request too."""
    gate = Gate()
    held = _task(pool.run(gate, 1))
    call = StreamCall()
    call.write(typed())
    session = _task(inference_service(large).stream["ModelStreamInfer"](call))
    await settle()
    assert call.read == 1
    session.cancel()
    gate.opened.set()
    await held
    await pool.run(int, 1)
    await settle()
    assert session.cancelled()
    assert not service.pendings


async def test_a_full_pool_refuses(context: ApiContext) -> None:
    """Bodies that wait to be decoded are bounded by their bytes, and leave room again when they go."""
    async with DecodePool(threads=1, max_bytes=3 * HEAVY_BYTES) as pool:
        gate = Gate()
        held = _task(pool.run(gate, 2 * HEAVY_BYTES))
        await settle()
        full = replace(context, decode_pool=pool)
        assert (await Exchange(full, INFER.format("rows"), json_body(20_000)).reply())[0] == 429
        with pytest.raises(Overloaded):
            await pool.run(int, 2 * HEAVY_BYTES)
        gate.opened.set()
        await held
        assert await pool.run(int, 2 * HEAVY_BYTES) == 0


async def test_leaving_the_pool_drops_what_waits() -> None:
    """The end waits for the decoder that runs, and for no other."""
    gate, ran = Gate(), list[int]()
    pool = DecodePool(threads=1)
    async with pool:
        held = _task(pool.run(gate, 1))
        dropped = _task(pool.run(partial(ran.append, 1), 1))
        await settle()
        gate.entered.wait()
        leaving = _task(pool.__aexit__(None, None, None))
        await settle()
        gate.opened.set()
        await leaving
        await held
    await settle()
    assert dropped.cancelled()
    assert not ran


def _task(coroutine: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(coroutine)
