"""A Triton on one port of this process that answers as a test tells it, in our own protocol's messages."""

from __future__ import annotations

import asyncio
import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from gateway._proto import model_config_pb2 as config_pb
from gateway._proto import open_inference_pb2 as pb
from gateway.core.remote import Address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType

_SERVICE = "inference.GRPCInferenceService"
_UNARY = (
    *("ServerLive", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"),
    *("RepositoryModelLoad", "RepositoryModelUnload"),
    *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
)


@dataclass
class Failure(Exception):
    """Answers a call with a status."""

    code: grpc.StatusCode
    details: str = ""
    trailers: Sequence[tuple[str, str]] = ()


@dataclass
class FakeModel:
    """A model that gives each input `x...` back as output `y...`.

    Attributes:
        versions: numbers that are ready.
        config: its ModelConfig, names and dims of tensors included.
        behave: called with the request before it is answered; may raise Failure, or return what to wait for.
        stream: gives the responses to a request on a stream; may raise Failure, with code OK for an error
            that is a response.
    """

    versions: set[int]
    config: config_pb.ModelConfig
    behave: Callable[[pb.ModelInferRequest], Any] | None = None
    stream: Callable[[pb.ModelInferRequest], AsyncIterator[pb.ModelStreamInferResponse]] | None = None


def model(
    *versions: int,
    datatype: str = "FP32",
    dims: Sequence[int] = (2,),
    max_batch_size: int = 8,
    **more: Any,
) -> FakeModel:
    """Return the model `y = x`."""
    config = config_pb.ModelConfig(max_batch_size=max_batch_size, **more)
    kind = config_pb.DataType.Value(f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}")
    config.input.add(name="x", data_type=kind, dims=dims)
    config.output.add(name="y", data_type=kind, dims=dims)
    return FakeModel(set(versions or (1,)), config)


@dataclass
class Seen:
    """A request that came, with the call's metadata and the seconds that it had left."""

    request: pb.ModelInferRequest
    metadata: dict[str, str]
    remaining_s: float | None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class FakeTriton:
    """The server; an async context.

    Attributes:
        models: by name.
        failures: method -> the failure that answers it.
        seen: inference requests, in order.
        asked: every method called but ModelInfer, in order.
        shares_memory: whether regions can be registered.
        regions: name -> (key, mapping).
        counters: queue ns, computed ns and requests that the statistics say, by name and version.
        port: where it listens.
    """

    models: dict[str, FakeModel] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    shares_memory: bool = False
    regions: dict[str, tuple[str, mmap.mmap]] = field(default_factory=dict)
    counters: dict[tuple[str, int], tuple[int, int, int]] = field(default_factory=dict)
    port: int = 0

    async def __aenter__(self) -> Self:
        """Start, on the same port as before if it ran before."""
        self._server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        )
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(
                self._handler(name),
                request_deserializer=getattr(pb, f"{name}Request").FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            for name in _UNARY
        }
        handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(
            self._infer, pb.ModelInferRequest.FromString, lambda message: message.SerializeToString()
        )
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream_infer, pb.ModelInferRequest.FromString, lambda message: message.SerializeToString()
        )
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop at once; regions are unmapped, as by the end of a process."""
        await self._server.stop(None)
        self.regions.clear()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address("127.0.0.1", self.port)

    def _handler(self, name: str) -> Any:
        async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            self.asked.append(name)
            try:
                if failure := self.failures.get(name):
                    raise failure
                return getattr(self, f"_{name}")(request)
            except Failure as failure:
                await context.abort(failure.code, failure.details, tuple(failure.trailers))

        return handle

    async def _infer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        seen = self._see(request, context)
        try:
            if failure := self.failures.get("ModelInfer"):
                raise failure
            found = self._model(request.model_name, request.model_version)
            if found.behave is not None:
                waiting = found.behave(request)
                if waiting is not None:
                    await waiting
            return self._answer(request)
        except Failure as failure:
            await context.abort(failure.code, failure.details, tuple(failure.trailers))
            raise
        except asyncio.CancelledError:
            seen.cancelled.set()
            raise

    async def _stream_infer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        async for request in requests:
            seen = self._see(request, context)
            try:
                if failure := self.failures.get("ModelStreamInfer"):
                    raise failure
                found = self._model(request.model_name, request.model_version)
                assert found.stream is not None
                async for response in found.stream(request):
                    yield response
            except Failure as failure:
                if failure.code is not grpc.StatusCode.OK:
                    await context.abort(failure.code, failure.details, tuple(failure.trailers))
                yield pb.ModelStreamInferResponse(error_message=failure.details)
            except asyncio.CancelledError:
                seen.cancelled.set()
                raise

    def _see(self, request: pb.ModelInferRequest, context: Any) -> Seen:
        metadata = dict(context.invocation_metadata())
        self.seen.append(Seen(request, metadata, context.time_remaining()))
        return self.seen[-1]

    def _model(self, name: str, version: str) -> FakeModel:
        found = self.models.get(name)
        if found is None:
            raise Failure(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        if version and int(version) not in found.versions:
            text = f"Request for unknown model: '{name}' version {version} is not found"
            raise Failure(grpc.StatusCode.NOT_FOUND, text)
        return found

    def _answer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        answer = pb.ModelInferResponse(
            model_name=request.model_name, model_version=request.model_version, id=request.id
        )
        raw = iter(request.raw_input_contents)
        contents = {}
        for tensor in request.inputs:
            region = self._region(tensor.parameters)
            contents[tensor.name] = next(raw) if region is None else bytes(region)
        for wanted in request.outputs:
            source = next(t for t in request.inputs if t.name == "x" + wanted.name[1:])
            answer.outputs.add(name=wanted.name, datatype=source.datatype, shape=source.shape)
            region = self._region(wanted.parameters)
            if region is None:
                answer.raw_output_contents.append(contents[source.name])
            else:
                region[:] = contents[source.name]
                answer.raw_output_contents.append(b"")
        return answer

    def _region(self, parameters: Any) -> memoryview | None:
        if "shared_memory_region" not in parameters:
            return None
        name = parameters["shared_memory_region"].string_param
        if name not in self.regions:
            raise Failure(grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{name}'")
        offset = parameters["shared_memory_offset"].int64_param if "shared_memory_offset" in parameters else 0
        size = parameters["shared_memory_byte_size"].int64_param
        return memoryview(self.regions[name][1])[offset : offset + size]

    def _ServerLive(self, request: Any) -> Any:  # noqa: N802 - named for the method
        return pb.ServerLiveResponse(live=True)

    def _ModelReady(self, request: Any) -> Any:  # noqa: N802 - likewise
        self._model(request.name, request.version)
        return pb.ModelReadyResponse(ready=True)

    def _ModelMetadata(self, request: Any) -> Any:  # noqa: N802 - likewise
        found = self._model(request.name, request.version)
        answer = pb.ModelMetadataResponse(name=request.name, platform="fake_platform")
        answer.versions.extend(sorted(map(str, found.versions)))
        batch = [-1] if found.config.max_batch_size else []
        for tensors, kept in ((found.config.input, answer.inputs), (found.config.output, answer.outputs)):
            for tensor in tensors:
                name = config_pb.DataType.Name(tensor.data_type).removeprefix("TYPE_")
                kept.add(
                    name=tensor.name,
                    datatype="BYTES" if name == "STRING" else name,
                    shape=[*batch, *tensor.dims],
                )
        return answer

    def _ModelConfig(self, request: Any) -> Any:  # noqa: N802 - likewise
        return pb.ModelConfigResponse(config=self._model(request.name, request.version).config)

    def _ModelStatistics(self, request: Any) -> Any:  # noqa: N802 - likewise
        answer = pb.ModelStatisticsResponse()
        for (name, version), (queue_ns, infer_ns, count) in self.counters.items():
            stats = answer.model_stats.add(name=name, version=str(version)).inference_stats
            stats.queue.ns, stats.compute_infer.ns, stats.success.count = queue_ns, infer_ns, count
        return answer

    def _RepositoryIndex(self, request: Any) -> Any:  # noqa: N802 - likewise
        answer = pb.RepositoryIndexResponse()
        for name, found in self.models.items():
            for number in sorted(found.versions):
                answer.models.add(name=name, version=str(number), state="READY")
        return answer

    def _RepositoryModelLoad(self, request: Any) -> Any:  # noqa: N802 - likewise
        return pb.RepositoryModelLoadResponse()

    def _RepositoryModelUnload(self, request: Any) -> Any:  # noqa: N802 - likewise
        return pb.RepositoryModelUnloadResponse()

    def _SystemSharedMemoryStatus(self, request: Any) -> Any:  # noqa: N802 - likewise
        answer = pb.SystemSharedMemoryStatusResponse()
        for name, (key, mapped) in self.regions.items():
            region = answer.regions[name]
            region.name, region.key, region.byte_size = name, key, len(mapped)
        return answer

    def _SystemSharedMemoryRegister(self, request: Any) -> Any:  # noqa: N802 - likewise
        if not self.shares_memory:
            raise Failure(grpc.StatusCode.UNIMPLEMENTED, "Client shared memory is disabled.")
        path = Path("/dev/shm") / request.key.lstrip("/")
        if not path.exists():
            text = f"Unable to open shared memory region: '{request.key}'"
            raise Failure(grpc.StatusCode.INTERNAL, text)
        fd = os.open(path, os.O_RDWR)
        try:
            self.regions[request.name] = (request.key, mmap.mmap(fd, request.byte_size))
        finally:
            os.close(fd)
        return pb.SystemSharedMemoryRegisterResponse()

    def _SystemSharedMemoryUnregister(self, request: Any) -> Any:  # noqa: N802 - likewise
        self.regions.pop(request.name, None)
        return pb.SystemSharedMemoryUnregisterResponse()
