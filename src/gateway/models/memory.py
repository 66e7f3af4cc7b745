"""The memory budget: what may be loaded beside what is, what gives way for it, and refusals with numbers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from gateway.core.errors import ModelLoadError
from gateway.core.remote import REMOTE_BACKENDS
from gateway.core.types import CPU, Device, VersionState
from gateway.models.costs import Costs
from gateway.models.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
    from pathlib import Path

    from gateway.core.clock import Clock
    from gateway.core.interfaces import WantedVersion
    from gateway.core.types import Artifact, VersionId, VersionStatus
    from gateway.models.costs import Cost

_log = logging.getLogger(__name__)

_NAMED_HOLDERS: Final = 5
_UNITS: Final = ((1e9, "GB", 1), (1e6, "MB", 0), (1e3, "kB", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions:
    """Settings of a MemoryBudget.

    Attributes:
        limits: most bytes that models may hold, by `cpu`, `cuda:1`, or `cuda` for each device of the kind;
            a device not named has no limit. For `cpu` leave room for requests and activations.
        wait_s: how long a load waits for what is being unloaded, or for a lazy model that is busy or loading,
            before it is refused.
        assumed: where a model is expected to go whose device its backend chooses.
        remote: backends whose models take no memory here.
    """

    limits: Mapping[str, int] = field(default_factory=dict)
    wait_s: float = 10.0
    assumed: Device = CPU
    remote: frozenset[str] = REMOTE_BACKENDS


class DeviceMemory(NamedTuple):
    """What models hold on a device, reservations of loads under way included, and its limit if it has one."""

    device: Device
    held_bytes: int
    limit_bytes: int | None


class _Load(NamedTuple):
    """A load that was admitted and is not over."""

    wanted: WantedVersion
    content: str
    file_bytes: int
    cost: Cost


class Reclaimer(Protocol):
    """Unloads what may go when memory is short."""

    def make_room(self, short: Cost, sparing: str, loading: Mapping[str, Cost]) -> bool:
        """Begin to unload idle models until `short` is covered, and none at all if it can never be.

        Args:
            short: bytes by device.
            sparing: a model that is to stay.
            loading: model -> bytes reserved for loads of it under way, which may go when they are over.

        Returns:
            Whether it can be covered, at once or when models that are busy have nothing to do.
        """

    async def idle(self, short: Cost) -> None:
        """Wait until some model that may go, and holds something of what is short, is busy no more."""


class MemoryBudget:
    """A LoadBudget with a limit per device; also a LifecycleObserver, to know what is being unloaded.

    Invariants: what is held and reserved on a device stays within its limit, but for what a load turns out
    to take beyond its estimate, which then makes lazy models give way. Loads that have to wait are admitted
    in the order they came. A version that replaces another is loaded beside it: both count until the switch.

    Args:
        options: limits and how long to wait.
        clock: times the waits.
        reclaimer: makes room; None: nothing gives way.
    """

    def __init__(self, options: MemoryOptions, clock: Clock, reclaimer: Reclaimer | None = None) -> None:
        self.refusals: Counter[Device] = Counter()
        self._options = options
        self._clock = clock
        self._reclaimer = reclaimer
        self._ledger = Ledger(options.limits)
        self._costs = Costs(options.assumed)
        self._loads: dict[VersionId, _Load] = {}
        self._refused: set[VersionId] = set()
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    async def admit(self, wanted: WantedVersion, artifact: Artifact) -> None:
        """Wait for room, lazy models giving way, or refuse; as `LoadBudget.admit`.

        Raises:
            ModelLoadError: with what is needed, what there is, and who holds it. It has a cause where trying
                again later may help.
        """
        if wanted.spec.backend in self._options.remote:
            return
        try:
            await self._admit(wanted, artifact)
        except BaseException:
            # Its `released` will come, and must not be taken for that of an earlier copy.
            self._refused.add(wanted.id)
            raise
        self._refused.discard(wanted.id)

    async def _admit(self, wanted: WantedVersion, artifact: Artifact) -> None:
        file_bytes = await asyncio.to_thread(size_of, artifact)
        content = f"{artifact.digest} {wanted.spec.instances}"
        cost = self._costs.remembered(content) or self._estimated(wanted, file_bytes)
        self._refuse_too_large(cost)
        if self._turn.locked() or self._must_wait(wanted.id, cost):
            async with self._turn:
                await self._room(wanted, cost)
        self._ledger.enter(wanted.id, cost)
        self._loads[wanted.id] = _Load(wanted, content, file_bytes, cost)

    def loaded(self, version: VersionId, memory: Sequence[tuple[Device, int]]) -> None:
        """Take note of what a version really holds, and let lazy models give way if that is too much."""
        self._ledger.settle(version, dict(memory))
        if (load := self._loads.pop(version, None)) is not None:
            self._costs.learn(load.content, load.wanted.spec, load.file_bytes, memory)
        over = self._ledger.missing({}, leaving=False)
        if over and not self._make_room(over, version.model):
            _log.warning(
                "model %r version %d took more memory than expected: %s", *version[:2], self._excess(over)
            )
        self._tell()

    def released(self, version: VersionId) -> None:
        """Take note that a version holds nothing any more; as `LoadBudget.released`."""
        if version in self._refused:
            self._refused.remove(version)
            return
        self._loads.pop(version, None)
        self._ledger.drop(version)
        self._tell()

    def on_transition(self, status: VersionStatus) -> None:
        """Take note of versions that are being unloaded: their memory is worth waiting for."""
        if status.state is VersionState.DRAINING:
            self._ledger.leave(status.id)

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Take no note."""

    def devices(self) -> Sequence[DeviceMemory]:
        """Return what is held on each device that holds something, and on the CPU if it has a limit."""
        held = dict(self._ledger.held())
        if "cpu" in self._options.limits:
            held.setdefault(CPU, 0)
        return [DeviceMemory(d, nbytes, self._ledger.limit(d)) for d, nbytes in sorted(held.items())]

    def _estimated(self, wanted: WantedVersion, file_bytes: int) -> Cost:
        """Estimate; content that may just fit when it has the device alone is not refused for a guess."""
        cost: dict[Device, int] = {}
        for device, nbytes in self._costs.estimated(wanted.spec, file_bytes).items():
            limit = self._ledger.limit(device)
            cost[device] = nbytes if limit is None or file_bytes > limit else min(nbytes, limit)
        return cost

    def _refuse_too_large(self, cost: Cost) -> None:
        for device, nbytes in cost.items():
            limit = self._ledger.limit(device)
            if limit is not None and nbytes > limit:
                self.refusals[device] += 1
                raise ModelLoadError(
                    f"needs about {shown(nbytes)} on {device}, more than the whole budget of {shown(limit)}: "
                    f"raise memory.limits.{device.kind}"
                )

    def _must_wait(self, version: VersionId, cost: Cost) -> bool:
        return bool(self._ledger.missing(cost)) or (bool(self._options.limits) and self._ledger.has(version))

    async def _room(self, wanted: WantedVersion, cost: Cost) -> None:
        """Wait until there is room, and the version's own last copy has gone."""
        until_s = self._clock.now_s() + self._options.wait_s
        while self._must_wait(wanted.id, cost):
            changed = self._changed
            short = self._ledger.missing(cost, leaving=False)
            possible = not short or self._make_room(short, wanted.id.model)
            if not possible or not await self._happens(changed, short, until_s):
                raise self._refusal(wanted, cost)

    async def _happens(self, changed: asyncio.Event, short: Cost, until_s: float) -> bool:
        """Wait for a change, or for somebody to be idle; False when the time is up first."""
        expired: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_at(until_s, lambda: None if expired.done() else expired.set_result(None))
        try:
            waits = [changed.wait(), *([self._reclaimer.idle(short)] if self._reclaimer and short else [])]
            async with _either(*waits) as events:
                await asyncio.wait([*events, expired], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        return not expired.done()

    def _make_room(self, short: Cost, sparing: str) -> bool:
        return self._reclaimer is not None and self._reclaimer.make_room(short, sparing, self._loading())

    def _loading(self) -> Mapping[str, Cost]:
        """Return what is reserved for loads of lazy models under way."""
        reserved: dict[str, Counter[Device]] = {}
        for version, load in self._loads.items():
            if load.wanted.spec.lazy:
                reserved.setdefault(version.model, Counter()).update(load.cost)
        return reserved

    def _refusal(self, wanted: WantedVersion, cost: Cost) -> ModelLoadError:
        missing = self._ledger.missing(cost)
        if missing:
            self.refusals.update(missing.keys())
            text = "; ".join(self._why(device, cost.get(device, 0)) for device in missing)
        else:
            text = f"the copy before is still in use after {self._options.wait_s:g} s"
        error = ModelLoadError(text)
        if not wanted.spec.lazy:  # one that is lazy is tried again when somebody asks for it
            error.__cause__ = MemoryError(text)
        return error

    def _why(self, device: Device, nbytes: int) -> str:
        limit = self._ledger.limit(device) or 0
        holders = self._ledger.holders(device)
        named = [f"{h.version.model} v{h.version.number} {shown(h.nbytes)}" for h in holders[:_NAMED_HOLDERS]]
        if more := len(holders) - len(named):
            named.append(f"{more} more")
        held = shown(self._ledger.held().get(device, 0))
        return (
            f"needs about {shown(nbytes)} on {device}, budget {shown(limit)} of which {held} are held by: "
            f"{', '.join(named)}; unload one of them, raise memory.limits.{device.kind}, or make models lazy"
        )

    def _excess(self, over: Cost) -> str:
        held, limit = self._ledger.held(), self._ledger.limit
        return ", ".join(f"{shown(held[d])} held of {shown(limit(d) or 0)} on {d}" for d in over)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


@contextlib.asynccontextmanager
async def _either(*waits: Coroutine[Any, Any, Any]) -> AsyncIterator[Sequence[asyncio.Task[Any]]]:
    """Run waits as tasks that are over when the context is left."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def size_of(artifact: Artifact) -> int:
    """Return the bytes of a version's files that loading it may read, as far as they can be told; blocking.

    Of a directory that holds several models' files only those count that begin with the model file's name.
    """
    model_file = artifact.model_file
    own = _size(model_file)
    try:
        beside = [path for path in model_file.parent.iterdir() if path != model_file]
    except OSError:
        return own
    if any(path.suffix == model_file.suffix for path in beside):
        beside = [path for path in beside if path.name.startswith(model_file.stem)]
    return own + sum(_size(path) for path in beside if path.suffix != model_file.suffix)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def shown(nbytes: int) -> str:
    """Return a number of bytes for people."""
    for unit, name, digits in _UNITS:
        if nbytes >= unit:
            return f"{nbytes / unit:.{digits}f} {name}"
    return f"{nbytes} bytes"
