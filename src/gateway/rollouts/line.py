"""One line of rollouts as it runs here: carries out what the pure cores decide, and tells what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from gateway.core.errors import GatewayError, NotFound, NotReady
from gateway.core.rollout import Target
from gateway.core.state import RevisionConflict, StateUnavailable
from gateway.core.types import VersionState
from gateway.rollouts import decider, documents, effects, events, replica
from gateway.rollouts.asking import Asker
from gateway.rollouts.phases import Phase
from gateway.rollouts.serving import Serving

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.core.evidence import RoutePlan
    from gateway.core.state import AuditEntry
    from gateway.core.targets import ResolvedTarget
    from gateway.core.types import VersionId, VersionStatus
    from gateway.rollouts.line_parts import LineParts, Now
    from gateway.rollouts.state import RolloutState

_log = logging.getLogger(__name__)

_Incoming: TypeAlias = events.Event | events.ReplicaEvent


class Line:
    """A decider and a replica of one line, in this process. Event loop only.

    Events are handled one after the other, whole; what one leads to at once comes right after it.

    Attributes:
        name: of the line.
        state: of the decider.
    """

    def __init__(self, name: str, state: RolloutState, parts: LineParts) -> None:
        self.name = name
        self.state = state
        self._parts = parts
        self._replica = replica.ReplicaState(replica=parts.replica, boot_id=parts.boot_id, rollout=name)
        self._queue: deque[_Incoming] = deque()
        self._is_handling = False
        self._serving = Serving(name, parts, self._on_restored, self._on_lost_for_good)
        self._asker = Asker()
        self._resolving = 0
        self._refused = ""
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

    def ask(self, wish: events.Operator) -> str:
        """Do as an operator asks; return why not, empty when it is done."""
        self.feed(wish)
        return self._refused

    def skip_time(self) -> None:
        """Let the time since the last tick count for nothing: this process did not run."""
        self.state = replace(self.state, ticked_s=None)

    async def moved(self) -> None:
        """Wait until the next event has been handled."""
        self._moved.clear()
        await self._moved.wait()

    def restart(
        self, state: RolloutState, revision: int, audited: Iterable[AuditEntry], *, clean: bool
    ) -> None:
        """Decide from here on, by the state in the store.

        Args:
            state: as stored.
            revision: of its document; 0: there is none.
            audited: newest entries of the audit chain about the line, oldest first.
            clean: this replica's life before ended in order.
        """
        parts = self._parts
        self.state = state
        told = self._replica.told
        self.feed(
            events.Restarted(
                clean=clean,
                revision=revision,
                boot_id=parts.boot_id,
                audited=tuple(audited),
                **self.now(),
            ),
            events.ReplicaSeen(replica=parts.replica, boot_id=parts.boot_id, clean=clean, **self.now()),
            # What this replica has said already the state in the store may never have heard of.
            *([self._report(told)] if told is not None else []),
        )

    @property
    def plan(self) -> RoutePlan | None:
        """The plan decided on for here."""
        return self._serving.plan

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
        if version not in self._serving.claimed | self._replica.ready:
            return
        if status.state is VersionState.READY:
            self.feed(events.VersionReady(version))
        elif status.state is VersionState.FAILED:
            # What its files are to blame for stays so; anything else is tried again by the manager.
            is_passing = self._parts.claims.cause(status.id) is not None
            self.feed(
                events.VersionLost(version, status.reason), *self._failed(version, status.reason, is_passing)
            )
        elif status.state in {VersionState.DRAINING, VersionState.UNLOADED} and (
            version in self._replica.ready
        ):
            self.feed(events.VersionLost(version, "unloaded"))
        self._serving.put_in_force()

    def _handle(self, incoming: _Incoming) -> None:
        if isinstance(incoming, events.Timed):
            self.state, wishes = decider.step(self.state, incoming)
            if isinstance(incoming, events.Operator):
                self._refused = self.state.ignored
            for wish in wishes:
                with self._logged():
                    self._carry_out(wish)
        else:
            self._replica, orders = replica.step(self._replica, incoming)
            for order in orders:
                with self._logged():
                    self._obey(order)

    @contextmanager
    def _logged(self) -> Iterator[None]:
        """Let what fails stop nothing else of this line."""
        try:
            yield
        except Exception:  # noqa: BLE001 - any: what else the decision asks for is due all the same
            _log.exception("rollout %r: a decision could not be carried out whole", self.name)

    def _carry_out(self, wish: effects.Effect) -> None:
        parts = self._parts
        match wish:
            case effects.Resolve():
                self._resolving += 1
                parts.start(self._resolve(wish, self._resolving))
            case effects.Publish(directive):
                self._queue.append(events.DirectiveSeen(directive))
            case effects.Retreat():
                self._queue.append(events.Harm(wish.rollout_id, wish.reason, wish.epoch))
            case effects.Persist():
                parts.start(self._persist(wish))
            case effects.Audit(entry):
                parts.recorder.record(entry)
            case effects.Notify():
                parts.notices.offer({"rollout": wish.rollout, "what": wish.what, **self.now(), **wish.detail})
            case effects.AskGate():
                parts.start(self._ask(wish))

    def _obey(self, order: effects.ReplicaEffect) -> None:
        match order:
            case effects.Apply():
                self._apply(order)
            case effects.Claim():
                self._serving.claim(frozenset(v for versions in order.versions.values() for v in versions))
                self._queue.extend(map(events.VersionReady, self._serving.ready()))
            case effects.Acknowledge():
                self._queue.append(self._acknowledged(order))
            case effects.Report():
                self._queue.append(self._report(order))

    def _apply(self, order: effects.Apply) -> None:
        plan = order.plan
        if plan is not None and order.skip_first_s:
            plan = replace(plan, evidence_from_s=self._parts.clock.now_s() + order.skip_first_s)
        self._serving.follow(plan)

    def _acknowledged(self, order: effects.Acknowledge) -> events.ReplicaAck:
        return events.ReplicaAck(
            replica=order.replica, epoch=order.epoch, boot_id=order.boot_id, **self.now()
        )

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

    def _on_restored(self) -> None:
        self.feed(*map(events.VersionReady, self._serving.ready()))

    def _on_lost_for_good(self, version: VersionId, reason: str) -> None:
        self.feed(*self._failed(version, reason, is_passing=False))

    async def _resolve(self, wish: effects.Resolve, number: int) -> None:
        """Answer the newest question alone: an older one may have been about another file's versions."""
        try:
            found = {arm: await self._found(wish.model, target) for arm, target in wish.targets.items()}
            if number == self._resolving:
                await self._parts.pins.keep(found.values(), self._still_needed())
        except GatewayError as error:
            passing = isinstance(error, (NotReady, StateUnavailable, RevisionConflict))
            failed = events.ResolveFailed(
                reason=str(error), may_pass=getattr(error, "may_pass", passing), **self.now()
            )
            self._answer(failed, number)
        except Exception as error:
            # Logged by the task's owner; another attempt may do better.
            self._answer(events.ResolveFailed(reason=repr(error), may_pass=True, **self.now()), number)
            raise
        else:
            self._answer(
                events.Resolved(
                    targets={arm: one.wanted.id for arm, one in found.items()},
                    labels={arm: one.label for arm, one in found.items()},
                    **self.now(),
                ),
                number,
            )

    def _answer(self, answer: events.Resolved | events.ResolveFailed, number: int) -> None:
        if number == self._resolving:
            self.feed(answer)

    async def _found(self, model: str, target: Target | None) -> ResolvedTarget:
        if target is None:
            try:
                serving = self._parts.claims.get(model)
            except NotFound as error:
                # Its source may not have been looked at yet.
                raise NotReady(f"nothing of model '{model}' serves yet: {error}") from error
            target = Target(serving.label or str(serving.id.number))
        return await self._parts.pins.resolve(model, target)

    def _still_needed(self) -> frozenset[VersionId]:
        """Return the versions that may be served, or gone back to, whatever is resolved next."""
        known = {self.state.incumbent, self.state.former, *self.state.targets.values()}
        return self._serving.claimed | {version for version in known if version is not None}

    async def save(self) -> None:
        """Store the evidence counted since the last write, once nothing decides any more.

        Where a write was broken off nobody knows the revision: then the last five seconds are lost, as by a
        kill.
        """
        store = self.state.store
        if not store.leading or store.writing or not store.dirty:
            return
        with suppress(RevisionConflict, StateUnavailable):
            key, document = documents.document_key(self.name), documents.to_document(self.state)
            await self._parts.store.write(key, document, store.revision)

    async def _persist(self, wish: effects.Persist) -> None:
        ticket = wish.ticket
        # Entries on their way to the audit chain are part of the state until they are there.
        on_the_way = [e for e in self._parts.recorder.unrecorded(self.name) if e not in wish.state.outbox]
        state = replace(wish.state, outbox=(*on_the_way, *wish.state.outbox))
        try:
            document = await self._parts.store.write(wish.key, documents.to_document(state), wish.revision)
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
        answer = await self._asker.ask(wish, model)
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
