"""One line of rollouts as it runs here: carries out what the pure cores decide, and tells what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict

from gateway.core.errors import GatewayError, NotReady
from gateway.core.registry import RegistryError
from gateway.core.rollout import Target
from gateway.core.state import RevisionConflict, StateUnavailable
from gateway.core.types import VersionState
from gateway.rollouts import decider, documents, effects, events, replica
from gateway.rollouts.asking import ask
from gateway.rollouts.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.core.clock import Clock
    from gateway.core.evidence import RoutePlan
    from gateway.core.state import AuditEntry, StateStore
    from gateway.core.targets import ResolvedTarget
    from gateway.core.types import VersionId, VersionStatus
    from gateway.rollouts.pins import Pins
    from gateway.rollouts.ports import Notices, VersionClaims
    from gateway.rollouts.state import RolloutState

_log = logging.getLogger(__name__)

RESTORE_PAUSE_S: Final = 2.0
"""Between attempts to make a version of an earlier life claimable."""

_Incoming: TypeAlias = events.Event | events.ReplicaEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class LineParts:
    """What a line works with.

    Attributes:
        clock: monotonic time.
        wall_s: seconds since the epoch.
        store: where its state is kept.
        record: appends to the audit chain, in the background and in order.
        claims: loads versions.
        pins: its versions.
        route: puts its plan in force; None: it has none.
        notices: tells whoever wants to know.
        start: runs a coroutine until it ends or the gateway does.
        changed: called when anything that people see has changed.
        take_over: has a line decide again by what the store has now.
        is_starting: whether no request is taken yet.
        replica: name of this process.
        boot_id: of its life.
    """

    clock: Clock
    wall_s: Callable[[], float]
    store: StateStore
    record: Callable[[AuditEntry], None]
    claims: VersionClaims
    pins: Pins
    route: Callable[[str, RoutePlan | None], None]
    notices: Notices
    start: Callable[[Coroutine[Any, Any, None]], object]
    changed: Callable[[str], None]
    take_over: Callable[[Line], Coroutine[Any, Any, None]]
    is_starting: Callable[[], bool]
    replica: str
    boot_id: str


class Now(TypedDict):
    """The time, as every event of the decider has it."""

    now_s: float
    wall_s: float


class Line:
    """A decider and a replica of one line, in this process. Event loop only.

    Events are handled one after the other, whole; what one leads to at once comes right after it.

    Attributes:
        name: of the line.
        state: of the decider.
        plan: in force here, as it was decided; it waits for its stable version to be READY where requests are
            answered by another meanwhile.
    """

    def __init__(self, name: str, state: RolloutState, parts: LineParts) -> None:
        self.name = name
        self.state = state
        self.plan: RoutePlan | None = None
        self._parts = parts
        self._replica = replica.ReplicaState(replica=parts.replica, boot_id=parts.boot_id, rollout=name)
        self._queue: deque[_Incoming] = deque()
        self._is_handling = False
        self._restoring: set[VersionId] = set()
        self._claimed: frozenset[VersionId] = frozenset()
        self._stored = asyncio.Event()
        self._moved = asyncio.Event()

    def now(self) -> Now:
        """Return the fields that every event of the decider begins with."""
        return {"now_s": self._parts.clock.now_s(), "wall_s": self._parts.wall_s()}

    def feed(self, *incoming: _Incoming) -> None:
        """Handle events of the decider or of the replica, in order."""
        self._queue.extend(incoming)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._queue:
                self._handle(self._queue.popleft())
        finally:
            self._is_handling = False
        store = self.state.store
        if store.writing or store.urgent:
            self._stored.clear()
        else:
            self._stored.set()
        self._moved.set()
        self._parts.changed(self.name)

    async def moved(self) -> None:
        """Wait until the next event has been handled."""
        self._moved.clear()
        await self._moved.wait()

    def restart(self, state: RolloutState, revision: int, *, clean: bool) -> None:
        """Decide from here on, by the state in the store.

        Args:
            state: as stored.
            revision: of its document; 0: there is none.
            clean: this replica's life before ended in order.
        """
        parts = self._parts
        self.state = state
        self.feed(
            events.Restarted(clean=clean, revision=revision, boot_id=parts.boot_id, **self.now()),
            events.ReplicaSeen(replica=parts.replica, boot_id=parts.boot_id, clean=clean, **self.now()),
        )

    @property
    def is_placed(self) -> bool:
        """Whether it is known where requests go by this line's file, or that it cannot be known yet."""
        is_resolving = self.state.phase is Phase.RESOLVING and not self.state.resolve_tries
        return not is_resolving and self._stored.is_set()

    async def stored(self) -> None:
        """Wait until all that had to be stored at once has been."""
        await self._stored.wait()

    def present(self, plan: RoutePlan) -> RoutePlan:
        """Return a plan with the identities that its versions have now."""
        return self._parts.pins.translated(plan)

    def on_transition(self, status: VersionStatus) -> None:
        """Take note that a version, of this line or not, has entered a state."""
        version = self._parts.pins.original(status.id)
        if version not in self._claimed:
            return
        if status.state is VersionState.READY:
            self.feed(events.VersionReady(version))
            if self.plan is not None and self.plan.arms and self.plan.arms[0].version == version:
                self._parts.route(self.name, self.plan)
        elif status.state is VersionState.FAILED:
            # What its files are to blame for stays so; anything else is tried again by the manager.
            is_passing = self._parts.claims.cause(status.id) is not None
            self.feed(
                events.VersionLost(version, status.reason), *self._failed(version, status.reason, is_passing)
            )
        elif status.state is VersionState.UNLOADED:
            self.feed(events.VersionLost(version, "unloaded"))

    def _handle(self, incoming: _Incoming) -> None:
        if isinstance(incoming, events.Timed):
            self.state, wishes = decider.step(self.state, incoming)
            for wish in wishes:
                self._carry_out(wish)
        else:
            self._replica, orders = replica.step(self._replica, incoming)
            for order in orders:
                self._obey(order)

    def _carry_out(self, wish: effects.Effect) -> None:
        parts = self._parts
        match wish:
            case effects.Resolve():
                parts.start(self._resolve(wish))
            case effects.Publish(directive):
                self._queue.append(events.DirectiveSeen(directive))
            case effects.Retreat():
                self._queue.append(events.Harm(wish.rollout_id, wish.reason))
            case effects.Persist():
                parts.start(self._persist(wish))
            case effects.Audit(entry):
                parts.record(entry)
            case effects.Notify():
                parts.notices.offer({"rollout": wish.rollout, "what": wish.what, **self.now(), **wish.detail})
            case effects.AskGate():
                parts.start(self._ask(wish))

    def _obey(self, order: effects.ReplicaEffect) -> None:
        match order:
            case effects.Apply():
                self._apply(order)
            case effects.Claim():
                self._claim(frozenset(v for versions in order.versions.values() for v in versions))
            case effects.Acknowledge():
                self._queue.append(events.ReplicaAck(replica=order.replica, epoch=order.epoch, **self.now()))
            case effects.Report():
                self._queue.append(self._report(order))

    def _apply(self, order: effects.Apply) -> None:
        plan = order.plan
        if plan is not None and order.skip_first_s:
            plan = replace(plan, evidence_from_s=self._parts.clock.now_s() + order.skip_first_s)
        self.plan = plan
        if plan is None or self._parts.is_starting() or self._is_ready(plan):
            self._parts.route(self.name, plan)

    def _is_ready(self, plan: RoutePlan) -> bool:
        """Whether the version that others take from is READY; without one, what serves anyway is."""
        ready = {served.id for served in self._parts.claims.served()}
        return not plan.arms or self._parts.pins.present(plan.arms[0].version) in ready

    def _report(self, report: effects.Report) -> events.ReplicaReport:
        return events.ReplicaReport(
            replica=report.replica,
            boot_id=report.boot_id,
            ready=report.ready,
            epoch=report.epoch,
            lowered=report.lowered,
            harmed=report.harmed,
            reason=report.reason,
            **self.now(),
        )

    def _failed(self, version: VersionId, reason: str, is_passing: bool) -> list[events.Event]:
        """Return the report of a version that cannot be loaded, for now or for good."""
        if self._replica.told is None:
            return []
        for_good = frozenset() if is_passing else frozenset({version})
        return [replace(self._report(self._replica.told), failed={version: reason}, for_good=for_good)]

    def _claim(self, versions: frozenset[VersionId]) -> None:
        self._claimed = versions
        pins = self._parts.pins
        self._parts.claims.apply(f"rollout {self.name}", pins.wanted(versions))
        for version in versions - {pins.original(wanted.id) for wanted in pins.wanted(versions)}:
            if version not in self._restoring:
                self._restoring.add(version)
                self._parts.start(self._restore(version))
        ready = {served.id for served in self._parts.claims.served()}
        for version in sorted(versions):
            if pins.present(version) in ready:
                self._queue.append(events.VersionReady(version))

    async def _restore(self, version: VersionId) -> None:
        """Make a version of an earlier life claimable, however long its source takes to answer."""
        try:
            while True:
                try:
                    await self._parts.pins.restore(version)
                except RegistryError as error:
                    _log.warning("rollout %r: version %d: %s", self.name, version.number, error)
                    if not error.may_pass:
                        raise
                    await asyncio.sleep(RESTORE_PAUSE_S)
                else:
                    break
        except GatewayError as error:
            self.feed(*self._failed(version, str(error), is_passing=False))
        else:
            self._claim(self._claimed)
            if self.plan is not None:
                self._parts.route(self.name, self.plan)
            self.feed()
        finally:
            self._restoring.discard(version)

    async def _resolve(self, wish: effects.Resolve) -> None:
        try:
            found = {arm: await self._found(wish.model, target) for arm, target in wish.targets.items()}
            await self._parts.pins.keep(found.values(), self._still_needed())
        except GatewayError as error:
            may_pass = getattr(error, "may_pass", isinstance(error, (NotReady, StateUnavailable)))
            self.feed(events.ResolveFailed(reason=str(error), may_pass=may_pass, **self.now()))
        else:
            self.feed(
                events.Resolved(
                    targets={arm: one.wanted.id for arm, one in found.items()},
                    labels={arm: one.label for arm, one in found.items()},
                    **self.now(),
                )
            )

    async def _found(self, model: str, target: Target | None) -> ResolvedTarget:
        if target is None:
            serving = self._parts.claims.get(model)
            target = Target(serving.label or str(serving.id.number))
        return await self._parts.pins.resolve(model, target)

    def _still_needed(self) -> frozenset[VersionId]:
        """Return the versions that may be served, or gone back to, whatever is resolved next."""
        known = {self.state.incumbent, self.state.former, *self.state.targets.values()}
        return self._claimed | {version for version in known if version is not None}

    async def _persist(self, wish: effects.Persist) -> None:
        ticket = wish.ticket
        try:
            document = await self._parts.store.write(
                wish.key, documents.to_document(wish.state), wish.revision
            )
        except RevisionConflict:
            self.feed(events.StoreConflict(ticket=ticket, **self.now()))
            self._parts.start(self._parts.take_over(self))
        except StateUnavailable as error:
            self.feed(events.StoreLost(ticket=ticket, reason=str(error), **self.now()))
        except Exception as error:
            # Logged by the task's owner; until then nothing advances, as with any write that is lost.
            self.feed(events.StoreLost(ticket=ticket, reason=repr(error), **self.now()))
            raise
        else:
            self.feed(events.StoreWritten(ticket=ticket, revision=document.revision, **self.now()))

    async def _ask(self, wish: effects.AskGate) -> None:
        model = self.state.spec.model if self.state.spec is not None else ""
        answer = await ask(wish, model)
        self.feed(
            events.GateAnswer(
                rollout_id=wish.rollout_id,
                step=wish.step,
                place=wish.place,
                verdict=answer.verdict,
                value=answer.value,
                error=answer.error,
                reason=answer.reason,
                **self.now(),
            )
        )
