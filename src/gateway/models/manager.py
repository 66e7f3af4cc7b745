"""The model manager: loads the union of named claims, switches versions atomically, unloads the rest."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from operator import methodcaller
from typing import TYPE_CHECKING, Self

from gateway.core.errors import GatewayError
from gateway.core.types import VersionState
from gateway.models.catalog import Catalog
from gateway.models.claims import Claims
from gateway.models.conform import completed
from gateway.models.lifecycle import STARTING
from gateway.models.loading import VersionLoader
from gateway.models.policy import may_retire
from gateway.models.records import VersionRecord
from gateway.models.retrying import RETRY_PAUSES_S, Retries, outer_cause
from gateway.models.table import RoutingTable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from gateway.core.clock import Clock
    from gateway.core.interfaces import (
        Backend,
        BatcherFactory,
        LifecycleObserver,
        LoadedModel,
        WantedVersion,
    )
    from gateway.core.options import ModelSpec
    from gateway.core.types import VersionId, VersionStatus
    from gateway.models.served import LoadedVersion

_log = logging.getLogger(__name__)


def _nobody() -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerParts:
    """What a ModelManager works with.

    Attributes:
        backends: by the name that `ModelSpec.backend` uses.
        batcher_factory: makes the batcher of one version on one device.
        clock: monotonic time, for load durations.
        warm_up: runs a loaded model before it is READY; returns warnings, raises ModelLoadError when the
            version must not serve.
        observers: told of every transition, after the routing table shows it.
        load_concurrency: versions loading or warming at once; more of them finish later, not sooner, on a
            device that one load already keeps busy.
        wall_s: wall-clock seconds since the epoch, for the index.
        on_change: called, after the observers, whenever readiness or the names known have changed: that may
            happen without a transition of any version.
        retry_pauses_s: seconds before each further attempt at a load that failed for a reason that may pass
            (no memory, a lost backend); none beyond the last. Empty where clients say when to load.
    """

    backends: Mapping[str, Backend]
    batcher_factory: BatcherFactory
    clock: Clock
    warm_up: Callable[[LoadedModel, ModelSpec], Awaitable[list[str]]]
    observers: Sequence[LifecycleObserver] = ()
    load_concurrency: int = 2
    wall_s: Callable[[], float] = time.time
    on_change: Callable[[], None] = _nobody
    retry_pauses_s: Sequence[float] = RETRY_PAUSES_S


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
        self._loader = VersionLoader(parts.backends, parts.batcher_factory, parts.warm_up, parts.clock)
        self._retries = Retries(parts.clock, parts.retry_pauses_s, self._try_again)
        self._on_change = parts.on_change
        self._told = (self.is_ready(), self.known())
        self._slots = asyncio.Semaphore(parts.load_concurrency)
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

    def announce(self, claim: str, models: Iterable[str]) -> None:
        """Name the models that exist for `claim`; as `Catalog.announce`, and told to `on_change`."""
        super().announce(claim, models)
        self._tell_change()

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
        self._required = frozenset(w.id.model for w in wanted.values() if w.spec.required)
        wanted_ids = {w.id for w in wanted.values()}
        for record in self._records:
            self._withdraw_unless(record, claimed=record.id in wanted_ids)
        for version in wanted.values():
            self._ensure(version)
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
        if record is None:
            record = VersionRecord(wanted, self._wall_s())
            self._records.add(record)
            self._untold.append(record.status())
            self._loads[record] = self._start(self._bring_up(record), f"load {wanted.id.model}")
        elif record.wanted.spec != wanted.spec:
            # The same content and way of running; only who requires it or which policy chose it differs.
            record.wanted = wanted
            if record.served is not None:
                record.served.spec = completed(wanted.spec, record.served.signature)

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
        untold, self._untold = self._untold, []
        for status in untold:
            self._tell(methodcaller("on_transition", status))
        self._tell_change()
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell(self, event: Callable[[LifecycleObserver], None]) -> None:
        for observer in self._observers:
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
        record.enter(state, reason, self._wall_s())
        self._untold.append(record.status())
        if state in {VersionState.READY, VersionState.UNLOADED}:
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

    async def _bring_up(self, record: VersionRecord) -> None:
        """Load, warm and switch to one version; ends with the record READY, FAILED or UNLOADED."""
        try:
            async with self._slots:
                if record.state is VersionState.NEW:
                    await self._load(record)
        except asyncio.CancelledError:
            if record.state in STARTING:
                self._end(record, "stopped while loading")
            raise
        except GatewayError as error:
            self._fail(record, str(error), error)
        except Exception as error:  # noqa: BLE001 - logged: a fault of one version must not end the manager
            _log.exception("loading model %r version %d", record.id.model, record.id.number)
            self._fail(record, f"unexpected {type(error).__name__} while loading", error)
        finally:
            del self._loads[record]

    async def _load(self, record: VersionRecord) -> None:
        started_s = self._clock.now_s()
        self._step(record, VersionState.LOADING)
        models = await self._loader.load(record.wanted)
        if self._is_withdrawn(record):
            await self._discard(record, models)
            return
        self._step(record, VersionState.WARMING)
        served = await self._loader.ready(record.wanted, models)
        if self._is_withdrawn(record):
            await self._discard(record, [served])
            return
        record.served = served
        self._step(record, VersionState.READY)
        self._tell(methodcaller("on_loaded", record.status(), self._clock.now_s() - started_s))

    def _is_withdrawn(self, record: VersionRecord) -> bool:
        return record.withdrawn

    async def _discard(self, record: VersionRecord, loaded: Sequence[LoadedModel | LoadedVersion]) -> None:
        self._step(record, VersionState.DRAINING, "withdrawn while loading")
        await self._close(record, loaded)
        self._step(record, VersionState.UNLOADED, "withdrawn while loading")

    async def _unload(self, record: VersionRecord) -> None:
        assert record.served is not None
        await record.served.released()
        await self._close(record, [record.served])
        self._step(record, VersionState.UNLOADED, "unloaded")

    async def _close(self, record: VersionRecord, loaded: Sequence[LoadedModel | LoadedVersion]) -> None:
        """Close every part; a failure is logged and keeps neither the others nor the manager from it."""
        try:
            async with AsyncExitStack() as parts:
                for part in loaded:
                    parts.push_async_callback(part.aclose)
        except Exception:  # noqa: BLE001 - logged: the version is gone from routing, whatever it left
            _log.exception("unloading model %r version %d", record.id.model, record.id.number)

    def _step(self, record: VersionRecord, state: VersionState, reason: str = "") -> None:
        self._enter(record, state, reason)
        self._reconcile()

    def _fail(self, record: VersionRecord, reason: str, error: Exception) -> None:
        record.cause = outer_cause(error)
        pause_s = self._retries.plan(record.id, error)
        if pause_s is not None:
            reason = f"{reason}; it is tried again in {pause_s:g} s"
        _log.warning("model %r version %d failed to load: %s", record.id.model, record.id.number, reason)
        self._step(record, VersionState.FAILED, reason)

    def _end(self, record: VersionRecord, reason: str) -> None:
        """Take a record whose load was cancelled to its end; what it had loaded is closed already."""
        if record.state is not VersionState.NEW:
            self._enter(record, VersionState.DRAINING, reason)
        self._step(record, VersionState.UNLOADED, reason)
