"""One served model `rows` (x -> x), one decoupled `many`, one not ready `late`, behind an echoing service."""

from __future__ import annotations

import pytest

from gateway.api.context import ApiContext
from gateway.api.readiness import ReadinessNotifier
from gateway.api.server_metadata import ServerMetadata
from gateway.core.types import VersionState
from gateway.testing import EchoService, VirtualClock
from tests.api.drivers import DECOUPLED, Catalog, Repository


@pytest.fixture
def catalog() -> Catalog:
    catalog = Catalog()
    catalog.put("rows", 1, labels={"x": ("cat", "dog")})
    catalog.put("rows", 2, labels={"x": ("cat", "dog")})
    catalog.put("many", signature=DECOUPLED)
    catalog.put("late", state=VersionState.LOADING)
    return catalog


@pytest.fixture
def service() -> EchoService:
    return EchoService(version="2")


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def readiness() -> ReadinessNotifier:
    return ReadinessNotifier()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1000.0)


@pytest.fixture
def context(
    catalog: Catalog,
    service: EchoService,
    repository: Repository,
    readiness: ReadinessNotifier,
    clock: VirtualClock,
) -> ApiContext:
    return ApiContext(
        service=service,
        catalog=catalog,
        repository=repository,
        readiness=readiness,
        clock=clock,
        metadata=ServerMetadata("model-gateway", "1.2.3"),
        max_stream_inflight=3,
    )
