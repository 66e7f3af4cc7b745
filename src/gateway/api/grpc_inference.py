"""inference.GRPCInferenceService: its 20 methods as one RpcService."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from gateway._proto import open_inference_pb2 as pb
from gateway.api.arms import arm_headers
from gateway.api.classified import classified, version_meant
from gateway.api.cold import begin_when_ready, served_when_ready
from gateway.api.errors import ErrorTranslator, parse
from gateway.api.grpc_decoding import is_large, large_asked, large_request, small_request
from gateway.api.grpc_stream import StreamSession, unread
from gateway.api.operations import (
    CONFIG_PARAMETER,
    FILE_PREFIX,
    Operations,
    load_parameter,
)
from gateway.api.timing import server_timing, wants_timing
from gateway.core.calls import RpcService
from gateway.core.errors import InvalidRequest, NotReady, Unsupported
from gateway.core.types import InferRequest
from gateway.protocol.message_memo import MessageMemo
from gateway.protocol.metadata import metadata_message
from gateway.protocol.model_config import config_message
from gateway.protocol.parameters import SHARED_MEMORY_DISABLED
from gateway.protocol.protobuf_infer import Arrival, encode_response, response_heads
from gateway.protocol.repository_index import index_message
from gateway.protocol.statistics import statistics_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.api.context import ApiContext
    from gateway.api.settings import LogValue, LogValues
    from gateway.core.calls import CancelHook, Headers, RpcCall, RpcStream, UnaryRpc
    from gateway.core.interfaces import ServedVersion
    from gateway.core.pending import Pending
    from gateway.core.types import InferResponse
    from gateway.protocol.message_memo import KnownMessage

SERVICE_NAME: Final = "inference.GRPCInferenceService"

_SHARED_MEMORY_METHODS: Final = tuple(
    f"{kind}SharedMemory{verb}"
    for kind in ("System", "Cuda")
    for verb in ("Status", "Register", "Unregister")
)


class InferMethods:
    """ModelInfer and ModelStreamInfer."""

    def __init__(self, context: ApiContext, errors: ErrorTranslator) -> None:
        self._context = context
        self._errors = errors
        self._messages = MessageMemo(context.limits.max_name_bytes)
        self._response_heads = response_heads()

    def infer(self, call: RpcCall) -> None:
        """Begin one inference; a client that goes takes its request out of the queue."""
        known = self._messages.get(call.message)
        if known is not None and self._infer_known(call, known):
            return
        arrival = Arrival(call.arrived_s, call.deadline_s, call.metadata)
        if is_large(call.message):
            call.on_cancel(self._begin_large(call, arrival))
        else:
            call.on_cancel(self._go_on(call, partial(small_request, self._context, call.message, arrival)))

    def _infer_known(self, call: RpcCall, known: KnownMessage) -> bool:
        """Begin an inference whose message was recognised; False, having done nothing, if it is none."""
        head = known.head
        meant = version_meant(self._context.catalog, head.model_name, head.model_version)
        if meant is not None and meant.signature.decoupled:
            return False
        message = call.message
        request = InferRequest(
            model_name=head.model_name,
            model_version=head.model_version,
            request_id=known.request_id,
            inputs=head.tensors(message),
            outputs=head.outputs,
            parameters=head.parameters,
            priority=head.priority,
            deadline_s=call.deadline_s,
            arrived_s=call.arrived_s,
            received_bytes=len(message),
            headers=call.metadata,
            kind=head.kind,
        )
        call.on_cancel(self._submit(call, request, meant))
        return True

    async def stream_infer(self, stream: RpcStream) -> None:
        """Run one stream to its end, as `StreamSession` says."""
        await StreamSession(self._context, self._errors, stream).run()

    def _begin_large(self, call: RpcCall, arrival: Arrival) -> CancelHook:
        try:
            return self._started_large(call, arrival)
        except NotReady as refused:
            return begin_when_ready(
                self._context,
                large_asked(self._context, call.message, arrival),
                refused,
                lambda: self._started_large(call, arrival),
                lambda error: self._refuse(call, error),
            )
        except Exception as error:  # noqa: BLE001 - the translator answers whatever it is
            return self._refuse(call, error)

    def _started_large(self, call: RpcCall, arrival: Arrival) -> CancelHook:
        large = large_request(self._context, call.message, arrival)
        if large.heavy:
            then = partial(self._go_on, call)
            return self._context.decode_pool.begin(large.decode, len(call.message), then)
        return self._go_on(call, large.decode)

    def _go_on(self, call: RpcCall, decode: Callable[[], InferRequest]) -> CancelHook:
        """Submit what `decode` returns, or answer what it raises."""
        try:
            request, meant = self._checked(decode())
        except Exception as error:  # noqa: BLE001 - the translator answers whatever it is
            return self._refuse(call, error)
        self._messages.put(call.message, request)
        return self._submit(call, request, meant)

    def _submit(self, call: RpcCall, request: InferRequest, meant: ServedVersion | None) -> CancelHook:
        try:
            pending = self._context.service.submit(request)
        except Exception as error:  # noqa: BLE001 - the translator answers whatever it is
            call.fail(self._errors.rpc_status(error))
            return _nothing
        pending.add_done_callback(lambda done: self._answer(call, done, meant))
        return pending.cancel

    def _refuse(self, call: RpcCall, error: Exception) -> CancelHook:
        """Count and answer a request that never gets to the service."""
        self._context.refused(unread(call.message, call.metadata, call.arrived_s), error)
        call.fail(self._errors.rpc_status(error))
        return _nothing

    def _checked(self, request: InferRequest) -> tuple[InferRequest, ServedVersion | None]:
        meant = version_meant(self._context.catalog, request.model_name, request.model_version)
        if meant is not None and meant.signature.decoupled:
            raise Unsupported("ModelInfer RPC doesn't support models with decoupled transaction policy")
        return request, meant

    def _answer(self, call: RpcCall, pending: Pending, meant: ServedVersion | None) -> None:
        try:
            response = pending.result()
            if pending.request.outputs:
                response = classified(self._context.catalog, pending.request, response, meant)
            message = encode_response(response, self._response_heads)
            trailers = self._trailers(call, response)
        except Exception as error:  # noqa: BLE001 - the translator answers whatever it is
            call.fail(self._errors.rpc_status(error))
            return
        call.reply(message, trailers)

    def _trailers(self, call: RpcCall, response: InferResponse) -> Headers:
        arm = arm_headers(response) if response.parameters else ()
        if not wants_timing(call.metadata):
            return arm
        total_s = self._context.clock.now_s() - call.arrived_s
        return (*arm, ("server-timing", server_timing(response.timing, total_s)))


def _nothing() -> None:
    """Cancel nothing: the call is over."""


class QueryMethods:
    """Health, metadata, configuration, statistics."""

    def __init__(self, context: ApiContext, operations: Operations) -> None:
        self._context = context
        self._operations = operations

    async def server_live(self, _call: RpcCall) -> bytes:
        """Answer, which is what being alive means."""
        return pb.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, _call: RpcCall) -> bytes:
        """Return whether every required model serves."""
        return pb.ServerReadyResponse(ready=self._operations.server_ready()).SerializeToString()

    async def model_ready(self, call: RpcCall) -> bytes:
        """Return whether a model serves."""
        request = parse(pb.ModelReadyRequest, call.message)
        ready = self._operations.model_ready(request.name, request.version)
        return pb.ModelReadyResponse(ready=ready).SerializeToString()

    async def server_metadata(self, _call: RpcCall) -> bytes:
        """Return name, version and extensions."""
        metadata = self._context.metadata
        return pb.ServerMetadataResponse(
            name=metadata.name, version=metadata.version, extensions=metadata.extensions
        ).SerializeToString()

    async def model_metadata(self, call: RpcCall) -> bytes:
        """Return what tensors a model takes and gives."""
        request = parse(pb.ModelMetadataRequest, call.message)
        served = await served_when_ready(self._context, request.name, request.version, call.deadline_s)
        versions = self._context.catalog.ready_versions(request.name)
        return metadata_message(served, versions).SerializeToString()

    async def model_config(self, call: RpcCall) -> bytes:
        """Return the configuration a model is served with."""
        request = parse(pb.ModelConfigRequest, call.message)
        served = await served_when_ready(self._context, request.name, request.version, call.deadline_s)
        return pb.ModelConfigResponse(config=config_message(served)).SerializeToString()

    async def model_statistics(self, call: RpcCall) -> bytes:
        """Return what models have done since they were loaded."""
        request = parse(pb.ModelStatisticsRequest, call.message)
        return statistics_message(self._operations.served(request.name, request.version)).SerializeToString()


class ControlMethods:
    """The repository and the settings."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def index(self, call: RpcCall) -> bytes:
        """List the repository."""
        request = parse(pb.RepositoryIndexRequest, call.message)
        rows = self._operations.index(request.repository_name, ready=request.ready)
        return index_message(rows).SerializeToString()

    async def load(self, call: RpcCall) -> bytes:
        """Load or reload a model; answers when it serves."""
        request = parse(pb.RepositoryModelLoadRequest, call.message)
        config, files = _load_parameters(request.parameters)
        await self._operations.load(request.repository_name, request.model_name, config, files)
        return pb.RepositoryModelLoadResponse().SerializeToString()

    async def unload(self, call: RpcCall) -> bytes:
        """Unload a model; no model depends on another, so `unload_dependents` changes nothing."""
        request = parse(pb.RepositoryModelUnloadRequest, call.message)
        for name, value in request.parameters.items():
            if name == "unload_dependents" and value.WhichOneof("parameter_choice") != "bool_param":
                raise InvalidRequest("unload parameter 'unload_dependents' must be a boolean")
        await self._operations.unload(request.repository_name, request.model_name)
        return pb.RepositoryModelUnloadResponse().SerializeToString()

    async def trace_setting(self, call: RpcCall) -> bytes:
        """Change trace settings and return those in force."""
        request = parse(pb.TraceSettingRequest, call.message)
        changes = {name: tuple(setting.value) for name, setting in request.settings.items()}
        response = pb.TraceSettingResponse()
        for name, values in self._operations.trace(request.model_name, changes).items():
            response.settings[name].value.extend(values)
        return response.SerializeToString()

    async def log_settings(self, call: RpcCall) -> bytes:
        """Change log settings and return all."""
        request = parse(pb.LogSettingsRequest, call.message)
        response = pb.LogSettingsResponse()
        for name, value in self._operations.log(_log_changes(request.settings)).items():
            _put(response.settings[name], value)
        return response.SerializeToString()

    async def shared_memory(self, _call: RpcCall) -> bytes:
        """Refuse: clients' shared memory is not offered."""
        raise Unsupported(SHARED_MEMORY_DISABLED)


def _load_parameters(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> tuple[str, dict[str, bytes]]:
    config, files = "", dict[str, bytes]()
    for name, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        load_parameter(name, is_text=kind == "string_param", is_file=kind == "bytes_param")
        if name == CONFIG_PARAMETER:
            config = value.string_param
        else:
            files[name.removeprefix(FILE_PREFIX)] = value.bytes_param
    return config, files


def _log_changes(settings: Mapping[str, pb.LogSettingsRequest.SettingValue]) -> LogValues:
    changes: dict[str, LogValue] = {}
    for name, setting in settings.items():
        match setting.WhichOneof("parameter_choice"):
            case "bool_param":
                changes[name] = setting.bool_param
            case "uint32_param":
                changes[name] = setting.uint32_param
            case "string_param":
                changes[name] = setting.string_param
            # A setting without a value asks for nothing, as Triton reads it.
    return changes


def _put(setting: pb.LogSettingsResponse.SettingValue, value: LogValue) -> None:
    if isinstance(value, bool):
        setting.bool_param = value
    elif isinstance(value, int):
        setting.uint32_param = value
    else:
        setting.string_param = value


def inference_service(context: ApiContext) -> RpcService:
    """Return inference.GRPCInferenceService over `context`."""
    errors = ErrorTranslator(context.profile)
    infer = InferMethods(context, errors)
    methods = _unary_methods(context)
    return RpcService(
        SERVICE_NAME,
        begin={"ModelInfer": infer.infer},
        unary={name: errors.unary(method) for name, method in methods.items()},
        stream={"ModelStreamInfer": errors.stream(infer.stream_infer)},
    )


def _unary_methods(context: ApiContext) -> Mapping[str, UnaryRpc]:
    operations = Operations(context)
    query, control = QueryMethods(context, operations), ControlMethods(operations)
    return {
        "ServerLive": query.server_live,
        "ServerReady": query.server_ready,
        "ModelReady": query.model_ready,
        "ServerMetadata": query.server_metadata,
        "ModelMetadata": query.model_metadata,
        "ModelConfig": query.model_config,
        "ModelStatistics": query.model_statistics,
        "RepositoryIndex": control.index,
        "RepositoryModelLoad": control.load,
        "RepositoryModelUnload": control.unload,
        "TraceSetting": control.trace_setting,
        "LogSettings": control.log_settings,
        **dict.fromkeys(_SHARED_MEMORY_METHODS, control.shared_memory),
    }
