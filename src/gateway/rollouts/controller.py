"""The rollouts of a running gateway: follows their files, runs their lines, and takes operators' commands."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import itertools
import logging
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from gateway.core.errors import ConfigError, InvalidRequest, NotFound, PermissionDenied, Unavailable
from gateway.core.evidence import Evidence
from gateway.core.rollout import RolloutSpec, SplitSpec
from gateway.core.rollout_control import Command, Verb
from gateway.core.state import StateUnavailable
from gateway.rollouts import documents, events
from gateway.rollouts.codec import Undecodable
from gateway.rollouts.line import Line, LineParts
from gateway.rollouts.pins import Pins
from gateway.rollouts.splitting import Splits, split_row
from gateway.rollouts.state import RolloutState
from gateway.rollouts.watchers import Watchers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from types import TracebackType

    from gateway.core.clock import Clock
    from gateway.core.evidence import RoutePlan
    from gateway.core.state import AuditEntry, StateStore
    from gateway.core.targets import TargetSource
    from gateway.core.types import VersionStatus
    from gateway.rollouts.ports import (
        Journal,
        Mirrors,
        Notices,
        Routes,
        SpecFile,
        SpecFiles,
        SpecSource,
        SpecStatus,
        VersionClaims,
    )

_log = logging.getLogger(__name__)

TICK_S: Final = 0.5
"""Evidence is looked at so often; a gate that fails withdraws the canary within two of these."""
RECORDED_S: Final = 5.0
"""How long an operator waits until a wish is on record."""
_START_S: Final = 10.0
_BOOTS: Final = "boots/"
_STATES: Final = documents.document_key("")
_TAIL: Final = 500
"""Audit records looked through for an entry that may have been appended before a crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerParts:
    """What the controller works with; none of it is its own to close.

    Attributes:
        files: follows the rollout files.
        store: where states are kept.
        audit: the audit chain.
        claims: loads versions.
        sources: where versions come from.
        routes: where requests go.
        mirrors: what shadows have seen.
        notices: tells whoever wants to know of transitions.
        clock: monotonic time and timers.
        wall_s: seconds since the epoch.
        replica: name of this process.
        new_boot_id: makes the id of this process's life.
    """

    files: SpecSource
    store: StateStore
    audit: Journal
    claims: VersionClaims
    sources: Sequence[TargetSource]
    routes: Routes
    mirrors: Mirrors
    notices: Notices
    clock: Clock
    wall_s: Callable[[], float]
    replica: str
    new_boot_id: Callable[[], str] = field(default=lambda: uuid.uuid4().hex)


class RolloutController:
    """A RolloutControl and a LifecycleObserver. Event loop only; owns its tasks.

    Entered before requests are taken: the plans of an earlier life are in force then. What any file or state
    says wrongly concerns its own line alone.
    """

    def __init__(self, parts: ControllerParts) -> None:
        self._parts = parts
        self._boot_id = parts.new_boot_id()
        self._lines: dict[str, Line] = {}
        self._files: SpecFiles | None = None
        self._plans: dict[str, RoutePlan] = {}
        self._splits = Splits(parts.claims, self._pins, self._apply)
        self._tasks: set[asyncio.Task[None]] = set()
        self._seq = itertools.count(1)
        self._watchers = Watchers()
        self._boot_revision = 0
        self._was_clean = True
        self._is_starting = True

    async def __aenter__(self) -> Self:
        """Take up what an earlier life left, read the files, and put the plans in force.

        Raises:
            StateUnavailable: the state cannot be read, or another process holds it.
            ConfigError: the state is not this gateway's.
        """
        try:
            await self._begin_life()
            for key in await self._parts.store.keys(_STATES):
                await self._line(key.removeprefix(_STATES))
            await self._see(await self._parts.files.look())
            await self._placed()
            self._is_starting = False
            self._start(self._follow())
            self._start(self._tick())
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop deciding; plans and claims stay as they are until the process ends."""
        await self._stop()
        with contextlib.suppress(StateUnavailable):
            await self._mark_life(clean=True)

    # As a RolloutControl.

    def rollouts(self) -> list[dict[str, Any]]:
        """As `RolloutControl.rollouts`."""
        return [
            self.rollout(name) for name in sorted(self._lines) if self._lines[name].state.spec is not None
        ]

    def rollout(self, name: str) -> dict[str, Any]:
        """As `RolloutControl.rollout`."""
        line = self._lines.get(name)
        if line is None:
            raise self._unknown(name)
        return documents.show(line.state, self._parts.wall_s())

    def files(self) -> list[dict[str, Any]]:
        """As `RolloutControl.files`."""
        return [_file_row(status) for status in self._files.statuses] if self._files is not None else []

    def splits(self) -> list[dict[str, Any]]:
        """As `RolloutControl.splits`."""
        errors = self._splits.errors()
        return [split_row(plan, errors.get(plan.model, "")) for plan in self._splits.plans()]

    async def operate(self, command: Command) -> dict[str, Any]:
        """As `RolloutControl.operate`."""
        line = self._lines.get(command.rollout)
        if line is None:
            raise self._unknown(command.rollout)
        if command.verb is Verb.APPROVE and not command.actor.is_known:
            raise PermissionDenied(
                "an approval must come from a user whom the system vouches for: run "
                f"'gateway rollout approve {command.rollout}' on the gateway's host, or open a session there "
                "with 'gateway rollout login'"
            )
        line.feed(
            events.Operator(
                verb=command.verb,
                who=str(command.actor),
                roles=command.actor.roles,
                evidence_hash=command.evidence_hash,
                reason=command.reason,
                **line.now(),
            )
        )
        if line.state.ignored:
            raise InvalidRequest(f"cannot {command.verb.value} rollout '{line.name}': {line.state.ignored}")
        await self._recorded(line, command.verb)
        return self.rollout(line.name)

    def changes(self) -> AsyncIterator[dict[str, Any]]:
        """As `RolloutControl.changes`."""
        return self._watchers.watch(self.rollout)

    # As a LifecycleObserver.

    def on_transition(self, status: VersionStatus) -> None:
        """Tell the lines and splits of a version's state."""
        for line in self._lines.values():
            line.on_transition(status)
        self._splits.on_transition(status.id.model)

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Take no note: `on_transition` has it."""

    # Files.

    async def _placed(self) -> None:
        """Wait, for a bounded time, until every line knows where requests go before any is taken."""
        try:
            async with asyncio.timeout(_START_S):
                for line in self._lines.values():
                    while not line.is_placed:
                        await line.moved()
        except TimeoutError:
            late = sorted(name for name, line in self._lines.items() if not line.is_placed)
            _log.warning(
                "rollouts %s are still being resolved; their models' sources decide until then", late
            )

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._parts.files.watch()) as looks:
            async for files in looks:
                await self._see(files)

    async def _see(self, files: SpecFiles) -> None:
        self._files = files
        splits = [file.spec for file in files.specs if isinstance(file.spec, SplitSpec)]
        await self._splits.replace(splits)
        rollouts = {file.spec.name: file for file in files.specs if isinstance(file.spec, RolloutSpec)}
        for name, file in rollouts.items():
            await self._see_file(name, file)
        if files.complete:
            for name, line in self._lines.items():
                if name not in rollouts and line.state.spec is not None:
                    line.feed(events.SpecGone(who=f"file:{line.state.file.path}", **line.now()))
        for status in files.statuses:
            self._see_status(status)

    async def _see_file(self, name: str, file: SpecFile) -> None:
        line = self._lines.get(name) or await self._line(name)
        known = line.state.file
        assert isinstance(file.spec, RolloutSpec)
        if line.state.spec is not None and known.active_hash == file.hash and known.path == file.path:
            return
        line.feed(
            events.SpecSeen(
                spec=file.spec, file_hash=file.hash, author=file.author, path=file.path, **line.now()
            )
        )

    def _see_status(self, status: SpecStatus) -> None:
        line = self._lines.get(status.name)
        if line is None or not status.error or line.state.file.error == status.error:
            return
        line.feed(events.SpecRefused(file_hash=status.file_hash, error=status.error, **line.now()))

    # Lines.

    async def _line(self, name: str) -> Line:
        """Take up a line where an earlier life left it, or begin it."""
        pins = self._pins(name)
        await pins.load()
        line = self._lines[name] = Line(name, RolloutState(name=name), self._line_parts(pins))
        await self._take_over(line)
        return line

    async def _take_over(self, line: Line) -> None:
        """Have a line decide by what the store has.

        Raises:
            ConfigError: nobody can read that.
        """
        document = await self._parts.store.read(documents.document_key(line.name))
        if document is None:
            line.restart(RolloutState(name=line.name), 0, clean=self._was_clean)
            return
        try:
            state = documents.restore(document.value)
        except Undecodable as error:
            raise ConfigError(
                f"the state of rollout '{line.name}' cannot be read: {error}; another release wrote it"
            ) from error
        line.restart(state, document.revision, clean=self._was_clean)

    def _line_parts(self, pins: Pins) -> LineParts:
        parts = self._parts
        return LineParts(
            clock=parts.clock,
            wall_s=parts.wall_s,
            store=parts.store,
            record=self._record,
            claims=parts.claims,
            pins=pins,
            route=self._route,
            notices=parts.notices,
            start=self._start,
            changed=self._watchers.changed,
            take_over=self._take_over,
            is_starting=lambda: self._is_starting,
            replica=parts.replica,
            boot_id=self._boot_id,
        )

    def _pins(self, name: str) -> Pins:
        return Pins(name, self._parts.store, self._parts.sources)

    def _route(self, name: str, plan: RoutePlan | None) -> None:
        if plan is None:
            self._plans.pop(name, None)
        else:
            self._plans[name] = self._lines[name].present(plan)
        self._apply()

    def _apply(self) -> None:
        """Put every plan in force: all at once, so that no request sees half of a change."""
        self._parts.routes.apply([*self._plans.values(), *self._splits.plans()])

    def _record(self, entry: AuditEntry) -> None:
        """Append to the audit chain what is not there: after a crash an entry may come again."""
        serial = entry.detail.get("serial")
        tail = self._parts.audit.tail(_TAIL, entry.rollout) if serial is not None else []
        if not any(record.entry.detail.get("serial") == serial for record in tail):
            self._parts.audit.append_later(entry)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self._look()
            except Exception:  # noqa: BLE001 - logged: a line that cannot be judged must not stop the others for ever
                _log.exception("judging the rollouts failed")

    def _look(self) -> None:
        """Give every line what has been counted, and the time."""
        arms, shadows = self._parts.routes.evidence(), self._parts.mirrors.evidence()
        for line in list(self._lines.values()):
            if line.plan is not None and line.plan.rollout_id:
                key = (line.plan.rollout_id, line.plan.step)
                evidence = Evidence(
                    rollout_id=key[0],
                    step=key[1],
                    replica=self._parts.replica,
                    boot_id=self._boot_id,
                    seq=next(self._seq),
                    arms=arms.get(key, {}),
                    shadows=shadows.get(key, {}),
                )
                line.feed(events.EvidenceReport(evidence=evidence, **line.now()))
            line.feed(events.Tick(**line.now()))

    async def _recorded(self, line: Line, verb: Verb) -> None:
        """Wait until what an operator asked for has been stored; an abort is done, stored or not."""
        try:
            async with asyncio.timeout(RECORDED_S):
                await line.stored()
        except TimeoutError:
            if verb is not Verb.ABORT:
                raise Unavailable(
                    f"'{verb.value}' could not be recorded within {RECORDED_S:g} s; it takes hold when it is"
                ) from None

    def _unknown(self, name: str) -> NotFound:
        known = sorted(self._lines)
        near = difflib.get_close_matches(name, known, n=1)
        there = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known) or 'none'}"
        return NotFound(f"no rollout '{name[:100]}'; {there}")

    # Life.

    async def _begin_life(self) -> None:
        document = await self._parts.store.read(_BOOTS + self._parts.replica)
        self._was_clean = document is None or bool(document.value["clean"])
        self._boot_revision = 0 if document is None else document.revision
        await self._mark_life(clean=False)

    async def _mark_life(self, *, clean: bool) -> None:
        document = await self._parts.store.write(
            _BOOTS + self._parts.replica, {"boot_id": self._boot_id, "clean": clean}, self._boot_revision
        )
        self._boot_revision = document.revision

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task of the rollouts failed", exc_info=error)

    async def _stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._splits.aclose()
        self._watchers.close()


def _file_row(status: SpecStatus) -> dict[str, Any]:
    return {
        "path": status.path,
        "name": status.name,
        "hash": status.file_hash,
        "active_hash": status.active_hash,
        "error": status.error,
        "warnings": list(status.warnings),
    }
