"""inference.GRPCInferenceService without its stream: every method's success and failures."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gateway._proto import open_inference_pb2 as pb
from gateway.api.grpc_inference import SERVICE_NAME, inference_service
from gateway.core.calls import RpcFailure, RpcService
from gateway.core.errors import (
    BackendError,
    BackendUnavailable,
    DeadlineExceeded,
    GatewayError,
    ModelLoadError,
    NotFound,
    Overloaded,
    Unavailable,
)
from gateway.core.types import InferRequest, VersionState
from gateway.protocol.status import GrpcCode
from gateway.testing import EchoService, VirtualClock, settle
from tests.api.drivers import Catalog, Repository, UnaryCall, call
from tests.api.messages import infer, rows_of

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from gateway.api.context import ApiContext
    from gateway.api.readiness import ReadinessNotifier

SHARED_MEMORY = "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."


@pytest.fixture
def grpc(context: ApiContext) -> RpcService:
    return inference_service(context)


async def ask(grpc: RpcService, method: str, request: Message | None = None) -> Any:
    """Call a method and return its answer as the message it should be."""
    message = b"" if request is None else request.SerializeToString()
    return getattr(pb, f"{method}Response").FromString(await call(grpc, method, message))


async def failure(grpc: RpcService, method: str, request: Message | bytes = b"") -> tuple[int, str]:
    """Call a method that must fail, and return its code and message."""
    message = request if isinstance(request, bytes) else request.SerializeToString()
    with pytest.raises(RpcFailure) as caught:
        await call(grpc, method, message)
    return caught.value.status.code, caught.value.status.message


async def test_what_cannot_be_decoded_is_counted_once(context: ApiContext) -> None:
    """A message that is no request is reported; one that the service refuses is the service's to count."""
    refused: list[InferRequest] = []
    service = EchoService()
    counting = replace(context, service=service, refused=lambda request, _: refused.append(request))
    grpc = inference_service(counting)
    await failure(grpc, "ModelInfer", b"\xff")
    assert [(request.model_name, request.received_bytes) for request in refused] == [("", 1)]
    service.refuse = Overloaded("full")
    await failure(grpc, "ModelInfer", infer())
    assert len(refused) == 1


def test_every_method_is_served(grpc: RpcService) -> None:
    """The service has exactly the methods of its descriptor, streaming where that says so."""
    descriptor = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert descriptor.full_name == SERVICE_NAME == grpc.name
    streaming = {m.name for m in descriptor.methods if m.server_streaming}
    assert set(grpc.stream) == streaming
    assert set(grpc.begin) | set(grpc.unary) == {m.name for m in descriptor.methods} - streaming


async def test_infer(grpc: RpcService) -> None:
    """An inference answers with the model's tensors, name and version, and the request's id."""
    message = await call(grpc, "ModelInfer", infer([[1, 2], [3, 4]], request_id="r7"))
    response = pb.ModelInferResponse.FromString(message)
    assert rows_of(response) == [[1, 2], [3, 4]]
    assert (response.model_name, response.model_version, response.id) == ("rows", "2", "r7")


async def test_infer_passes_on_what_the_transport_knows(grpc: RpcService, service: EchoService) -> None:
    """Deadline, arrival and metadata of the call reach the service with the request."""
    await call(grpc, "ModelInfer", infer(), metadata={"k": "v"}, deadline_s=1001.5)
    request = service.pendings[0].request
    assert (request.arrived_s, request.deadline_s, request.headers["k"]) == (1000.0, 1001.5, "v")


async def test_infer_classification(grpc: RpcService) -> None:
    """A classified output holds the best classes with the labels of the model."""
    message = await call(grpc, "ModelInfer", infer([[0.25, 0.75]], classes=1))
    response = pb.ModelInferResponse.FromString(message)
    assert response.outputs[0].datatype == "BYTES"
    assert response.raw_output_contents[0][4:] == b"0.750000:1:dog"


async def test_classification_by_a_version_that_has_gone(context: ApiContext, catalog: Catalog) -> None:
    """A version that drains while it answers still gives its labels."""
    service = context.service
    assert isinstance(service, EchoService)
    service._held = True
    grpc = inference_service(context)
    unary = UnaryCall(infer([[0.25, 0.75]], classes=1))
    grpc.begin["ModelInfer"](unary)
    catalog.put("rows", 2, state=VersionState.DRAINING)
    service.answer(service.pendings[0])
    message, _ = await unary.outcome()
    assert pb.ModelInferResponse.FromString(message).raw_output_contents[0].endswith(b"dog")


async def test_classification_by_another_version_than_meant(context: ApiContext, catalog: Catalog) -> None:
    """The labels are those of the version that answered, when it is not the one that was meant."""
    catalog.put("rows", 1, labels={"x": ("chat", "chien")})
    grpc = inference_service(_with(context, EchoService(version="1")))
    message = await call(grpc, "ModelInfer", infer([[0.25, 0.75]], classes=1))
    assert pb.ModelInferResponse.FromString(message).raw_output_contents[0].endswith(b"chien")


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (b"\xff\xff", GrpcCode.INVALID_ARGUMENT, ""),
        (infer(model="many"), GrpcCode.UNIMPLEMENTED, "decoupled"),
    ],
)
async def test_infer_refusals(grpc: RpcService, message: bytes, code: int, text: str) -> None:
    """What can't be decoded or needs a stream never reaches the service."""
    got, said = await failure(grpc, "ModelInfer", message)
    assert (got, text in said) == (code, True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("no model"), GrpcCode.NOT_FOUND),
        (Overloaded("full", retry_after_s=2.0), GrpcCode.RESOURCE_EXHAUSTED),
        (DeadlineExceeded("late"), GrpcCode.DEADLINE_EXCEEDED),
        (BackendError("bad"), GrpcCode.INTERNAL),
    ],
)
@pytest.mark.parametrize("refused", [True, False])
async def test_infer_failures(context: ApiContext, error: GatewayError, code: int, refused: bool) -> None:
    """An error of the service is the call's status, whether it refused or failed later."""
    service = EchoService(held=True)
    service.refuse = error if refused else None
    grpc = inference_service(_with(context, service))
    unary = UnaryCall(infer())
    grpc.begin["ModelInfer"](unary)
    if not refused:
        service.answer(service.pendings[0], error)
    with pytest.raises(RpcFailure, match=str(error)) as caught:
        await unary.outcome()
    assert caught.value.status.code == code
    if isinstance(error, Overloaded):
        assert ("grpc-retry-pushback-ms", "2000") in caught.value.status.metadata


def _with(context: ApiContext, service: Any) -> ApiContext:
    from dataclasses import replace

    return replace(context, service=service)


class Broken:
    """A service with a fault."""

    def submit(self, request: Any) -> Any:
        raise ZeroDivisionError("secret")

    def stream(self, request: Any) -> Any:
        raise ZeroDivisionError("secret")


async def test_a_fault_gives_nothing_away(context: ApiContext, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody foresaw is INTERNAL with a neutral text, and its own is in the log."""
    code, text = await failure(inference_service(_with(context, Broken())), "ModelInfer", infer())
    assert code == GrpcCode.INTERNAL
    assert "secret" not in text
    assert "secret" in caplog.text


async def test_an_answer_that_cannot_be_encoded(context: ApiContext) -> None:
    """A response that can't be written fails the call instead of leaving it unanswered."""
    service = EchoService(held=True)
    grpc = inference_service(_with(context, service))
    message = pb.ModelInferRequest(model_name="rows")
    message.inputs.add(name="x", datatype="BOOL", shape=[1])
    message.raw_input_contents.append(b"\x01")
    message.outputs.add(name="x").parameters["classification"].int64_param = 1
    unary = UnaryCall(message.SerializeToString())
    grpc.begin["ModelInfer"](unary)
    service.answer(service.pendings[0])
    with pytest.raises(RpcFailure) as caught:
        await unary.outcome()
    assert caught.value.status.code == GrpcCode.INVALID_ARGUMENT


async def test_a_client_that_goes_cancels_its_request(context: ApiContext) -> None:
    """The transport's cancellation reaches the service's pending request."""
    service = EchoService(held=True)
    grpc = inference_service(_with(context, service))
    unary = UnaryCall(infer())
    grpc.begin["ModelInfer"](unary)
    (cancel,) = unary.cancel_callbacks
    cancel()
    assert service.pendings[0].done
    with pytest.raises(RpcFailure) as caught:
        await unary.outcome()
    assert caught.value.status.code == GrpcCode.CANCELLED


@pytest.mark.parametrize(("asked", "given"), [({"x-server-timing": "1"}, True), ({}, False)])
async def test_timing_trailer(
    grpc: RpcService, clock: VirtualClock, asked: dict[str, str], given: bool
) -> None:
    """A call that asks for it gets its timing as a trailer, others none."""
    clock.advance(0.25)
    unary = UnaryCall(infer(), asked)
    grpc.begin["ModelInfer"](unary)
    _, trailers = await unary.outcome()
    assert ("total;dur=250.000" in dict(trailers).get("server-timing", "")) is given


async def test_health_and_metadata(grpc: RpcService, catalog: Catalog, readiness: ReadinessNotifier) -> None:
    """Liveness, readiness and metadata of server and model."""
    assert (await ask(grpc, "ServerLive")).live
    assert (await ask(grpc, "ServerReady")).ready
    metadata = await ask(grpc, "ServerMetadata")
    assert (metadata.name, metadata.version) == ("model-gateway", "1.2.3")
    assert "statistics" in metadata.extensions
    assert (await ask(grpc, "ModelReady", pb.ModelReadyRequest(name="rows", version="1"))).ready
    assert not (await ask(grpc, "ModelReady", pb.ModelReadyRequest(name="late"))).ready
    model = await ask(grpc, "ModelMetadata", pb.ModelMetadataRequest(name="rows"))
    assert (list(model.versions), model.platform, list(model.inputs[0].shape)) == (
        ["1", "2"],
        "onnxruntime_onnx",
        [-1, 2],
    )
    catalog.ready = False
    assert not (await ask(grpc, "ServerReady")).ready
    catalog.ready = True
    readiness.begin_drain()
    assert not (await ask(grpc, "ServerReady")).ready


async def test_config_and_statistics(grpc: RpcService) -> None:
    """Configuration of one version; statistics of one version, one model, and all."""
    config = (await ask(grpc, "ModelConfig", pb.ModelConfigRequest(name="rows"))).config
    assert (config.name, config.max_batch_size) == ("rows", 8)
    for asked, count in (({}, 3), ({"name": "rows"}, 2), ({"name": "rows", "version": "1"}, 1)):
        answer = await ask(grpc, "ModelStatistics", pb.ModelStatisticsRequest(**asked))
        assert len(answer.model_stats) == count


async def test_repository(grpc: RpcService, repository: Repository) -> None:
    """Index, load with config and files, and unload."""
    everything = await ask(grpc, "RepositoryIndex", pb.RepositoryIndexRequest())
    assert {(m.name, m.state) for m in everything.models} == {
        ("rows", "READY"),
        ("many", "READY"),
        ("late", "LOADING"),
    }
    ready = await ask(grpc, "RepositoryIndex", pb.RepositoryIndexRequest(ready=True))
    assert "late" not in {m.name for m in ready.models}
    load = pb.RepositoryModelLoadRequest(model_name="rows")
    load.parameters["config"].string_param = "{}"
    load.parameters["file:1/model.onnx"].bytes_param = b"onnx"
    await ask(grpc, "RepositoryModelLoad", load)
    unload = pb.RepositoryModelUnloadRequest(model_name="rows")
    unload.parameters["unload_dependents"].bool_param = True
    await ask(grpc, "RepositoryModelUnload", unload)
    assert repository.asked == [("load", "rows", "{}", {"1/model.onnx": b"onnx"}), ("unload", "rows")]


def _load(name: str, **value: Any) -> pb.RepositoryModelLoadRequest:
    request = pb.RepositoryModelLoadRequest(model_name="rows")
    request.parameters[name].CopyFrom(pb.ModelRepositoryParameter(**value))
    return request


def _trace(name: str, *values: str, model: str = "") -> pb.TraceSettingRequest:
    request = pb.TraceSettingRequest(model_name=model)
    request.settings[name].value.extend(values)
    return request


def _log(name: str, **value: Any) -> pb.LogSettingsRequest:
    request = pb.LogSettingsRequest()
    request.settings[name].CopyFrom(pb.LogSettingsRequest.SettingValue(**value))
    return request


def _bad_unload() -> pb.RepositoryModelUnloadRequest:
    request = pb.RepositoryModelUnloadRequest(model_name="rows")
    request.parameters["unload_dependents"].string_param = "yes"
    return request


@pytest.mark.parametrize(
    ("method", "request_message", "code", "text"),
    [
        ("ModelReady", pb.ModelReadyRequest(name="none"), GrpcCode.NOT_FOUND, "'none'"),
        ("ModelMetadata", pb.ModelMetadataRequest(name="none"), GrpcCode.NOT_FOUND, "'none'"),
        ("ModelMetadata", pb.ModelMetadataRequest(name="rows", version="9"), GrpcCode.NOT_FOUND, "9"),
        (
            "ModelMetadata",
            pb.ModelMetadataRequest(name="rows", version="x"),
            GrpcCode.INVALID_ARGUMENT,
            "'x'",
        ),
        ("ModelConfig", pb.ModelConfigRequest(name="late"), GrpcCode.UNAVAILABLE, "late"),
        ("ModelStatistics", pb.ModelStatisticsRequest(name="none"), GrpcCode.NOT_FOUND, "'none'"),
        ("ModelStatistics", pb.ModelStatisticsRequest(version="1"), GrpcCode.INVALID_ARGUMENT, "model name"),
        (
            "RepositoryIndex",
            pb.RepositoryIndexRequest(repository_name="r"),
            GrpcCode.UNIMPLEMENTED,
            "repository",
        ),
        ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(), GrpcCode.INVALID_ARGUMENT, "model"),
        ("RepositoryModelLoad", _load("config", int64_param=1), GrpcCode.INVALID_ARGUMENT, "config"),
        ("RepositoryModelLoad", _load("file:1/m", string_param="x"), GrpcCode.INVALID_ARGUMENT, "file:1/m"),
        ("RepositoryModelLoad", _load("file:1/m", bytes_param=b"x"), GrpcCode.INVALID_ARGUMENT, "config"),
        ("RepositoryModelLoad", _load("colour", string_param="x"), GrpcCode.INVALID_ARGUMENT, "colour"),
        ("RepositoryModelUnload", _bad_unload(), GrpcCode.INVALID_ARGUMENT, "unload_dependents"),
        ("TraceSetting", _trace("trace_rate", "fast"), GrpcCode.INVALID_ARGUMENT, "trace_rate"),
        ("TraceSetting", pb.TraceSettingRequest(model_name="none"), GrpcCode.NOT_FOUND, "'none'"),
        ("LogSettings", _log("log_colour", bool_param=True), GrpcCode.INVALID_ARGUMENT, "log_colour"),
        ("ModelConfig", b"\xff", GrpcCode.INVALID_ARGUMENT, "ModelConfigRequest"),
        *(
            (f"{kind}SharedMemory{verb}", b"", GrpcCode.UNIMPLEMENTED, SHARED_MEMORY)
            for kind in ("System", "Cuda")
            for verb in ("Status", "Register", "Unregister")
        ),
    ],
)
async def test_failures(
    grpc: RpcService, method: str, request_message: Message | bytes, code: int, text: str
) -> None:
    """Each failure has its code and says what was wrong."""
    got, said = await failure(grpc, method, request_message)
    assert got == code
    assert text in said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("explicit model load / unload is not allowed"), GrpcCode.UNAVAILABLE),
        (ModelLoadError("failed to load 'rows'"), GrpcCode.INTERNAL),
    ],
)
async def test_repository_refusals(
    grpc: RpcService, repository: Repository, error: GatewayError, code: int
) -> None:
    """What the repository refuses is the call's status."""
    repository.refuse = error
    request = pb.RepositoryModelLoadRequest(model_name="rows")
    assert await failure(grpc, "RepositoryModelLoad", request) == (code, str(error))


async def test_a_load_that_fails_by_what_was_sent_is_the_clients_mistake(
    grpc: RpcService, repository: Repository
) -> None:
    """A configuration or file that cannot be loaded is INVALID_ARGUMENT, not INTERNAL."""
    repository.refuse = ModelLoadError("failed to load 'rows'")
    request = pb.RepositoryModelLoadRequest(model_name="rows")
    request.parameters["config"].string_param = "{"
    failed = await failure(grpc, "RepositoryModelLoad", request)
    assert failed == (GrpcCode.INVALID_ARGUMENT, "failed to load 'rows'")


@pytest.mark.parametrize("config", ["", "{"])
@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (OSError(errno.ENOSPC, "full"), GrpcCode.INTERNAL),
        (BackendUnavailable("the device is lost"), GrpcCode.UNAVAILABLE),
    ],
)
async def test_a_load_that_fails_by_what_the_server_lacks_is_not_the_clients_mistake(
    grpc: RpcService, repository: Repository, cause: Exception, code: GrpcCode, config: str
) -> None:
    """A full disk is INTERNAL and a lost device UNAVAILABLE, with or without a configuration."""
    repository.refuse = ModelLoadError("failed to load 'rows'")
    repository.refuse.__cause__ = cause
    request = pb.RepositoryModelLoadRequest(model_name="rows")
    if config:
        request.parameters["config"].string_param = config
    assert (await failure(grpc, "RepositoryModelLoad", request))[0] == code


async def test_an_answer_whose_timing_cannot_be_told_is_still_an_answer(context: ApiContext) -> None:
    """A failure between the response and its trailers ends the call with a status."""

    class Stopped(VirtualClock):
        def now_s(self) -> float:
            raise RuntimeError("no time")

    unary = UnaryCall(infer(), {"x-server-timing": "1"})
    inference_service(replace(context, clock=Stopped())).begin["ModelInfer"](unary)
    with pytest.raises(RpcFailure) as caught:
        await unary.outcome()
    assert caught.value.status.code == GrpcCode.INTERNAL


async def test_trace_settings(grpc: RpcService) -> None:
    """Settings are changed, answered in whole, and put back by an empty value."""
    changed = await ask(grpc, "TraceSetting", _trace("trace_rate", "5", model="rows"))
    assert list(changed.settings["trace_rate"].value) == ["5"]
    assert set(changed.settings) == {"trace_level", "trace_rate", "trace_count", "log_frequency"}
    server = await ask(grpc, "TraceSetting", pb.TraceSettingRequest())
    assert list(server.settings["trace_rate"].value) == ["1000"]
    restored = await ask(grpc, "TraceSetting", _trace("trace_rate", model="rows"))
    assert list(restored.settings["trace_rate"].value) == ["1000"]


async def test_log_settings(grpc: RpcService) -> None:
    """Settings are changed and answered in whole, in the types of the protocol."""
    await ask(grpc, "LogSettings", _log("log_info", bool_param=False))
    answer = await ask(grpc, "LogSettings", _log("log_verbose_level", uint32_param=3))
    assert answer.settings["log_verbose_level"].uint32_param == 3
    assert answer.settings["log_info"].WhichOneof("parameter_choice") == "bool_param"
    assert not answer.settings["log_info"].bool_param
    assert answer.settings["log_error"].bool_param


async def test_many_calls_at_once(grpc: RpcService) -> None:
    """Answers go to the calls that asked, whatever else is under way."""
    calls = [call(grpc, "ModelInfer", infer([[i, -i]], request_id=str(i))) for i in range(50)]
    answers = [pb.ModelInferResponse.FromString(m) for m in await asyncio.gather(*calls)]
    assert [a.id for a in answers] == [str(i) for i in range(50)]
    assert np.array_equal([rows_of(a)[0] for a in answers], [[i, -i] for i in range(50)])
    await settle()
