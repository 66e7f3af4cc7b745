"""A manager over fakes, and versions to claim: shared by the tests of this folder."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.core.options import ModelSpec
from gateway.core.pending import Pending
from gateway.core.types import Artifact, InferRequest, InferResponse, VersionId
from gateway.models.desired import DesiredVersion
from gateway.models.golden.run import golden_files
from gateway.models.manager import ManagerParts, ModelManager
from gateway.testing import FakeBackend, RecordingObserver, VirtualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.core.interfaces import LoadedModel
    from gateway.core.statistics import VersionStatistics


class FakeBatcher:
    """A VersionBatcher that holds what it is given until told."""

    def __init__(self, version: VersionId, model: LoadedModel) -> None:
        self.version = version
        self.model = model
        self.pendings: list[Pending] = []
        self.queued_rows = 0
        self.queued_requests = 0
        self.running_rows = 0
        self.closed = False

    def submit(self, request: InferRequest) -> Pending:
        if self.closed:
            raise AssertionError("submit after aclose")
        pending = Pending(request)
        self.pendings.append(pending)
        return pending

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        yield InferResponse(model_name=request.model_name, model_version="1", outputs=())

    async def aclose(self) -> None:
        if self.closed:
            raise AssertionError("closed twice")
        self.closed = True


@dataclass
class Stage:
    """Everything a manager test may steer or look at."""

    backend: FakeBackend = field(default_factory=FakeBackend)
    observer: RecordingObserver = field(default_factory=RecordingObserver)
    clock: VirtualClock = field(default_factory=VirtualClock)
    batchers: list[FakeBatcher] = field(default_factory=list)
    warm_up_failures: dict[str, Exception] = field(default_factory=dict)
    warmed: list[str] = field(default_factory=list)

    def batcher(
        self, version: VersionId, model: LoadedModel, spec: ModelSpec, statistics: VersionStatistics
    ) -> FakeBatcher:
        self.batchers.append(FakeBatcher(version, model))
        return self.batchers[-1]

    async def warm_up(self, model: LoadedModel, spec: ModelSpec) -> list[str]:
        self.warmed.append(spec.name)
        if error := self.warm_up_failures.get(spec.name):
            raise error
        return []

    async def find_golden(self, directory: Path) -> Sequence[Path]:
        return golden_files(directory)

    @asynccontextmanager
    async def manager(self, **parts: object) -> AsyncIterator[ModelManager]:
        made = ManagerParts(
            backends={"fake": self.backend},
            batcher_factory=self.batcher,
            clock=self.clock,
            warm_up=self.warm_up,
            find_golden=self.find_golden,
            observers=(self.observer,),
            wall_s=lambda: 7.0,
        )
        async with ModelManager(replace(made, **parts)) as manager:  # type: ignore[arg-type]
            yield manager


def wanted(model: str, number: int, digest: str = "d", **spec: object) -> DesiredVersion:
    """Return a version to claim, served by the fake backend."""
    artifact = Artifact(Path("/nowhere"), Path("/nowhere/model.onnx"), digest)
    made = ModelSpec(name=model, backend="fake", **spec)  # type: ignore[arg-type]
    return DesiredVersion(id=VersionId(model, number, digest), artifact=artifact, spec=made)
