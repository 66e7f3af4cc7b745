"""A gateway's rollouts over the real cores, routes, manager, store and audit chain. Faked are the models'
code, the files, time and the disk. A scene outlives the lives of its gateway.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.config.rollout_file import RolloutFile
from gateway.config.rollout_set import FileStatus, RolloutFiles
from gateway.core.errors import NotFound
from gateway.core.rollout import (
    PPM,
    Assignment,
    CrashesGate,
    ErrorsGate,
    HashSpec,
    PromoteStep,
    Requirement,
    RolloutSpec,
    SplitSpec,
    Target,
    TestSpec,
    WeightStep,
)
from gateway.core.rollout_control import Actor, Command, Verb
from gateway.core.targets import ResolvedTarget
from gateway.rollouts.controller import TICK_S, RolloutController
from gateway.rollouts.controller_parts import ControllerParts
from gateway.rollouts.pausing import pause
from gateway.routing.routes import RouteTable
from gateway.state.audit import AuditChain, AuditOptions
from gateway.state.store import JournalStore
from gateway.testing import VirtualClock, infer_request, settle
from tests.models.stage import Stage, wanted
from tests.rollouts.shell.waiting import until
from tests.state.simulated_disk import Killed, SimulatedDisk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from gateway.core.evidence import RoutePlan, ShadowCounts
    from gateway.core.interfaces import WantedVersion
    from gateway.core.state import AuditRecord, Document
    from gateway.core.types import VersionId, VersionStatus
    from gateway.models.manager import ModelManager
    from gateway.rollouts.ports import Journal

MODEL = "m"
WALL_S = 1_767_600_000.0
OPERATOR = Actor("alice", is_known=True, roles=frozenset({"sre"}))


def rollout(canary: int = 2, weights: Sequence[int] = (100_000, 500_000), **changes: Any) -> RolloutSpec:
    """Return two weights and promotion, gated by errors and crashes."""
    steps = [WeightStep(w, 2.0, 1e6, ("safety",), Requirement.NO_HARM) for w in weights]
    values: dict[str, Any] = {
        "name": "line",
        "model": MODEL,
        "stable": Target("1"),
        "canary": Target(str(canary)),
        "assign": Assignment(HashSpec("salt")),
        "steps": (*steps, PromoteStep(3.0)),
        "gates": {"safety": (ErrorsGate(min_requests=5), CrashesGate(3))},
        "test": TestSpec(unit="request"),
        "author": "author",
    }
    return RolloutSpec(**(values | changes))


def even_split(**changes: Any) -> SplitSpec:
    """Return half and half of versions 1 and 2."""
    values: dict[str, Any] = {
        "model": MODEL,
        "weights": {"1": PPM // 2, "2": PPM // 2},
        "assign": Assignment(HashSpec("salt")),
    }
    return SplitSpec(**(values | changes))


class Source:
    """A TargetSource with versions 1 to 4 of every model, and aliases.

    Attributes:
        names: its models.
        aliases: alias -> number.
        fault: raised by every question while set.
        gate: while set, each question waits for it; `asked` counts them.
    """

    def __init__(self) -> None:
        self.names = {MODEL, "n"}
        self.aliases = {"best": 2}
        self.fault: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.asked: list[str] = []
        self.shift = ""

    async def models(self) -> Collection[str]:
        return self.names

    async def resolve_target(self, model: str, target: Target) -> ResolvedTarget:
        self.asked.append(target.text)
        await self._answer()
        number = self.aliases.get(target.alias, 0) if target.alias else int(target.text)
        if not 1 <= number <= 4:
            raise NotFound(f"no version '{target.text}'")
        return self._version(model, number, f"{model}{number}")

    async def restore_target(self, model: str, pin: Mapping[str, Any]) -> ResolvedTarget:
        await self._answer()
        return self._version(model, pin["number"], pin["digest"] + self.shift)

    def keep_targets(self, versions: Collection[VersionId]) -> None:
        pass

    async def _answer(self) -> None:
        if (gate := self.gate) is not None:
            await gate.wait()
        if self.fault is not None:
            raise self.fault

    @staticmethod
    def _version(model: str, number: int, digest: str) -> ResolvedTarget:
        return ResolvedTarget(
            wanted=wanted(model, number, digest),
            label=str(number),
            digest=digest,
            pin={"number": number, "digest": digest},
        )


class Files:
    """A SpecSource that shows what a test puts there."""

    def __init__(self) -> None:
        self.now = RolloutFiles(complete=True)
        self._changed = asyncio.Event()

    def put(self, *specs: RolloutSpec | SplitSpec, broken: Mapping[str, str] | None = None) -> None:
        """Show these files and no others; `broken` ones, by name, are refused and the last good one stays."""
        errors = broken or {}
        files = [RolloutFile(spec, f"{_name(spec)}.yaml", _hash(spec), "author") for spec in specs]
        statuses = [
            FileStatus(
                path=file.path,
                file_hash="broken" if file.name in errors else file.hash,
                active_hash=file.hash,
                name=file.name,
                error=errors.get(file.name, ""),
                since_s=0.0,
            )
            for file in files
        ]
        self.show(RolloutFiles(tuple(files), tuple(statuses), complete=True))

    def show(self, files: RolloutFiles) -> None:
        self.now = files
        self._changed.set()

    async def look(self) -> RolloutFiles:
        return self.now

    async def watch(self) -> AsyncGenerator[RolloutFiles, None]:
        while True:
            await self._changed.wait()
            self._changed.clear()
            yield self.now


def _name(spec: RolloutSpec | SplitSpec) -> str:
    return spec.name if isinstance(spec, RolloutSpec) else f"split-{spec.model}"


def _hash(spec: RolloutSpec | SplitSpec) -> str:
    return repr(spec)


class MortalDisk(SimulatedDisk):
    """Tells whether the process died of it."""

    killed = False

    def die(self) -> None:
        """Let nothing reach the disk any more, and nothing be read."""
        self.killed = self._dead = True

    def revive(self, *, power_lost: bool) -> None:
        """Let another process have it."""
        self.crash(power_lost=power_lost)
        self.killed = False

    def _kill(self) -> None:
        self.killed = True
        super()._kill()


class Store(JournalStore):
    """Knows how many writes are under way."""

    under_way = 0

    async def write(self, key: str, value: Mapping[str, Any], revision: int) -> Document:
        self.under_way += 1
        try:
            return await super().write(key, value, revision)
        finally:
            self.under_way -= 1


class Notices:
    """Keeps them."""

    def __init__(self) -> None:
        self.all: list[Mapping[str, Any]] = []

    def offer(self, notice: Mapping[str, Any]) -> None:
        self.all.append(notice)


class NoShadows:
    """Mirrors nothing."""

    def evidence(self) -> Mapping[tuple[str, int], Mapping[str, ShadowCounts]]:
        return {}


class _Relay:
    """A LifecycleObserver that passes on to whoever is there by then."""

    def __init__(self) -> None:
        self.controller: RolloutController | None = None

    def on_transition(self, status: VersionStatus) -> None:
        if self.controller is not None:
            self.controller.on_transition(status)

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        pass


class _Routes:
    """The real routes; whatever breaks a promise on the way there is kept in `faults`."""

    def __init__(self, life: Life) -> None:
        self.table = RouteTable(life.scene.clock)
        self.evidence = self.table.evidence
        self._life = life

    def apply(self, plans: Iterable[RoutePlan]) -> None:
        plans = list(plans)
        for plan in plans:
            self._look(plan)
        self.table.apply(plans)

    def _look(self, plan: RoutePlan) -> None:
        scene = self._life.scene
        before = self.table.routes.get(plan.model)
        weights = {arm.version: arm.weight_ppm for arm in before.plan.arms} if before is not None else {}
        ready = {served.id for served in self._life.manager.served()}
        for arm in plan.arms:
            raised = arm.weight_ppm > weights.get(arm.version, 0)
            if arm.name == "canary" and raised and arm.version not in ready:
                scene.faults.append(f"{arm.weight_ppm} ppm for {arm.version}, which is not READY")
        if plan.rollout_id:
            if plan.epoch < (last := scene.epochs.get(plan.rollout, 0)):
                scene.faults.append(f"epoch {plan.epoch} after {last}")
            scene.epochs[plan.rollout] = plan.epoch
        now = {arm.version.number: arm.weight_ppm for arm in plan.arms}
        followed = scene.followed.setdefault(plan.model, [])
        if not followed or followed[-1] != now:
            followed.append(now)


@dataclass
class Scene:
    """What outlives a life of the gateway.

    Attributes:
        place: real directory, for locks.
        disk: of documents and audit chain.
        faults: promises broken so far.
        epochs: that were followed last, by line.
        loses_power: the machine goes down with the process that is killed.
        pausing: how often the audit chain waits for the disk to get well.
        followed: weights by version that ever were in force, by model.
    """

    place: Path
    disk: MortalDisk = field(default_factory=MortalDisk)
    stage: Stage = field(default_factory=Stage)
    source: Source = field(default_factory=Source)
    files: Files = field(default_factory=Files)
    notices: Notices = field(default_factory=Notices)
    faults: list[str] = field(default_factory=list)
    epochs: dict[str, int] = field(default_factory=dict)
    followed: dict[str, list[dict[int, int]]] = field(default_factory=dict)
    lives: int = 0
    loses_power: bool = False
    pausing: int = 0
    served: dict[str, list[WantedVersion]] = field(default_factory=lambda: {MODEL: [wanted(MODEL, 1, "m1")]})

    @property
    def clock(self) -> VirtualClock:
        return self.stage.clock

    @asynccontextmanager
    async def life(self, *, clean: bool = True) -> AsyncGenerator[Life, None]:
        """Run the gateway; it ends as if killed where `clean` is False."""
        async with self._opened() as (store, audit), self._managed() as life:
            controller = life.begin(store, audit)
            await self._entered(controller)
            try:
                await life.quiet()
                yield life
                assert not self.faults, self.faults
            finally:
                if not clean:
                    self.disk.die()
                with suppress(Killed):
                    await controller.__aexit__(None, None, None)

    async def _entered(self, controller: RolloutController) -> None:
        entering = asyncio.ensure_future(controller.__aenter__())
        await until(lambda: entering.done() or self.disk.killed)
        if self.disk.killed:
            entering.cancel()
            await asyncio.wait([entering])
            raise Killed
        await entering

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[tuple[Store, AuditChain], None]:
        for name in ("documents", "audit"):
            (self.place / name).mkdir(exist_ok=True)  # for the locks; everything else is on the other disk
        options = AuditOptions(wall_s=self.wall_s, pause=self.pause)
        store = Store(self.place / "documents", disk=self.disk)
        audit = AuditChain(self.place / "audit", options, self.disk)
        try:
            await store.open()
            await audit.open()
            yield store, audit
        finally:
            for part in (audit, store):
                with suppress(Killed):
                    await part.aclose()
            if self.disk.killed:
                # The process is dead by now; only what it held of this one is still to be let go.
                self.disk.revive(power_lost=self.loses_power)
                await audit.aclose()
                await store.aclose()

    @asynccontextmanager
    async def _managed(self) -> AsyncGenerator[Life, None]:
        relay = _Relay()
        async with self.stage.manager(observers=(relay,)) as manager:
            for model, versions in self.served.items():
                manager.apply(f"source {model}", versions)
            await settle(200)
            yield Life(self, manager, relay)

    def wall_s(self) -> float:
        return WALL_S + self.clock.now_s()

    async def pause(self, seconds: float) -> None:
        self.pausing += 1
        try:
            await pause(self.clock, seconds)
        finally:
            self.pausing -= 1


class Life:
    """One life of the gateway."""

    def __init__(self, scene: Scene, manager: ModelManager, relay: _Relay) -> None:
        self.scene = scene
        self.manager = manager
        self.routes = _Routes(self)
        self._relay = relay
        self._turn = 0

    def begin(self, store: Store, audit: AuditChain) -> RolloutController:
        scene = self.scene
        scene.lives += 1
        boot_id = f"boot{scene.lives}"
        self.store, self.audit = store, audit
        journal: Journal = audit
        self.controller = self._relay.controller = RolloutController(
            ControllerParts(
                files=scene.files,
                store=store,
                audit=journal,
                claims=self.manager,
                sources=(scene.source,),
                routes=self.routes,
                mirrors=NoShadows(),
                notices=scene.notices,
                clock=scene.clock,
                wall_s=scene.wall_s,
                replica="a",
                new_boot_id=lambda: boot_id,
            )
        )
        return self.controller

    @property
    def table(self) -> RouteTable:
        return self.routes.table

    async def quiet(self) -> None:
        """Wait until nothing goes on any more but waiting for time."""
        async with asyncio.timeout(30):
            await settle()
            while self._is_writing():
                await until(lambda: not self._is_writing())
                await settle()

    def _is_writing(self) -> bool:
        if self.scene.disk.killed:
            return False
        return self.store.under_way > 0 or (self.audit.waiting > 0 and not self.scene.pausing)

    async def tick(self, count: int = 1, *, requests: int = 0) -> None:
        """Let looks pass, with requests before each."""
        for _ in range(count):
            self.ask(requests)
            self.scene.clock.advance(TICK_S)
            await self.quiet()

    def ask(self, count: int, *, model: str = MODEL) -> None:
        """Have requests answered by the arms that they are assigned to."""
        route = self.table.routes.get(model)
        for _ in range(count if route is not None else 0):
            assert route is not None
            request = infer_request(np.zeros((1, 1), np.float32), model=model, arrived_s=self.now_s)
            route.assign(request)
            route.ended(request, self.now_s, None)

    async def until(self, phase: str, *, name: str = "line", limit: int = 60, requests: int = 60) -> None:
        """Look, with traffic, until a rollout is in a phase."""
        for _ in range(limit):
            if self.show(name)["phase"] == phase:
                return
            await self.tick(requests=requests)
        raise AssertionError(f"{self.show(name)['phase']}, not {phase}: {self.show(name)['reason']}")

    def crash_canary(self) -> None:
        """Crash the canary as often as no gate puts up with."""
        route = self.table.routes.get(MODEL)
        for arm in route.plan.arms if route is not None else ():
            if arm.name == "canary":
                for _ in range(10):
                    self.table.crashed(arm.version)

    @property
    def now_s(self) -> float:
        return self.scene.clock.now_s()

    def show(self, name: str = "line") -> dict[str, Any]:
        return self.controller.rollout(name)

    def weights(self, model: str = MODEL) -> dict[int, int]:
        """Return the weights in force by version; empty where the source decides."""
        route = self.table.routes.get(model)
        return {arm.version.number: arm.weight_ppm for arm in route.plan.arms} if route is not None else {}

    def counts(self, arm: str = "canary", name: str = "line") -> dict[str, Any]:
        found: dict[str, Any] = self.show(name)["arms"].get(arm, {})
        return found

    def loaded(self, model: str = MODEL) -> set[int]:
        """Return the versions that are READY."""
        return {served.id.number for served in self.manager.served() if served.id.model == model}

    def records(self, name: str = "line") -> Sequence[AuditRecord]:
        return self.audit.tail(2000, name)

    async def operate(self, verb: Verb, actor: Actor = OPERATOR, **fields: Any) -> dict[str, Any]:
        return await self.controller.operate(Command("line", verb, actor, **fields))
