"""Versions behind a router that mirrors: real batchers and one real scheduler over fake models and time."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.batching.batcher import Batcher, BatcherContext
from gateway.batching.scheduler import DeviceScheduler
from gateway.core.evidence import ArmRoute, RoutePlan, ShadowCounts, ShadowRoute
from gateway.core.options import BatchingOptions, ModelSpec
from gateway.core.rollout import PPM, Assignment, HashSpec, ShadowSpec, Target
from gateway.core.statistics import VersionStatistics
from gateway.core.types import CPU, BatchResult, VersionId
from gateway.models.catalog import Catalog
from gateway.models.served import LoadedVersion, Replica, VersionParts
from gateway.models.table import RoutingTable
from gateway.models.validation import RequestValidator
from gateway.routing.mirror import MirrorOptions, ShadowMirror
from gateway.routing.router import Router
from gateway.routing.routes import RouteTable
from gateway.testing import FakeLoadedModel, VirtualClock, identity_signature, infer_request

if TYPE_CHECKING:
    from gateway.core.pending import Pending
    from gateway.core.types import Batch, InferRequest

MODEL = "fraud"
STABLE = VersionId(MODEL, 1, "one")
SHADOW = VersionId(MODEL, 2, "two")


class Shifted(FakeLoadedModel):
    """A model that answers `y = x + shift`."""

    shift = 0.0

    async def infer(self, batch: Batch) -> BatchResult:
        result = await super().infer(batch)
        return BatchResult({name: array + np.float32(self.shift) for name, array in result.outputs.items()})


class Shelf(Catalog):
    """A catalog whose contents are put there."""

    def show(self, *versions: LoadedVersion) -> None:
        """Serve these versions and no others."""
        self._table = RoutingTable(versions)
        self.announce("shelf", {MODEL})


def plan(
    *shadows: ShadowRoute, rollout_id: str = "r1", step: int = 0, stable: VersionId = STABLE
) -> RoutePlan:
    """A plan with one arm and these shadows."""
    return RoutePlan(
        model=MODEL,
        arms=(ArmRoute("stable", stable, PPM),),
        shadows=shadows,
        assign=Assignment(HashSpec("salt")),
        rollout="fraud-score",
        rollout_id=rollout_id,
        step=step,
    )


def shadow(version: VersionId = SHADOW, name: str = "next", **fields: Any) -> ShadowRoute:
    """A shadow; `fields` are those of its ShadowSpec."""
    return ShadowRoute(ShadowSpec(name=name, target=Target(str(version.number)), **fields), version)


@dataclass
class Scene:
    """Everything around the mirror; `slots` runs at once on the one device."""

    slots: int = 2
    options: MirrorOptions = field(default_factory=MirrorOptions)
    clock: VirtualClock = field(default_factory=VirtualClock)
    catalog: Shelf = field(default_factory=Shelf)
    threads: Executor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def __post_init__(self) -> None:
        self.scheduler = DeviceScheduler(CPU, self.slots)
        self.mirror = ShadowMirror(self.catalog, self.clock, lambda _: self.scheduler, self.options)
        self.table = RouteTable(self.clock, shadows=self.mirror)
        self.router = Router(self.catalog, table=self.table)
        self.stable_model, self.stable = self.version(STABLE)
        self.shadow_model, self.shadow = self.version(SHADOW)
        self.catalog.show(self.stable, self.shadow)

    def version(
        self, identity: VersionId, features: int = 1, **batching: Any
    ) -> tuple[Shifted, LoadedVersion]:
        """Load a version, without showing it."""
        model = Shifted(identity_signature(features=features))
        options = BatchingOptions(**batching)
        spec = ModelSpec(name=MODEL, batching=options)
        statistics = VersionStatistics()
        context = BatcherContext(self.scheduler, self.clock, self.threads)
        batcher = Batcher(identity, model, spec, statistics, context)
        return model, LoadedVersion(
            VersionParts(
                id=identity,
                spec=spec,
                signature=model.signature,
                platform="fake",
                statistics=statistics,
                replicas=[Replica(model, batcher)],
                validator=RequestValidator(MODEL, model.signature, options, implicit_batch=False),
            )
        )

    def queued(self, version: LoadedVersion) -> int:
        """Return how many requests wait in a version's queues."""
        return sum(replica.batcher.queued_requests for replica in version._replicas)

    def follow(self, *plans: RoutePlan) -> None:
        """Put plans in force."""
        self.table.apply(plans)
        self.mirror.apply(plans)

    def send(self, value: float = 1.0, **fields: Any) -> Pending:
        """Submit a request of one row."""
        return self.router.submit(request(value, **fields))

    def counts(self, name: str = "next", rollout_id: str = "r1", step: int = 0) -> ShadowCounts:
        """The totals of a shadow."""
        return self.mirror.evidence()[rollout_id, step][name]


def request(value: float = 1.0, **fields: Any) -> InferRequest:
    """A request of one row with that value."""
    return infer_request(np.full((1, 1), value, np.float32), model=MODEL, **fields)


def balanced(counts: ShadowCounts) -> bool:
    """Whether every copy is accounted for."""
    ended = counts.compared + counts.failed + sum(counts.dropped.values())
    return counts.mirrored == ended + counts.under_way
