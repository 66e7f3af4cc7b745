"""The model manager: loads the union of named claims, switches versions atomically, unloads the rest."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
from contextlib import AsyncExitStack
from operator import methodcaller
from typing import TYPE_CHECKING, Self

from gateway.core.errors import GatewayError
from gateway.core.interfaces import FetchObserver
from gateway.core.types import VersionState
from gateway.models.bring_up import BringUp, BringUpParts, Withdrawn
from gateway.models.catalog import NO_PROBLEMS, Catalog
from gateway.models.claims import Claims
from gateway.models.conform import completed
from gateway.models.lifecycle import STARTING
from gateway.models.loading import VersionLoader
from gateway.models.parts import ManagerParts as ManagerParts  # noqa: PLC0414 - one of this module's names
from gateway.models.policy import ReadyVersion, clients_taken_over, may_retire
from gateway.models.records import VersionRecord
from gateway.models.retrying import Retries, outer_cause
from gateway.models.steps import StepLog, failure_reason
from gateway.models.table import RoutingTable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from gateway.core.interfaces import (
        LifecycleObserver,
        ServedVersion,
        WantedVersion,
    )
    from gateway.core.registry import FetchProgress
    from gateway.core.types import VersionId, VersionStatus

_log = logging.getLogger(__name__)


class ModelManager(Catalog):
    """A ModelCatalog, kept in line with the claims made on it. Event loop only; owns its tasks.

    Invariants: every READY version in the table has loaded and warmed; a model and number lead to at most
    one version; a switch replaces the whole table between two loop turns, so each lease is on the old or on
    the new version and none fails; a leased version is never unloaded; a failed load changes nothing of
    what serves, and is tried again only for other content, on request, or after a while when its reason is
    no fault of the content.
    """

    def __init__(self, parts: ManagerParts) -> None:
        super().__init__()
        self._clock = parts.clock
        self._wall_s = parts.wall_s
        self._observers = tuple(parts.observers)
        self._fetch_observers = [o for o in self._observers if isinstance(o, FetchObserver)]
        self._events = itertools.count(1)
        self._bring_up = BringUp(self._bring_up_parts(parts))
        self._retries = Retries(
            parts.clock,
            parts.retry_pauses_s,
            self._try_again,
            registry_pauses_s=parts.registry_pauses_s,
            jitter=parts.jitter,
        )
        self._on_change = parts.on_change
        self._told = (self.is_ready(), self.known())
        self._group: asyncio.TaskGroup | None = None
        self._loads: dict[VersionRecord, asyncio.Task[None]] = {}
        self._claims = Claims()
        self._untold: list[VersionStatus] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Start; claims may be made from here on."""
        self._group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop loads, close every version whatever leases are held; `drained` waits for them beforehand.

        What was still queued fails with Draining. Returns when everything is closed; when cancelled, what
        was being closed is left to the process's end.
        """
        self.begin_drain()
        self._claims.clear()
        for task in self._loads.values():
            task.cancel()
        self._reconcile()
        for record in self._records:
            if record.served is not None:
                record.served.abandon()
        if self._group is not None:
            await self._group.__aexit__(None, None, None)

    # Claims.

    def apply(self, claim: str, wanted: Sequence[WantedVersion], *, retry: str = "") -> None:
        """Set the complete set that `claim` wants; loads and withdrawals begin at once, in the background.

        Synchronous and idempotent; what two claims share stays until both have left it out. Versions of the
        model `retry` that failed before and are still wanted are tried again.
        """
        for record in self._records.of(retry):
            if record.state is VersionState.FAILED:
                self._forget(record)
        self._claims.replace(claim, wanted)
        self._reconcile()

    def announce(self, claim: str, models: Iterable[str], problems: Mapping[str, str] = NO_PROBLEMS) -> None:
        """Name the models that exist for `claim`; as `Catalog.announce`, and told to `on_change`."""
        super().announce(claim, models, problems)
        self._tell_change()

    def wake(self, models: Collection[str], *, retry: str = "") -> None:
        """Set the models whose lazy versions are to be loaded; `retry` as in `apply`."""
        for record in self._records.of(retry):
            if record.state is VersionState.FAILED:
                self._forget(record)
        self._claims.wake(models)
        self._reconcile()

    def require(self, models: Iterable[str]) -> None:
        """Set the models that must be READY whatever is claimed; as `Catalog.require`, and told."""
        super().require(models)
        self._tell_change()

    async def wait_settled(self) -> None:
        """Wait until nothing loads, warms or drains. A lease held on a withdrawn version delays it."""
        busy = STARTING | {VersionState.DRAINING}
        await self._until(lambda: all(r.state not in busy for r in self._records))

    async def outcome(self, version: VersionId) -> VersionStatus | None:
        """Wait until the claimed version is READY or FAILED and return its row; None if it was withdrawn."""

        def settled() -> bool:
            record = self._records.live(version)
            return record is None or record.withdrawn or record.state not in STARTING

        await self._until(settled)
        record = self._records.live(version)
        return None if record is None or record.withdrawn else record.status()

    def cause(self, version: VersionId) -> Exception | None:
        """Return what outside its files a version that is FAILED was met by, where that is known."""
        record = self._records.live(version)
        return None if record is None else record.cause

    async def unloaded(self, model: str) -> None:
        """Wait until nothing of a model is loading in vain or draining; what is claimed may serve on."""

        def gone() -> bool:
            return not any(
                r.state is VersionState.DRAINING or (r.withdrawn and r.state in STARTING)
                for r in self._records.of(model)
            )

        await self._until(gone)

    def is_loading_from(self, directory: Path) -> bool:
        """Whether some version on its way to READY, wanted or not, has its files below `directory`."""
        return any(
            r.state in STARTING and r.wanted.artifact.directory.is_relative_to(directory)
            for r in self._records
        )

    async def loaded_from(self, directory: Path) -> None:
        """Wait until no load needs the files below `directory`: what is READY has read them."""
        await self._until(lambda: not self.is_loading_from(directory))

    async def drained(self) -> None:
        """Wait until no lease is held, unloading versions included; for the shutdown's grace period."""
        while held := [r.served for r in self._records if r.served is not None and r.served.leases]:
            for served in held:
                await served.released()

    # Decisions: synchronous, so that nobody sees half of one.

    def _reconcile(self) -> None:
        """Bring records in line with the claims, replace the table, then tell observers and waiters."""
        wanted = self._claims.union()
        self._lazy = self._claims.lazy()
        needed = [w for w in wanted.values() if w.spec.required and not w.spec.lazy]
        self._required = frozenset(w.id.model for w in needed)
        wanted_ids = {w.id for w in wanted.values()}
        for record in self._records:
            self._withdraw_unless(record, claimed=record.id in wanted_ids)
        for version in wanted.values():
            self._ensure(version)
        claimants = self._claims.claimants()
        for record in self._records:
            record.claims = tuple(claimants.get(record.id, ()))
        for record in self._records:
            if record.state is VersionState.READY and record.withdrawn and self._may_retire(record, wanted):
                self._retire(record)
        self._publish()

    def _withdraw_unless(self, record: VersionRecord, *, claimed: bool) -> None:
        record.withdrawn = not claimed
        if record.withdrawn and record.state is VersionState.FAILED:
            self._forget(record)
        elif record.withdrawn and record.state is VersionState.NEW:
            self._enter(record, VersionState.UNLOADED, "withdrawn before it was loaded")
        if record.withdrawn:
            record.call_off()

    def _forget(self, record: VersionRecord) -> None:
        self._records.drop(record)
        self._retries.forget(record.id)

    def _try_again(self, version: VersionId) -> None:
        """Make a new attempt at a FAILED version that is still wanted."""
        record = self._records.live(version)
        if record is not None and record.state is VersionState.FAILED:
            self._records.drop(record)
            self._reconcile()

    def _ensure(self, wanted: WantedVersion) -> None:
        record = self._records.live(wanted.id)
        if record is not None and _is_allowed_now(record, wanted):
            self._forget(record)
            record = None
        if record is None:
            record = VersionRecord(wanted, StepLog(self._wall_s, self._clock.now_s), next(self._events))
            self._records.add(record)
            self._untold.append(record.status())
            self._loads[record] = self._start(self._load(record), f"load {wanted.id.model}")
            return
        # The same content and way of running; only who requires it, which policy or alias chose it differs.
        if record.served is not None and record.wanted.spec != wanted.spec:
            spec = dataclasses.replace(wanted.spec, batching=record.served.spec.batching)
            record.served.spec = completed(spec, record.served.signature)
        record.adopt(wanted)

    def _may_retire(self, record: VersionRecord, wanted: Mapping[tuple[str, int], WantedVersion]) -> bool:
        model = record.id.model
        ready = [
            r.id.number for r in self._records.of(model) if r.state is VersionState.READY and not r.withdrawn
        ]
        return may_retire(
            record.id.number, wanted=[number for name, number in wanted if name == model], ready=ready
        )

    def _retire(self, record: VersionRecord) -> None:
        self._enter(record, VersionState.DRAINING, "unloading")
        self._start(self._unload(record), f"unload {record.id.model}")

    def _publish(self) -> None:
        ready = [r.served for r in self._records if r.state is VersionState.READY and r.served is not None]
        self._table = RoutingTable(ready)
        self._tell_transitions()
        self._tell_change()

    def _tell_transitions(self) -> None:
        """Tell observers and waiters of what has been entered."""
        untold, self._untold = self._untold, []
        for status in untold:
            self._tell(methodcaller("on_transition", status), self._observers)
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell(
        self, event: Callable[[object], None], observers: Sequence[LifecycleObserver | FetchObserver]
    ) -> None:
        for observer in observers:
            try:
                event(observer)
            except Exception:  # noqa: BLE001 - logged: it must not stop the others, nor a switch
                _log.exception("a lifecycle observer failed")

    def _tell_change(self) -> None:
        """Tell `on_change` when what it may ask about has changed, by a transition or without one."""
        view = (self.is_ready(), self.known())
        if view == self._told:
            return
        self._told = view
        try:
            self._on_change()
        except Exception:  # noqa: BLE001 - logged, as for observers
            _log.exception("a listener to changes of readiness failed")

    def _enter(self, record: VersionRecord, state: VersionState, reason: str = "") -> None:
        record.enter(state, reason)
        self._untold.append(record.status())
        # An older copy that has unloaded calls off nothing that is planned for a newer attempt.
        if state is VersionState.READY or (
            state is VersionState.UNLOADED and self._records.live(record.id) is None
        ):
            self._retries.forget(record.id)
        if state is VersionState.UNLOADED:
            self._records.prune(record.id.model)

    # Tasks: what waits.

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        assert self._group is not None, "claims are made inside `async with`"
        return self._group.create_task(work, name=name)

    async def _until(self, settled: Callable[[], bool]) -> None:
        while not settled():
            await self._changed.wait()

    async def _load(self, record: VersionRecord) -> None:
        """Take one version through its steps and switch to it; ends with it READY, FAILED or UNLOADED."""
        try:
            await self._attempt(record)
        except asyncio.CancelledError:
            if record.state in STARTING:
                self._end(record, "stopped while loading")
            raise
        finally:
            del self._loads[record]

    async def _attempt(self, record: VersionRecord) -> None:
        async with AsyncExitStack() as held:
            try:
                record.served = await self._bring_up.run(record, held)
            except Withdrawn:
                await self._discard(record, held)
            except Exception as error:  # noqa: BLE001 - of one version: it must not end the manager
                await held.aclose()
                self._fail(record, error)
            else:
                record.held = held.pop_all()
                record.ready_order = next(self._events)
                self._step(record, VersionState.READY)
                loaded = methodcaller("on_loaded", record.status(), record.load_seconds())
                self._tell(loaded, self._observers)

    async def _discard(self, record: VersionRecord, held: AsyncExitStack) -> None:
        """Free what a version withdrawn on its way to READY has got; one withdrawn before has nothing."""
        if record.state in STARTING:
            fetching = record.state in {VersionState.FETCHING, VersionState.VERIFYING}
            reason = f"withdrawn while {'it was fetched' if fetching else 'loading'}"
            self._step(record, VersionState.DRAINING, reason)
            await held.aclose()
            self._step(record, VersionState.UNLOADED, reason)

    async def _unload(self, record: VersionRecord) -> None:
        assert record.served is not None
        assert record.held is not None
        await record.served.released()
        await record.held.aclose()
        self._step(record, VersionState.UNLOADED, "unloaded")

    def _step(self, record: VersionRecord, state: VersionState, reason: str = "") -> None:
        self._enter(record, state, reason)
        self._reconcile()

    def _fetched(self, record: VersionRecord, progress: FetchProgress) -> None:
        """Take note of how far a version's files are; what serves and what is wanted stays as it is."""
        if record.state not in {VersionState.FETCHING, VersionState.VERIFYING}:
            return
        record.fetched(progress)
        if progress.state is VersionState.VERIFYING and record.state is VersionState.FETCHING:
            self._enter(record, VersionState.VERIFYING)
            self._tell_transitions()
        self._tell(methodcaller("on_progress", record.status()), self._fetch_observers)

    def _in_use(self, record: VersionRecord) -> Sequence[ServedVersion]:
        """Return the versions whose clients `record` will answer when it is READY."""
        served = {r: r.served for r in self._records.of(record.id.model) if r.state is VersionState.READY}
        ready = {r: ReadyVersion(r.id.number, r.ready_order, r.withdrawn) for r in served}
        chosen = clients_taken_over(record.id.number, record.order, list(ready.values()))
        return [version for r, version in served.items() if version is not None and ready[r] in chosen]

    def _fail(self, record: VersionRecord, error: Exception) -> None:
        record.cause = outer_cause(error)
        reason = failure_reason(record, error)
        if not isinstance(error, GatewayError):
            _log.error("loading model %r version %d", record.id.model, record.id.number, exc_info=error)
        pause_s = self._retries.plan(record.id, error)
        if pause_s is not None:
            reason = f"{reason}; it is tried again in {pause_s:.3g} s"
        _log.warning("model %r version %d failed to load: %s", record.id.model, record.id.number, reason)
        self._step(record, VersionState.FAILED, reason)

    def _end(self, record: VersionRecord, reason: str) -> None:
        """Take a record whose load was cancelled to its end; what it had loaded is closed already."""
        if record.state is not VersionState.NEW:
            self._enter(record, VersionState.DRAINING, reason)
        self._step(record, VersionState.UNLOADED, reason)

    def _bring_up_parts(self, parts: ManagerParts) -> BringUpParts:
        return BringUpParts(
            loader=VersionLoader(parts.backends, parts.batcher_factory, parts.warm_up, parts.clock),
            budget=parts.budget,
            find_golden=parts.find_golden,
            load_concurrency=parts.load_concurrency,
            fetch_concurrency=parts.fetch_concurrency,
            enter=self._step,
            report=self._fetched,
            in_use=self._in_use,
        )


def _is_allowed_now(record: VersionRecord, wanted: WantedVersion) -> bool:
    """Whether a version failed although `wanted`, which is the same, lifts what may have been in its way."""
    lifted = wanted.spec.allow_breaking and not record.wanted.spec.allow_breaking
    return record.state is VersionState.FAILED and lifted
