"""A router with routes over a real manager and real batchers, whose models are fakes."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.batching import Batcher, BatcherContext, DeviceScheduler
from gateway.core.evidence import ArmCounts, ArmRoute, RoutePlan
from gateway.core.rollout import PPM, Assignment, HashSpec, KeyKind, KeySource
from gateway.core.types import CPU, VersionId
from gateway.models.manager import ManagerParts, ModelManager
from gateway.routing.router import Router
from gateway.routing.routes import RouteTable
from gateway.testing import FakeBackend, FakeLoadedModel, VirtualClock, infer_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.core.interfaces import LoadedModel
    from gateway.core.options import LoadOptions, ModelSpec
    from gateway.core.statistics import VersionStatistics
    from gateway.core.types import Artifact, InferRequest, ModelSignature
    from gateway.models.desired import DesiredVersion
    from gateway.routing.routes import ShadowSink

USER = "x-user"
BY_USER = Assignment(hash=HashSpec("salt"), keys=(KeySource(KeyKind.HEADER, USER),))


def version(number: int) -> VersionId:
    """A version of model `m`."""
    return VersionId("m", number, f"d{number}")


def plan(canary_ppm: int = PPM // 2, **changes: Any) -> RoutePlan:
    """Stable is version 1, canary version 2."""
    arms = (
        ArmRoute("stable", version(1), PPM - canary_ppm),
        ArmRoute("canary", version(2), canary_ppm),
    )
    made = RoutePlan(model="m", arms=arms, assign=BY_USER, rollout="r", rollout_id="id", step=1)
    return replace(made, **changes)


def ask(user: str = "", tag: float = 1.0, **fields: Any) -> InferRequest:
    """A request of one row for model `m`."""
    headers = {USER: user} if user else {}
    made = {"model": "m", "arrived_s": 1000.0, "headers": headers, **fields}
    return infer_request(np.full((1, 1), tag, np.float32), **made)


def users_of(table: RouteTable, arm: str) -> Iterator[str]:
    """Give the users that get an arm of model `m`, none twice."""
    for number in itertools.count():
        sent = ask(f"u{number}")
        if table.routes["m"].assign(sent).name == arm:
            yield f"u{number}"


@dataclass
class RoutedStage:
    """Everything that a test of routes may steer or look at.

    Attributes:
        models: artifact digest -> what is loaded for it.
        changes: artifact digest -> how its model differs from others, before it is loaded.
    """

    signature: ModelSignature | None = None
    clock: VirtualClock = field(default_factory=VirtualClock)
    models: dict[str, FakeLoadedModel] = field(default_factory=dict)
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    shadows: ShadowSink | None = None

    @asynccontextmanager
    async def serving(self, *versions: DesiredVersion) -> AsyncIterator[RoutedStage]:
        backend = FakeBackend(make=self._model)
        with ThreadPoolExecutor(1) as threads:
            parts = ManagerParts(
                backends={"fake": backend},
                batcher_factory=partial(
                    _batcher, BatcherContext(DeviceScheduler(CPU, 8), self.clock, threads, ())
                ),
                clock=self.clock,
                warm_up=_nothing,
            )
            async with ModelManager(parts) as self.manager:
                self.table = RouteTable(self.clock, self.shadows)
                self.router = Router(self.manager, table=self.table)
                self.manager.apply("source", versions)
                await self.manager.wait_settled()
                yield self

    def counts(self, arm: str, rollout_id: str = "id", step: int = 1) -> ArmCounts:
        """Return what an arm has counted."""
        return self.table.evidence()[rollout_id, step][arm]

    def users(self, arm: str, count: int) -> list[str]:
        """Return so many users that get an arm."""
        return list(itertools.islice(users_of(self.table, arm), count))

    def user(self, arm: str) -> str:
        """Return a user that gets an arm."""
        return next(users_of(self.table, arm))

    def _model(self, artifact: Artifact, options: LoadOptions) -> FakeLoadedModel:
        del options
        made = FakeLoadedModel(**{"signature": self.signature, **self.changes.get(artifact.digest, {})})
        self.models[artifact.digest] = made
        return made


def _batcher(
    context: BatcherContext,
    version: VersionId,
    model: LoadedModel,
    spec: ModelSpec,
    statistics: VersionStatistics,
) -> Batcher:
    return Batcher(version, model, spec, statistics, context)


async def _nothing(model: LoadedModel, spec: ModelSpec) -> list[str]:
    del model, spec
    return []
