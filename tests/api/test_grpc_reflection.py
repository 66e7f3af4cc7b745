"""Server reflection under both names, asked with grpcio-reflection's own messages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2 as oracle

from gateway.api.grpc_reflection import SERVICE_NAMES
from gateway.api.grpc_services import rpc_services
from gateway.core.calls import RpcFailure
from gateway.protocol.status import GrpcCode
from tests.api.drivers import StreamCall

if TYPE_CHECKING:
    from gateway.api.context import ApiContext
    from gateway.api.readiness import ReadinessNotifier


async def ask(context: ApiContext, version: str, *requests: Any) -> list[Any]:
    service = next(
        s for s in rpc_services(context) if s.name == f"grpc.reflection.{version}.ServerReflection"
    )
    stream = StreamCall()
    stream.write(*(request.SerializeToString() for request in requests))
    stream.half_close()
    await service.stream["ServerReflectionInfo"](stream)
    return [oracle.ServerReflectionResponse.FromString(message) for message in stream.received()]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_list_services(context: ApiContext, version: str) -> None:
    """Every service is listed, reflection itself included."""
    request = oracle.ServerReflectionRequest(host="h", list_services="")
    (response,) = await ask(context, version, request)
    assert {s.name for s in response.list_services_response.service} == {
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        *SERVICE_NAMES,
    }
    assert response.valid_host == "h"
    assert response.original_request == request


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("inference.GRPCInferenceService", "open_inference.proto"),
        ("inference.GRPCInferenceService.ModelInfer", "open_inference.proto"),
        ("inference.ModelInferRequest.InferInputTensor", "open_inference.proto"),
        ("inference.ModelInferRequest.id", "open_inference.proto"),
        ("inference.ModelConfig", "model_config.proto"),
        ("grpc.health.v1.Health", "health.proto"),
        ("grpc.reflection.v1alpha.ServerReflection", "reflection.proto"),
    ],
)
async def test_file_containing_symbol(context: ApiContext, symbol: str, file: str) -> None:
    """Services, methods, messages and fields lead to their file, with every file it imports."""
    request = oracle.ServerReflectionRequest(file_containing_symbol=symbol)
    (response,) = await ask(context, "v1alpha", request)
    files = [
        FileDescriptorProto.FromString(f) for f in response.file_descriptor_response.file_descriptor_proto
    ]
    assert files[0].name == file
    assert {name for f in files for name in f.dependency} <= {f.name for f in files}


async def test_files_make_a_pool(context: ApiContext) -> None:
    """A client can build the inference service's messages from the answer alone."""
    request = oracle.ServerReflectionRequest(file_by_filename="open_inference.proto")
    (response,) = await ask(context, "v1", request)
    pool = DescriptorPool()
    for serialised in reversed(response.file_descriptor_response.file_descriptor_proto):
        pool.AddSerializedFile(serialised)  # type: ignore[no-untyped-call]  # protobuf's stubs leave it out
    service = pool.FindServiceByName("inference.GRPCInferenceService")  # type: ignore[no-untyped-call]
    assert len(service.methods) == 20


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"file_by_filename": "none.proto"}, 5),
        ({"file_containing_symbol": "inference.Nothing"}, 5),
        ({"file_containing_symbol": "inference.GRPCInferenceService.Nothing"}, 5),
        ({"all_extension_numbers_of_type": "inference.Nothing"}, 5),
        (
            {
                "file_containing_extension": {
                    "containing_type": "inference.ModelConfig",
                    "extension_number": 3,
                }
            },
            5,
        ),
        ({}, 3),
    ],
)
async def test_errors_are_answers(context: ApiContext, fields: dict[str, Any], code: int) -> None:
    """What is not there is told in the stream, which goes on to the next question."""
    bad = oracle.ServerReflectionRequest(**fields)
    good = oracle.ServerReflectionRequest(all_extension_numbers_of_type="inference.ModelConfig")
    first, second = await ask(context, "v1", bad, good)
    assert first.error_response.error_code == code
    assert second.all_extension_numbers_response.base_type_name == "inference.ModelConfig"


async def test_garbage_ends_the_stream(context: ApiContext) -> None:
    """A message that is none is the client's fault."""
    service = rpc_services(context)[-1]
    stream = StreamCall()
    stream.write(b"\xff")
    with pytest.raises(RpcFailure) as caught:
        await service.stream["ServerReflectionInfo"](stream)
    assert caught.value.status.code == 3


async def test_an_idle_stream_ends_when_the_server_goes(
    context: ApiContext, readiness: ReadinessNotifier
) -> None:
    """A client that keeps its stream open does not hold up the shutdown; earlier changes end nothing."""
    stream = StreamCall()
    request = oracle.ServerReflectionRequest(list_services="")
    running = asyncio.ensure_future(rpc_services(context)[-1].stream["ServerReflectionInfo"](stream))
    for _ in range(2):
        stream.write(request.SerializeToString())
        await stream.receive()
        readiness.begin_drain()
    readiness.close()
    readiness.notify()
    with pytest.raises(RpcFailure) as caught:
        await running
    assert caught.value.status.code == GrpcCode.UNAVAILABLE


async def test_a_stream_opened_while_the_server_goes_ends(
    context: ApiContext, readiness: ReadinessNotifier
) -> None:
    """What comes after the streams were told to end is told at once."""
    readiness.close()
    with pytest.raises(RpcFailure) as caught:
        await rpc_services(context)[-1].stream["ServerReflectionInfo"](StreamCall())
    assert caught.value.status.code == GrpcCode.UNAVAILABLE
