"""Lazy models: loaded when somebody asks for them, unloaded when the least recently used must give way."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from gateway.core.errors import NotReady
from gateway.core.types import VersionState
from gateway.models.lru import Resident, eviction
from gateway.models.table import canonical_version

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from gateway.core.clock import Clock, Timer
    from gateway.core.interfaces import WantedVersion
    from gateway.core.statistics import VersionStatistics
    from gateway.core.types import Device, VersionId, VersionStatus
    from gateway.models.costs import Cost
    from gateway.models.served import LoadedVersion

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
"""A load that failed is tried again for requests after these pauses, each twice the one before."""

MEMORY: Final = "memory"
IDLE: Final = "idle"
"""Why a model was unloaded."""

_TELLING: Final = frozenset({VersionState.READY, VersionState.FAILED, VersionState.UNLOADED})


class LazyObserver(Protocol):
    """Told what lazy loading does; neither method suspends, blocks or raises."""

    def on_cold_start(self, model: str, seconds: float, *, loaded: bool) -> None:
        """Take note that a load begun by a request ended, `seconds` after that request."""

    def on_evicted(self, model: str, why: str) -> None:
        """Take note that a model is unloaded until somebody asks again: `memory` or `idle`."""


class Unloader(Protocol):
    """What LazyModels asks of the model manager."""

    def lazy_versions(self, model: str) -> Sequence[WantedVersion]:
        """Return the lazy versions of a model that somebody claims, loaded or not, by ascending number."""

    def wake(self, models: Collection[str], *, retry: str = "") -> None:
        """Set the models whose lazy versions are to be loaded; try failed ones of `retry` again.

        A model that nobody claims any more is loaded only once it was left out, and is named again.
        """

    def loaded_versions(self, model: str) -> Sequence[LoadedVersion]:
        """Return the READY versions of a model, by ascending number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyOptions:
    """Settings of LazyModels.

    Attributes:
        max_idle_s: a model is unloaded when nobody has asked for it this long; None: only for its memory.
    """

    max_idle_s: float | None = None


class _Failure(NamedTuple):
    """How often in a row a version failed to load, when it last did, and why."""

    times: int
    at_s: float
    reason: str

    @property
    def until_s(self) -> float:
        """When it is tried again for a request."""
        return self.at_s + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self.times - 1, 10))


_DEFAULTS: Final = LazyOptions()


class LazyModels:
    """Decides which lazy models are awake: loaded, or being loaded. Event loop only.

    It is a LifecycleObserver (to learn how loads end) and the Reclaimer of a MemoryBudget. All versions of a
    model wake and go together. When a model was last used is read from the statistics that its batches
    keep, and from its leases, so that a request to a loaded model costs nothing more.

    Args:
        clock: times loads and pauses.
        options: settings.
        observers: told of cold starts and evictions.
        wall_s: wall-clock seconds since the epoch, as the statistics' `last_inference_ms`.
    """

    def __init__(
        self,
        clock: Clock,
        options: LazyOptions = _DEFAULTS,
        observers: Sequence[LazyObserver] = (),
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._options = options
        self._observers = tuple(observers)
        self._wall_s = wall_s
        self._joined: Unloader | None = None
        self._listen: Callable[[str], None] = _ignore
        self._awake: set[str] = set()
        self._stirring: Counter[str] = Counter()
        self._draining: Counter[VersionId] = Counter()
        self._starting: dict[str, float] = {}
        self._ready_s: dict[VersionId, float] = {}
        self._failures: dict[VersionId, _Failure] = {}
        self._statistics: dict[VersionId, VersionStatistics] = {}
        self._answered: Counter[str] = Counter()
        self._sweep: Timer | None = None

    def attach(self, manager: Unloader, listen: Callable[[str], None]) -> None:
        """Join it with the manager, and with who is told of a model whose versions came or failed."""
        self._joined = manager
        self._listen = listen

    def is_lazy(self, model: str) -> bool:
        """Whether some version of the model is loaded on first use."""
        return bool(self._manager.lazy_versions(model))

    def wake(self, model: str, version: str = "") -> None:
        """Have a model loaded for a request; harmless when it is loaded or on its way.

        Raises:
            NotReady: its last load failed a short time ago, with the reason; or it has no such lazy version.
        """
        number = canonical_version(version)
        meant = [v for v in self._manager.lazy_versions(model) if number in {"", str(v.id.number)}]
        if not meant:
            raise NotReady(f"Request for unknown model: '{model}' has no available versions")
        now_s = self._clock.now_s()
        failures = [self._failures[v.id] for v in meant if v.id in self._failures]
        recent = [failure for failure in failures if failure.until_s > now_s]
        if len(recent) == len(meant):
            last = recent[-1]
            raise NotReady(
                f"model '{model}' could not be loaded: {last.reason}", retry_after_s=last.until_s - now_s
            )
        again = len(failures) > len(recent)
        if again or model not in self._awake:
            self._starting.setdefault(model, now_s)
            self._awake = {model, *(other for other in self._awake if self.is_lazy(other))}
            self._manager.wake(self._awake, retry=model if again else "")
        if not self._stirring[model]:
            # Not now: the manager may be telling its observers of a change.
            asyncio.get_running_loop().call_soon(self._rouse, model)

    # What the budget asks for.

    def make_room(self, short: Cost, sparing: str, loading: Mapping[str, Cost]) -> bool:
        """Unload idle models, least recently used first; as `Reclaimer.make_room`."""
        residents = [r for model in self._awake if model != sparing and (r := self._resident(model))]
        residents += [
            Resident(model=model, used_s=math.inf, busy=True, memory=cost)
            for model, cost in loading.items()
            if model != sparing
        ]
        plan = eviction(residents, short)
        self._put_to_sleep(plan.models, MEMORY)
        return plan.possible

    async def idle(self, short: Cost) -> None:
        """Wait until a model that is busy has no lease any more; as `Reclaimer.idle`."""
        busy = [
            version
            for model in self._awake
            for version in self._manager.loaded_versions(model)
            if version.leases and any(device in short for device, _ in version.memory)
        ]
        if not busy:
            await asyncio.Event().wait()
        waits = [asyncio.create_task(version.released()) for version in busy]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    # What the manager tells.

    def on_transition(self, status: VersionStatus) -> None:
        """Take note of how a load ended, or that a version has gone; tell who listens."""
        model, state = status.id.model, status.state
        self._count(status.id, state)
        if state is VersionState.READY:
            self._came(status.id)
        elif state is VersionState.FAILED and model in self._awake:
            self._failed(status)
        elif state is VersionState.DRAINING:
            self._going(status.id)
        elif state is VersionState.UNLOADED and model in self._awake and not self.is_lazy(model):
            self._forget(model)
        if state in _TELLING:
            self._listen(model)

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Take no note."""

    # What metrics ask for.

    def requests(self) -> Mapping[str, int]:
        """Return, by model, the requests that loaded versions of lazy models have answered or failed."""
        total = self._answered.copy()
        for version, statistics in self._statistics.items():
            total[version.model] += statistics.success.count + statistics.fail.count
        return total

    def awake(self) -> Collection[str]:
        """Return the models that are loaded, or being loaded."""
        return frozenset(model for model in self._awake if self._stirring[model])

    # Inside.

    @property
    def _manager(self) -> Unloader:
        assert self._joined is not None, "attached before anything is claimed"
        return self._joined

    def _count(self, version: VersionId, state: VersionState) -> None:
        """Count the versions of each model that are on their way or READY."""
        if state is VersionState.NEW:
            self._stirring[version.model] += 1
        elif state is VersionState.UNLOADED and self._draining[version]:
            self._draining -= Counter([version])
        elif state in {VersionState.FAILED, VersionState.DRAINING, VersionState.UNLOADED}:
            self._stirring -= Counter([version.model])
            if state is VersionState.DRAINING:
                self._draining[version] += 1

    def _rouse(self, model: str) -> None:
        """Wake a model anew that fell asleep unnoticed: nobody claimed it when nothing of it was loaded."""
        lazy, now_s = self._manager.lazy_versions(model), self._clock.now_s()
        failed = any(v.id in self._failures and self._failures[v.id].until_s > now_s for v in lazy)
        if lazy and not failed and model in self._awake and not self._stirring[model]:
            self._starting.setdefault(model, now_s)
            self._manager.wake(self._awake - {model})
            self._manager.wake(self._awake)

    def _came(self, version: VersionId) -> None:
        model = version.model
        self._failures.pop(version, None)
        if model not in self._awake or not self.is_lazy(model):
            return
        self._ready_s[version] = self._wall_s()
        for loaded in self._manager.loaded_versions(model):
            if loaded.id == version:
                self._statistics[version] = loaded.statistics
        self._end_cold_start(model, loaded=True)
        self._plan_sweep()

    def _failed(self, status: VersionStatus) -> None:
        now_s = self._clock.now_s()
        before = self._failures.get(status.id)
        self._failures = {v: f for v, f in self._failures.items() if self._is_known(v)}
        self._failures[status.id] = _Failure(before.times + 1 if before else 1, now_s, status.reason)
        self._end_cold_start(status.id.model, loaded=False)

    def _is_known(self, version: VersionId) -> bool:
        """Whether somebody still claims it: then a request has to find that its last load failed."""
        return any(wanted.id == version for wanted in self._manager.lazy_versions(version.model))

    def _going(self, version: VersionId) -> None:
        self._ready_s.pop(version, None)
        statistics = self._statistics.pop(version, None)
        if statistics is not None:
            self._answered[version.model] += statistics.success.count + statistics.fail.count

    def _forget(self, model: str) -> None:
        """Let a model that nobody claims any more be asleep, should it come back."""
        self._awake.discard(model)
        self._starting.pop(model, None)
        # Not now: the manager is telling its observers of a change.
        asyncio.get_running_loop().call_soon(lambda: self._manager.wake(self._awake))

    def _end_cold_start(self, model: str, *, loaded: bool) -> None:
        began_s = self._starting.pop(model, None)
        if began_s is not None:
            for observer in self._observers:
                observer.on_cold_start(model, self._clock.now_s() - began_s, loaded=loaded)

    def _resident(self, model: str) -> Resident | None:
        """Return a model as one that may be unloaded; None while nothing of it can be.

        That is also while a version stands in for another that could not be loaded, or not yet: it could not
        be brought back.
        """
        loaded, lazy = self._manager.loaded_versions(model), self._manager.lazy_versions(model)
        wanted = {version.id for version in lazy}
        numbers = {version.id.number for version in lazy}
        versions = [version for version in loaded if version.id in wanted]
        # Any other that is READY is claimed for good, unless its number is wanted with other content.
        if not versions or any(v.id not in wanted and v.id.number in numbers for v in loaded):
            return None
        memory: Counter[Device] = Counter()
        for version in versions:
            memory.update(dict(version.memory))
        return Resident(
            model=model,
            used_s=max(self._used_s(version) for version in versions),
            busy=model in self._starting or any(version.leases for version in versions),
            memory=memory,
        )

    def _used_s(self, version: LoadedVersion) -> float:
        return max(version.statistics.last_inference_ms / 1e3, self._ready_s.get(version.id, 0.0))

    def _put_to_sleep(self, models: Sequence[str], why: str) -> None:
        if not models:
            return
        self._awake.difference_update(models)
        self._manager.wake(self._awake)
        for model in models:
            for observer in self._observers:
                observer.on_evicted(model, why)

    def _plan_sweep(self) -> None:
        if self._options.max_idle_s is not None and self._sweep is None:
            self._sweep_in(self._options.max_idle_s)

    def _sweep_in(self, seconds: float) -> None:
        self._sweep = self._clock.call_at(self._clock.now_s() + seconds, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Unload what nobody has used for too long, and look again when the next one may be due."""
        self._sweep = None
        most_s = self._options.max_idle_s
        residents = [r for model in self._awake if (r := self._resident(model))]
        if most_s is None or not any(self._manager.loaded_versions(model) for model in self._awake):
            return
        now_s = self._wall_s()
        self._put_to_sleep([r.model for r in residents if not r.busy and now_s - r.used_s >= most_s], IDLE)
        next_s = [most_s - (now_s - r.used_s) for r in residents if r.model in self._awake]
        # One that is busy is due whenever it is looked at.
        self._sweep_in(max(min(next_s, default=most_s), most_s / 10))


def _ignore(model: str) -> None:
    """Tell nobody."""
