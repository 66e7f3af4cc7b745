"""The rollouts of a running gateway: follows their files, runs their lines, and takes operators' commands."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import itertools
import logging
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

from gateway.core.errors import ConfigError, InvalidRequest, NotFound, PermissionDenied, Unavailable
from gateway.core.evidence import Evidence
from gateway.core.rollout import RolloutSpec, SplitSpec
from gateway.core.rollout_control import Command, Verb
from gateway.core.state import StateUnavailable
from gateway.rollouts import documents, events, filing
from gateway.rollouts.codec import Undecodable
from gateway.rollouts.line import Line
from gateway.rollouts.line_parts import LineParts
from gateway.rollouts.pausing import pause
from gateway.rollouts.pins import Pins
from gateway.rollouts.recording import Recorder
from gateway.rollouts.splitting import Splits, split_row
from gateway.rollouts.state import RolloutState
from gateway.rollouts.watchers import Watchers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping
    from types import TracebackType

    from gateway.core.evidence import ArmCounts, RoutePlan, ShadowCounts
    from gateway.core.types import VersionStatus
    from gateway.rollouts.controller_parts import ControllerParts
    from gateway.rollouts.ports import SpecFiles

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Counts: TypeAlias = "Mapping[tuple[str, int], Mapping[str, _T]]"

TICK_S: Final = 0.5
"""Evidence is looked at so often; a gate that fails withdraws the canary within two of these."""
RECORDED_S: Final = 5.0
"""How long an operator waits until a wish is on record."""
_START_S: Final = 10.0
_BOOTS: Final = "boots/"
_STATES: Final = documents.document_key("")
_TAIL: Final = 500
"""Audit records of a line that it takes up its work by."""
_STALL_S: Final = 10 * TICK_S
"""When the last look was longer ago than this the process did not run: that time counts for nothing."""


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
        self._splits = Splits(parts.claims, self._pins, self._apply, parts.clock)
        self._recorder = Recorder(parts.audit)
        self._looked_s: float | None = None
        self._clashing: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()
        self._seq = itertools.count(1)
        self._watchers = Watchers()
        self._boot_revision = 0
        self._was_clean = True
        self._is_starting = True
        self._is_stopped = False

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
            for line in self._lines.values():
                line.feed(events.Tick(**line.now()))  # whatever was being found out before goes on at once
            self._start(self._tick())
            await self._placed()
            self._is_starting = False
            self._start(self._follow())
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop deciding, and store what has been counted; plans and claims stay until the process ends."""
        await self._stop()
        for line in self._lines.values():
            await line.save()
        with contextlib.suppress(StateUnavailable):
            await self._mark_life(clean=True)

    # As a RolloutControl.

    def rollouts(self) -> list[dict[str, Any]]:
        """As `RolloutControl.rollouts`."""
        return [
            self.rollout(name) for name in sorted(self._lines) if filing.has_file(self._lines[name].state)
        ]

    def rollout(self, name: str) -> dict[str, Any]:
        """As `RolloutControl.rollout`."""
        line = self._lines.get(name)
        if line is None:
            raise self._unknown(name)
        return documents.show(line.state, self._parts.wall_s())

    def files(self) -> list[dict[str, Any]]:
        """As `RolloutControl.files`."""
        return [filing.file_row(status) for status in self._files.statuses] if self._files is not None else []

    def splits(self) -> list[dict[str, Any]]:
        """As `RolloutControl.splits`."""
        errors = self._splits.errors()
        return [split_row(plan, errors.get(plan.model, "")) for plan in self._splits.plans()]

    async def operate(self, command: Command) -> dict[str, Any]:
        """As `RolloutControl.operate`."""
        line = self._lines.get(command.rollout)
        if line is None:
            raise self._unknown(command.rollout)
        if self._is_stopped:
            raise Unavailable("the gateway is shutting down: ask again when it is back")
        if command.verb is Verb.APPROVE and not command.actor.is_known:
            raise PermissionDenied(
                "an approval must come from a user whom the system vouches for: run "
                f"'gateway rollout approve {command.rollout}' on the gateway's host, or open a session there "
                "with 'gateway rollout login'"
            )
        looked_at = line.state.approval_hash if command.verb is Verb.APPROVE else ""
        refused = line.ask(
            events.Operator(
                verb=command.verb,
                who=str(command.actor),
                roles=command.actor.roles,
                evidence_hash=command.evidence_hash or looked_at,
                reason=command.reason,
                **line.now(),
            )
        )
        if refused and not line.state.store.leading:
            raise Unavailable(f"rollout '{line.name}' is just being taken over: ask again")
        if refused:
            raise InvalidRequest(f"cannot {command.verb.value} rollout '{line.name}': {refused}")
        await self._recorded(line, command.verb)
        return self.rollout(line.name)

    def changes(self) -> AsyncIterator[dict[str, Any]]:
        """As `RolloutControl.changes`."""
        return self._watchers.watch(self.rollout)

    # As a LifecycleObserver.

    def on_transition(self, status: VersionStatus) -> None:
        """Tell the lines and splits of a version's state; what unloads after the end is nobody's loss."""
        if self._is_stopped:
            return
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
                await self._splits.tried()
        except TimeoutError:
            late = sorted(name for name, line in self._lines.items() if not line.is_placed)
            _log.warning(
                "rollouts %s, or splits, are still being resolved; their models' sources decide until then",
                late,
            )

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._parts.files.watch()) as looks:
            async for files in looks:
                try:
                    await self._see(files)
                except Exception:  # noqa: BLE001 - any: the next change of a file may be all right
                    _log.exception("rollout files could not be taken up")

    async def _see(self, files: SpecFiles) -> None:
        self._files = files
        splits = [file.spec for file in files.specs if isinstance(file.spec, SplitSpec)]
        await self._splits.replace(splits)
        rollouts = {file.spec.name: file for file in files.specs if isinstance(file.spec, RolloutSpec)}
        for name, file in rollouts.items():
            filing.tell(self._lines.get(name) or await self._line(name), file, files)
        if files.complete:
            for name, line in self._lines.items():
                if name not in rollouts and filing.has_file(line.state):
                    line.feed(events.SpecGone(who=f"file:{line.state.file.path}", **line.now()))
        for status in files.statuses:
            if (known := self._lines.get(status.name)) is not None:
                filing.tell_status(known, status)

    # Lines.

    async def _line(self, name: str) -> Line:
        """Take up a line where an earlier life left it, or begin it."""
        pins = self._pins(name)
        await pins.load()
        line = self._lines[name] = Line(name, RolloutState(name=name), self._line_parts(pins))
        try:
            await self._take_over(line)
        except BaseException:
            del self._lines[name]
            raise
        return line

    async def _take_over(self, line: Line) -> None:
        """Have a line decide by what the store has.

        Raises:
            ConfigError: nobody can read that.
        """
        document = await self._parts.store.read(documents.document_key(line.name))
        audited = [record.entry for record in self._parts.audit.tail(_TAIL, line.name)]
        audited += self._recorder.unrecorded(line.name)
        if document is None:
            line.restart(RolloutState(name=line.name), 0, audited, clean=self._was_clean)
            return
        try:
            state = documents.restore(document.value)
        except Undecodable as error:
            raise ConfigError(
                f"the state of rollout '{line.name}' cannot be read: {error}; another release wrote it"
            ) from error
        line.restart(state, document.revision, audited, clean=self._was_clean)

    def _line_parts(self, pins: Pins) -> LineParts:
        parts = self._parts
        return LineParts(
            clock=parts.clock,
            wall_s=parts.wall_s,
            store=parts.store,
            recorder=self._recorder,
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
        """Put every plan in force: all at once, so that no request sees half of a change.

        Files that speak for one model are refused. Where one takes over from another, what was in force for
        the model first stays so until its withdrawal is on record.
        """
        first: dict[str, RoutePlan] = {}
        clashing: set[str] = set()
        for plan in (*self._plans.values(), *self._splits.plans()):
            if first.setdefault(plan.model, plan) is not plan:
                clashing.add(plan.model)
        if clashing - self._clashing:
            _log.warning("models %s have two routes; the older ones are in force", sorted(clashing))
        self._clashing = frozenset(clashing)
        self._parts.routes.apply(first.values())

    async def _tick(self) -> None:
        while True:
            await pause(self._parts.clock, TICK_S)
            try:
                self._look()
            except Exception:  # noqa: BLE001 - any: the next look may be all right
                _log.exception("judging the rollouts failed")

    def _look(self) -> None:
        """Give every line what has been counted, and the time."""
        now_s, before_s = self._parts.clock.now_s(), self._looked_s
        has_stalled = before_s is not None and now_s - before_s > _STALL_S
        self._looked_s = now_s
        arms, shadows = self._parts.routes.evidence(), self._parts.mirrors.evidence()
        for line in list(self._lines.values()):
            try:
                if has_stalled:
                    line.skip_time()
                self._judge(line, arms, shadows)
            except Exception:  # noqa: BLE001 - any: a line that cannot be judged must not stop the others
                _log.exception("judging rollout %r failed", line.name)

    def _judge(self, line: Line, arms: _Counts[ArmCounts], shadows: _Counts[ShadowCounts]) -> None:
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
        if self._files is not None:
            filing.tell_again(line, self._files)

    async def _recorded(self, line: Line, verb: Verb) -> None:
        """Wait until what an operator asked for has been stored; a withdrawal is done, stored or not."""
        try:
            async with asyncio.timeout(RECORDED_S):
                await line.stored()
        except TimeoutError:
            if verb not in {Verb.ABORT, Verb.ROLLBACK}:
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
        self._is_stopped = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._splits.aclose()
        self._watchers.close()
