"""grpc.health.v1 Check and Watch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway._proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from gateway.api.errors import ErrorTranslator
from gateway.api.grpc_health import health_service
from gateway.core.calls import RpcFailure
from gateway.core.types import VersionId, VersionState, VersionStatus
from gateway.protocol.status import GrpcCode, StatusProfile
from gateway.testing import settle
from tests.api.drivers import StreamCall, call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.api.readiness import ReadinessNotifier
    from gateway.core.calls import RpcService
    from tests.api.drivers import Catalog

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def health(catalog: Catalog, readiness: ReadinessNotifier) -> RpcService:
    return health_service(catalog, readiness, ErrorTranslator(StatusProfile.DEFAULT))


def ask(service: str) -> bytes:
    return HealthCheckRequest(service=service).SerializeToString()


def state(message: bytes) -> int:
    return HealthCheckResponse.FromString(message).status


@pytest.mark.parametrize(
    ("service", "expected"),
    [("", SERVING), ("inference.GRPCInferenceService", SERVING), ("rows", SERVING), ("late", NOT_SERVING)],
)
async def test_check(health: RpcService, service: str, expected: int) -> None:
    """The server, the inference service and each model can be asked for."""
    assert state(await call(health, "Check", ask(service))) == expected


async def test_check_of_an_unknown_service(health: RpcService) -> None:
    """An unknown name is NOT_FOUND, and names what was asked."""
    with pytest.raises(RpcFailure, match="nobody") as caught:
        await call(health, "Check", ask("nobody"))
    assert caught.value.status.code == GrpcCode.NOT_FOUND


async def test_check_of_garbage(health: RpcService) -> None:
    """A message that is none is the client's fault."""
    with pytest.raises(RpcFailure) as caught:
        await call(health, "Check", b"\xff\xff")
    assert caught.value.status.code == GrpcCode.INVALID_ARGUMENT


@pytest.mark.parametrize("service", ["", "rows"])
async def test_check_while_draining(health: RpcService, readiness: ReadinessNotifier, service: str) -> None:
    """A server that is going serves nothing, whatever the models' states."""
    readiness.begin_drain()
    assert state(await call(health, "Check", ask(service))) == NOT_SERVING


class Watcher:
    """A Watch under way."""

    def __init__(self, health: RpcService, service: str) -> None:
        self.stream = StreamCall()
        self.stream.write(ask(service))
        self.stream.half_close()
        self.task = asyncio.ensure_future(health.server_stream["Watch"](self.stream))

    async def next(self) -> int:
        return state(await self.stream.receive())

    async def idle(self) -> bool:
        await settle()
        return not self.stream.received() and not self.task.done()


@pytest.fixture
async def watchers() -> AsyncIterator[list[Watcher]]:
    started: list[Watcher] = []
    yield started
    for watcher in started:
        watcher.task.cancel()
    await asyncio.gather(*(watcher.task for watcher in started), return_exceptions=True)


def change(readiness: ReadinessNotifier, catalog: Catalog, model: str, to: VersionState) -> None:
    """Move version 1 of a model and tell of it, as the model manager does."""
    catalog.put(model, 1, state=to)
    readiness.on_transition(VersionStatus(id=VersionId(model, 1, ""), state=to))


async def test_watch_follows_a_model(
    health: RpcService, catalog: Catalog, readiness: ReadinessNotifier, watchers: list[Watcher]
) -> None:
    """A model not yet known is watched from SERVICE_UNKNOWN through loading to serving and away again."""
    watcher = Watcher(health, "new")
    watchers.append(watcher)
    assert await watcher.next() == SERVICE_UNKNOWN
    change(readiness, catalog, "new", VersionState.LOADING)
    assert await watcher.next() == NOT_SERVING
    change(readiness, catalog, "new", VersionState.READY)
    assert await watcher.next() == SERVING
    change(readiness, catalog, "other", VersionState.READY)
    assert await watcher.idle()
    change(readiness, catalog, "new", VersionState.DRAINING)
    assert await watcher.next() == NOT_SERVING


async def test_watch_sees_a_change_made_while_it_sends(
    health: RpcService, catalog: Catalog, readiness: ReadinessNotifier, watchers: list[Watcher]
) -> None:
    """A change that comes while the client is slow to take the last state is not lost."""
    watcher = Watcher(health, "late")
    watchers.append(watcher)
    watcher.stream.writable.clear()
    await settle()
    change(readiness, catalog, "late", VersionState.READY)
    watcher.stream.writable.set()
    assert await watcher.next() == NOT_SERVING
    assert await watcher.next() == SERVING


async def test_watch_through_a_shutdown(
    health: RpcService, readiness: ReadinessNotifier, watchers: list[Watcher]
) -> None:
    """Draining is seen as NOT_SERVING on an open stream; closing the feed ends the stream as UNAVAILABLE."""
    watcher = Watcher(health, "")
    watchers.append(watcher)
    assert await watcher.next() == SERVING
    readiness.begin_drain()
    assert await watcher.next() == NOT_SERVING
    assert await watcher.idle()
    readiness.close()
    with pytest.raises(RpcFailure) as caught:
        await watcher.task
    assert caught.value.status.code == GrpcCode.UNAVAILABLE


async def test_watch_unsubscribes_when_the_client_goes(
    health: RpcService, readiness: ReadinessNotifier
) -> None:
    """A cancelled watch leaves no callback behind."""
    watcher = Watcher(health, "")
    await watcher.next()
    assert len(readiness._callbacks) == 1
    watcher.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watcher.task
    assert not readiness._callbacks


async def test_watch_without_a_request(health: RpcService) -> None:
    """A client that half-closes at once is told so."""
    stream = StreamCall()
    stream.half_close()
    with pytest.raises(RpcFailure) as caught:
        await health.server_stream["Watch"](stream)
    assert caught.value.status.code == GrpcCode.INVALID_ARGUMENT
