"""Real clients over real sockets are told which arm answered: by header or trailer, version and parameter."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc.aio
import tritonclient.http.aio
import uvloop

from gateway._proto import open_inference_pb2 as pb
from gateway.api.context import ApiContext
from gateway.api.decoding import DecodePool
from gateway.api.grpc_services import rpc_services
from gateway.api.http_routes import http_routes
from gateway.core.rollout import PPM
from gateway.transport.grpc_aio import GrpcAioServer
from gateway.transport.grpc_native import GrpcNativeServer
from gateway.transport.http import HttpServer
from gateway.transport.options import GrpcServerOptions, HttpServerOptions
from tests.api.drivers import Repository
from tests.models.stage import wanted
from tests.routing.stage import BY_USER, USER, RoutedStage, plan

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable

ARMS = [("stable", "1"), ("canary", "2")]
METHOD = "/inference.GRPCInferenceService/ModelInfer"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Listening:
    """A stage that listens."""

    stage: RoutedStage
    http: int
    grpc: int

    def user(self, arm: str) -> dict[str, str]:
        """Return headers of a user who gets an arm."""
        return {USER: self.stage.user(arm)}


@pytest.fixture(params=[GrpcNativeServer, GrpcAioServer], ids=["native", "grpcio"])
async def listening(request: pytest.FixtureRequest) -> AsyncIterator[Listening]:
    """Versions 1 and 2 behind both listeners, without a plan."""
    async with contextlib.AsyncExitStack() as stack:
        stage = await stack.enter_async_context(
            RoutedStage(changes={"d2": {"poison": 3.0}}).serving(wanted("m", 1, "d1"), wanted("m", 2, "d2"))
        )
        decode_pool = await stack.enter_async_context(DecodePool())
        context = ApiContext(
            service=stage.router,
            catalog=stage.manager,
            repository=Repository(),
            clock=stage.clock,
            decode_pool=decode_pool,
        )
        http = HttpServer(http_routes(context), HttpServerOptions(port=0))
        rpc = request.param(rpc_services(context), GrpcServerOptions(port=0))
        for server in (http, rpc):
            await server.start()
            stack.push_async_callback(server.stop, 0.0)
        yield Listening(stage, http.port, rpc.port)


@contextlib.asynccontextmanager
async def http_client(port: int) -> AsyncIterator[Any]:
    client: Any = tritonclient.http.aio.InferenceServerClient(f"127.0.0.1:{port}")
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def grpc_client(port: int) -> AsyncIterator[Any]:
    client: Any = tritonclient.grpc.aio.InferenceServerClient(f"127.0.0.1:{port}")
    try:
        yield client
    finally:
        await client.close()


def input_of(api: Any, tag: float = 1.0) -> Any:
    made = api.InferInput("x", [1, 1], "FP32")
    made.set_data_from_numpy(np.full((1, 1), tag, np.float32))
    return made


async def test_tritons_http_client_is_told(listening: Listening) -> None:
    """Binary tensors and JSON, first and repeated requests, with and without an id."""
    listening.stage.table.apply([plan()])
    api = tritonclient.http
    async with http_client(listening.http) as client:
        for arm, number in ARMS * 2:
            for request_id in ("", "", "seven"):
                for binary in (True, False):
                    outputs = [api.InferRequestedOutput("y", binary_data=binary)]
                    result = await client.infer(
                        "m",
                        [input_of(api)],
                        outputs=outputs,
                        request_id=request_id,
                        headers=listening.user(arm),
                    )
                    response = result.get_response()
                    assert response["model_version"] == number
                    assert response["parameters"] == {"gateway_arm": arm}
                    assert response.get("id", "") == request_id
                    assert result.as_numpy("y") == [[1.0]]


async def test_tritons_grpc_client_is_told(listening: Listening) -> None:
    """Unary and over a stream, first and repeated requests."""
    listening.stage.table.apply([plan()])
    api = tritonclient.grpc
    async with grpc_client(listening.grpc) as client:
        for arm, number in ARMS * 2:
            for request_id in ("", "", "seven"):
                result = await client.infer(
                    "m", [input_of(api)], request_id=request_id, headers=listening.user(arm)
                )
                response = result.get_response()
                assert (response.model_version, response.id) == (number, request_id)
                assert {k: v.string_param for k, v in response.parameters.items()} == {"gateway_arm": arm}
                assert result.as_numpy("y") == [[1.0]]

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": "m", "inputs": [input_of(api)]}

        user = listening.user("canary")
        async for result, error in client.stream_infer(requests(), headers=user):
            assert error is None
            assert result.get_response().parameters["gateway_arm"].string_param == "canary"


def body_of(tag: float = 1.0) -> bytes:
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [tag]}
    return json.dumps({"inputs": [tensor]}).encode()


async def test_the_http_header_names_the_arm(listening: Listening) -> None:
    """On infer, generate and generate_stream; with the server's timing beside it where that is asked for."""
    listening.stage.table.apply([plan()])
    base = f"http://127.0.0.1:{listening.http}/v2/models/m"
    calls = [("infer", body_of()), ("generate", b'{"x": 1}'), ("generate_stream", b'{"x": 1}')]
    async with aiohttp.ClientSession() as session:
        for arm, _ in ARMS * 2:
            for method, body in calls:
                async with session.post(f"{base}/{method}", data=body, headers=listening.user(arm)) as answer:
                    assert (answer.status, answer.headers["x-gateway-arm"]) == (200, arm)
            timed = listening.user(arm) | {"x-server-timing": "1"}
            async with session.post(f"{base}/infer", data=body_of(), headers=timed) as answer:
                assert "total" in answer.headers["server-timing"]
                assert answer.headers["x-gateway-arm"] == arm


def message_of(tag: float = 1.0) -> bytes:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 1])
    raw = np.full((1, 1), tag, np.float32).tobytes()
    message = pb.ModelInferRequest(model_name="m", inputs=[tensor], raw_input_contents=[raw])
    return message.SerializeToString()


async def test_the_grpc_trailer_names_the_arm(listening: Listening) -> None:
    """In trailing metadata; with the server's timing beside it where that is asked for."""
    listening.stage.table.apply([plan()])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{listening.grpc}") as channel:
        infer: Any = channel.unary_unary(METHOD)
        for arm, _ in ARMS * 2:
            metadata = tuple(listening.user(arm).items())
            for extra in ((), (("x-server-timing", "1"),)):
                call = infer(message_of(), metadata=(*metadata, *extra))
                await call
                trailers = dict(await call.trailing_metadata() or ())
                assert trailers["x-gateway-arm"] == arm
                assert ("server-timing" in trailers) == bool(extra)


async def test_a_fallback_is_told(listening: Listening) -> None:
    """The arm is the one that answered; that it stood in for another is a parameter."""
    listening.stage.table.apply([plan(PPM, assign=replace(BY_USER, fallback_stable=True))])
    url = f"http://127.0.0.1:{listening.http}/v2/models/m/infer"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body_of(3.0)) as answer,
    ):
        document = json.loads(await answer.read())
        assert answer.headers["x-gateway-arm"] == "stable"
        assert document["model_version"] == "1"
        assert document["parameters"] == {"gateway_arm": "stable", "gateway_fallback": True}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{listening.grpc}") as channel:
        infer: Any = channel.unary_unary(METHOD)
        for _ in range(2):
            response = pb.ModelInferResponse.FromString(await infer(message_of(3.0)))
            assert response.parameters["gateway_arm"].string_param == "stable"
            assert response.parameters["gateway_fallback"].bool_param


@pytest.mark.parametrize("version", ["", "1"], ids=["no plan", "explicit version"])
async def test_where_no_route_is_followed_not_a_byte_is_added(listening: Listening, version: str) -> None:
    """Neither header nor trailer nor parameter, without a plan or with a version that the client names."""
    listening.stage.table.apply([plan()] if version else [])
    number = version or "2"
    path = f"m/versions/{version}" if version else "m"
    url = f"http://127.0.0.1:{listening.http}/v2/models/{path}/infer"
    output = '{"name":"y","datatype":"FP32","shape":[1,1],"data":[1.0]}'
    expected = f'{{"model_name":"m","model_version":"{number}","outputs":[{output}]}}'
    async with aiohttp.ClientSession() as session, session.post(url, data=body_of()) as answer:
        assert (await answer.read()).decode() == expected
        assert not [name for name in answer.headers if "gateway" in name.lower()]
    request = pb.ModelInferRequest.FromString(message_of())
    request.model_version = version
    async with grpc.aio.insecure_channel(f"127.0.0.1:{listening.grpc}") as channel:
        infer: Any = channel.unary_unary(METHOD)
        call = infer(request.SerializeToString())
        response = pb.ModelInferResponse.FromString(await call)
        assert (response.model_version, dict(response.parameters)) == (number, {})
        assert not [name for name, _ in await call.trailing_metadata() or () if "gateway" in name]
