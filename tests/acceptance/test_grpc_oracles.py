"""gRPC's own client packages for health checking and reflection, as judges of those services."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.acceptance.clients import ON_BOTH, connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.process import RunningGateway

pytestmark = ON_BOTH

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def channel(zoo: RunningGateway) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(zoo.grpc) as channel:
        yield channel


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "digits"])
def test_health_check(channel: grpc.Channel, service: str) -> None:
    """The server, its service and each model are services to ask for."""
    stub = health_pb2_grpc.HealthStub(channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status == SERVING


def test_health_check_of_an_unknown_service(channel: grpc.Channel) -> None:
    """NOT_FOUND, as the health protocol wants it."""
    stub = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=30)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_watch_follows_a_model(channel: grpc.Channel, zoo: RunningGateway) -> None:
    """A model that is unloaded and loaded again stops serving and serves."""
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="identity_fp64"), timeout=60)
    assert next(watch).status == SERVING
    with connected("grpc", zoo) as client:
        client.call("unload_model", "identity_fp64")
        assert next(watch).status != SERVING
        client.call("load_model", "identity_fp64")
        assert next(answer.status for answer in watch if answer.status == SERVING) == SERVING
    watch.cancel()


def test_reflection_describes_the_service(channel: grpc.Channel) -> None:
    """The descriptors served are enough to make the messages of every method."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(database.get_services())
    pool: Any = DescriptorPool(database)
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    assert len(service.methods) == 20
    infer = service.FindMethodByName("ModelInfer")
    assert infer.input_type.fields_by_name["raw_input_contents"].number == 7
    assert (
        service.FindMethodByName("ModelStreamInfer").output_type.full_name
        == "inference.ModelStreamInferResponse"
    )


def test_metrics_page(zoo: RunningGateway) -> None:
    """The port that a scraper knows has Triton's counters."""
    with urllib.request.urlopen(f"http://127.0.0.1:{zoo.ready['metrics_port']}/metrics", timeout=30) as page:
        assert b'nv_inference_count{model="pair",version="1"}' in page.read()
