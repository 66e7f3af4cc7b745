"""Server reflection, under its final name and its alpha one: which services there are, and their messages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

# Importing a generated module fills the pool with its file: all that is served must be imported here.
from gateway._proto import health_pb2, model_config_pb2, open_inference_pb2, reflection_pb2, reflection_v1_pb2
from gateway._proto.pool import POOL
from gateway._proto.reflection_v1_pb2 import (
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)
from gateway.api.errors import ErrorTranslator, parse
from gateway.core.calls import RpcService
from gateway.core.errors import Draining

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import Descriptor, FileDescriptor, ServiceDescriptor

    from gateway.api.readiness import ReadinessFeed
    from gateway.core.calls import RpcStream

SERVED_FILES: Final = (
    open_inference_pb2.DESCRIPTOR,
    model_config_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_v1_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
)
SERVICE_NAMES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

_NOT_FOUND: Final = 5
_INVALID_ARGUMENT: Final = 3


class Descriptors(Protocol):
    """The part of a descriptor pool that reflection asks; each raises KeyError for what it does not have."""

    def FindFileByName(self, file_name: str) -> FileDescriptor:  # noqa: N802 - protobuf's name
        """Return a file."""

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - protobuf's name
        """Return the file that declares a service, type or field."""

    def FindServiceByName(self, full_name: str) -> ServiceDescriptor:  # noqa: N802 - protobuf's name
        """Return a service."""

    def FindMessageTypeByName(self, full_name: str) -> Descriptor:  # noqa: N802 - protobuf's name
        """Return a message type."""


class ReflectionMethods:
    """Answers questions in step; an error is an answer too, and the stream goes on.

    Both versions of the protocol have the same fields under the same numbers, so one set of messages
    serves both.

    Args:
        services: full names to list.
        feed: says when the server goes.
        pool: where descriptors are looked up.
    """

    def __init__(self, services: Sequence[str], feed: ReadinessFeed, pool: Descriptors = POOL) -> None:
        self._services = sorted(services)
        self._feed = feed
        self._pool = pool

    async def info(self, stream: RpcStream) -> None:
        """Answer each request in order until the client half-closes or the server goes.

        Raises:
            Draining: the server went first; a stream that idles does not hold it up.
        """
        lifetime = asyncio.timeout(None)
        try:
            async with lifetime:
                self._look_at_server(lifetime)
                unsubscribe = self._feed.subscribe(lambda: self._look_at_server(lifetime))
                try:
                    await self._answer_each(stream)
                finally:
                    unsubscribe()
        except TimeoutError:
            if lifetime.expired():
                raise Draining("the server is shutting down") from None
            raise

    def _look_at_server(self, lifetime: asyncio.Timeout) -> None:
        """End `lifetime` now, once, if the server goes."""
        if self._feed.closed and lifetime.when() is None:
            lifetime.reschedule(asyncio.get_running_loop().time())

    async def _answer_each(self, stream: RpcStream) -> None:
        async for message in stream:
            request = parse(ServerReflectionRequest, message)
            await stream.send(self.answer(request).SerializeToString())

    def answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        """Return the answer to one request."""
        response = ServerReflectionResponse(valid_host=request.host, original_request=request)
        try:
            self._fill(request, response)
        except KeyError:
            _fail(response, _NOT_FOUND, "not found")
        return response

    def _fill(self, request: ServerReflectionRequest, response: ServerReflectionResponse) -> None:
        match request.WhichOneof("message_request"):
            case "list_services":
                names = [ServiceResponse(name=name) for name in self._services]
                response.list_services_response.CopyFrom(ListServiceResponse(service=names))
            case "file_by_filename":
                _give(response, self._pool.FindFileByName(request.file_by_filename))
            case "file_containing_symbol":
                _give(response, self._file_of(request.file_containing_symbol))
            case "file_containing_extension":
                _fail(response, _NOT_FOUND, "proto3 messages have no extensions")
            case "all_extension_numbers_of_type":
                self._give_extensions(response, request.all_extension_numbers_of_type)
            case _:
                _fail(response, _INVALID_ARGUMENT, "the request asks for nothing that this server knows")

    def _file_of(self, symbol: str) -> FileDescriptor:
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            # The pool finds fields by their full names, but methods only through their service.
            service, _, method = symbol.rpartition(".")
            if method not in self._pool.FindServiceByName(service).methods_by_name:
                raise
            return self._pool.FindFileContainingSymbol(service)

    def _give_extensions(self, response: ServerReflectionResponse, type_name: str) -> None:
        self._pool.FindMessageTypeByName(type_name)
        response.all_extension_numbers_response.CopyFrom(ExtensionNumberResponse(base_type_name=type_name))


def _give(response: ServerReflectionResponse, file: FileDescriptor) -> None:
    files: dict[str, bytes] = {}
    _collect(file, files)
    response.file_descriptor_response.CopyFrom(FileDescriptorResponse(file_descriptor_proto=files.values()))


def _collect(file: FileDescriptor, files: dict[str, bytes]) -> None:
    if file.name not in files:
        files[file.name] = file.serialized_pb
        for dependency in file.dependencies:
            _collect(dependency, files)


def _fail(response: ServerReflectionResponse, code: int, message: str) -> None:
    response.error_response.CopyFrom(ErrorResponse(error_code=code, error_message=message))


def reflection_services(
    services: Sequence[str], feed: ReadinessFeed, errors: ErrorTranslator
) -> list[RpcService]:
    """Return both reflection services; they list `services` and themselves, and end when `feed` closes."""
    methods = ReflectionMethods([*services, *SERVICE_NAMES], feed)
    stream = {"ServerReflectionInfo": errors.stream(methods.info)}
    return [RpcService(name, stream=stream) for name in SERVICE_NAMES]
