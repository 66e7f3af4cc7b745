"""The rollouts of a running gateway: their routes, files, state, audit chain and operators, put together."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Self

from gateway.admin.operator_socket import OperatorSocket
from gateway.admin.operators import Sessions
from gateway.admin.rollouts import RolloutParts
from gateway.config.rollout_directory import RolloutDirectory
from gateway.config.rollout_set import RolloutFiles
from gateway.config.rollout_settings import entry_splits
from gateway.core.errors import ConfigError
from gateway.core.state import StateUnavailable
from gateway.rollouts.controller import RolloutController
from gateway.rollouts.controller_parts import ControllerParts
from gateway.rollouts.notifying import Webhooks
from gateway.routing.mirror import ShadowMirror
from gateway.routing.routes import RouteTable
from gateway.state.audit import AuditChain
from gateway.state.memory import MemoryStore
from gateway.state.store import JournalStore
from gateway.telemetry.rollout_metrics import RolloutSources

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
    from types import TracebackType

    from gateway.config.rollout_file import RolloutFile
    from gateway.config.schema import GatewayConfig
    from gateway.core.clock import Clock
    from gateway.core.evidence import RoutePlan
    from gateway.core.state import AuditEntry, AuditRecord, StateStore
    from gateway.core.targets import TargetSource
    from gateway.core.types import Device, VersionStatus
    from gateway.models.manager import ModelManager
    from gateway.rollouts.ports import Journal, SpecSource
    from gateway.routing.mirror import DeviceSlots

_DOCUMENTS: Final = "documents"
AUDIT: Final = "audit"
"""Directories below the state directory."""


class Rollouts:
    """Everything about rollouts, if the configuration asks for any. A LifecycleObserver; event loop only.

    Made before the model manager, which it observes; entered when that is, before requests are taken.

    Args:
        config: the whole configuration.
        path: of its file, for messages.
        clock: time and timers.

    Attributes:
        table: where requests go; None where no rollout or split can ever be.
        admin: what administration shows; None likewise.
        controller: decides; valid once entered, None likewise.
        mirror: copies requests to shadows; likewise.
    """

    def __init__(self, config: GatewayConfig, clock: Clock) -> None:
        settings = config.rollouts
        self._settings = settings
        self._fixed = entry_splits(config.models, "the gateway's configuration")
        self._clock = clock
        self._resources = AsyncExitStack()
        is_asked_for = bool(self._fixed) or settings.directory is not None
        self.table: RouteTable | None = RouteTable(clock) if is_asked_for else None
        self.admin: RolloutParts | None = None
        self.controller: RolloutController | None = None
        self.mirror: ShadowMirror | None = None

    def prepare(
        self,
        manager: ModelManager,
        sources: Sequence[TargetSource],
        slots_of: Callable[[Device], DeviceSlots | None],
    ) -> Self:
        """Name the parts that there are by now, and return itself, to be entered.

        Args:
            manager: loads versions, and is observed.
            sources: where versions come from.
            slots_of: how busy devices are.
        """
        self._manager = manager
        self._sources = sources
        self._slots_of = slots_of
        return self

    async def __aenter__(self) -> Self:
        """Take up what an earlier life left, and put it in force.

        Raises:
            ConfigError: the state cannot be used, or the operator socket not be bound.
        """
        if self.table is None:
            return self
        try:
            await self._begin(self.table)
        except StateUnavailable as error:
            await self._resources.aclose()
            raise ConfigError(f"rollouts: {error}") from error
        except BaseException:
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop deciding; what is on record stays."""
        await self._resources.aclose()

    def metrics(self) -> RolloutSources | None:
        """Return where a scrape looks; None where no rollout or split can ever be. Valid once entered."""
        if self.table is None or self.mirror is None or self.controller is None:
            return None
        return RolloutSources(
            routes=self.table.views,
            shadows=self.mirror.totals,
            rollouts=self.controller.rollouts,
            files=self.controller.files,
        )

    def on_transition(self, status: VersionStatus) -> None:
        """Pass it on to the controller."""
        if self.controller is not None:
            self.controller.on_transition(status)

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Take no note: `on_transition` has it."""

    async def _begin(self, table: RouteTable) -> None:
        enter, settings = self._resources, self._settings
        mirror = self.mirror = ShadowMirror(self._manager, self._clock, self._slots_of)
        enter.push_async_callback(mirror.aclose)
        table.shadows = mirror
        store, audit = await self._state()
        notices = await enter.enter_async_context(Webhooks(settings.webhooks))
        parts = ControllerParts(
            files=self._files(),
            store=store,
            audit=audit,
            claims=self._manager,
            sources=self._sources,
            routes=_Routes(table, mirror),
            mirrors=mirror,
            notices=notices,
            clock=self._clock,
            wall_s=time.time,
            replica=settings.replica_name(),
        )
        self.controller = RolloutController(parts)
        await enter.enter_async_context(self.controller)
        if (path := settings.approvals()) is not None and isinstance(audit, AuditChain):
            sessions = Sessions(self._clock.now_s)
            await enter.enter_async_context(OperatorSocket(path, self.controller, sessions))
            self.admin = RolloutParts(self.controller, sessions, audit, path)

    async def _state(self) -> tuple[StateStore, Journal]:
        directory = self._settings.state()
        if directory is None:
            return MemoryStore(), _NoAudit()
        store = await self._resources.enter_async_context(JournalStore(directory / _DOCUMENTS))
        return store, await self._resources.enter_async_context(AuditChain(directory / AUDIT))

    def _files(self) -> SpecSource:
        settings = self._settings
        if settings.directory is None:
            return _FixedFiles(self._fixed)
        return RolloutDirectory(
            settings.directory,
            poll_interval_s=settings.poll_interval_s,
            settle_s=settings.settle_s,
            fixed=self._fixed,
            max_window_s=settings.max_rollback_window_s,
        )


class _Routes:
    """The routes, and the shadows beside them: both follow the same plans."""

    def __init__(self, table: RouteTable, mirror: ShadowMirror) -> None:
        self._mirror = mirror
        self._table = table
        self.evidence = table.evidence

    def apply(self, plans: Iterable[RoutePlan]) -> None:
        """Put the complete set of plans in force."""
        known = tuple(plans)
        self._mirror.apply(known)
        self._table.apply(known)


class _FixedFiles:
    """The splits of the gateway's own configuration, where no directory is followed."""

    def __init__(self, specs: tuple[RolloutFile, ...]) -> None:
        self._files = RolloutFiles(specs=specs, complete=True)

    async def look(self) -> RolloutFiles:
        """Return them."""
        return self._files

    async def watch(self) -> AsyncGenerator[RolloutFiles, None]:
        """Give them once; they never change."""
        yield self._files
        await asyncio.Event().wait()


class _NoAudit:
    """Where there are plain splits alone nothing is ever decided."""

    def append_later(self, entry: AuditEntry) -> None:
        """Never called."""
        raise AssertionError(entry)

    def tail(self, _count: int, _rollout: str = "") -> Sequence[AuditRecord]:
        """Return nothing."""
        return []
