"""grpc.health.v1: whether the server, or one model, is serving; asked once or watched."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway._proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from gateway.api.errors import ErrorTranslator, only_message, parse
from gateway.core.calls import RpcService
from gateway.core.errors import Draining, GatewayError, NotFound

if TYPE_CHECKING:
    from gateway.api.readiness import ReadinessFeed
    from gateway.core.calls import RpcCall, RpcStream
    from gateway.core.interfaces import ModelCatalog

SERVICE_NAME: Final = "grpc.health.v1.Health"
_WHOLE_SERVER: Final = frozenset({"", "inference.GRPCInferenceService"})


class HealthMethods:
    """Check and Watch. A service name is empty, the inference service's, or a model's.

    Args:
        catalog: what is ready.
        feed: says when to look again.
    """

    def __init__(self, catalog: ModelCatalog, feed: ReadinessFeed) -> None:
        self._catalog = catalog
        self._feed = feed

    async def check(self, call: RpcCall) -> bytes:
        """Answer with the state now.

        Raises:
            NotFound: the service is neither the server nor a model.
        """
        service = parse(HealthCheckRequest, call.message).service
        status = self._status(service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            raise NotFound(f"unknown service '{service}': neither this server nor one of its models")
        return _message(status)

    async def watch(self, stream: RpcStream) -> None:
        """Send the state now and then each change of it, until the client or the server goes.

        Changes that follow each other within one turn of the event loop may be sent as one.

        Raises:
            Draining: the feed was closed, after the last state was sent.
        """
        service = parse(HealthCheckRequest, await only_message(stream)).service
        changed = asyncio.Event()
        unsubscribe = self._feed.subscribe(changed.set)
        try:
            await self._report(stream, service, changed)
        finally:
            unsubscribe()

    async def _report(self, stream: RpcStream, service: str, changed: asyncio.Event) -> None:
        last: HealthCheckResponse.ServingStatus | None = None
        while True:
            changed.clear()  # before looking, so that a change while sending is seen
            status = self._status(service)
            if status != last:
                await stream.send(_message(status))
                last = status
            if self._feed.closed:
                raise Draining("the server is shutting down")
            await changed.wait()

    def _status(self, service: str) -> HealthCheckResponse.ServingStatus:
        try:
            ready = self._is_ready(service)
        except GatewayError:
            return HealthCheckResponse.SERVICE_UNKNOWN
        if ready and not self._feed.draining:
            return HealthCheckResponse.SERVING
        return HealthCheckResponse.NOT_SERVING

    def _is_ready(self, service: str) -> bool:
        if service in _WHOLE_SERVER:
            return self._catalog.is_ready()
        return self._catalog.is_model_ready(service)


def _message(status: HealthCheckResponse.ServingStatus) -> bytes:
    return HealthCheckResponse(status=status).SerializeToString()


def health_service(catalog: ModelCatalog, feed: ReadinessFeed, errors: ErrorTranslator) -> RpcService:
    """Return grpc.health.v1.Health over `catalog`, watching by `feed`."""
    methods = HealthMethods(catalog, feed)
    return RpcService(
        SERVICE_NAME,
        unary={"Check": errors.unary(methods.check)},
        server_stream={"Watch": errors.stream(methods.watch)},
    )
