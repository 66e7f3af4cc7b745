"""Registries: looks at them, how old what they said is, what was fetched, and the artifact cache."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.core.types import VersionState
from gateway.telemetry.histogram import LOAD_SECONDS, BucketCounts, histogram_family

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from gateway.core.clock import Clock
    from gateway.core.types import VersionId, VersionStatus

POLL_SECONDS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds for looks at a registry: one file on the local disk to a server that hardly answers."""
_CHANGED: Final = "changed"
_UNDER_WAY: Final = (VersionState.FETCHING, VersionState.VERIFYING)


class ResolutionView(Protocol):
    """Where one model stands with its registry."""

    @property
    def model(self) -> str:
        """Public name."""

    @property
    def registry(self) -> str:
        """The registry's name in the configuration."""

    @property
    def status(self) -> enum.Enum:
        """In one word."""

    @property
    def last_ok_s(self) -> float | None:
        """When the registry last had what is asked for, wall-clock seconds; None: never, as far as known."""


class CollectView(Protocol):
    """What a garbage collection of the artifact cache did."""

    @property
    def removed(self) -> Mapping[str, str]:
        """Content digest -> why it went."""

    @property
    def freed_bytes(self) -> int:
        """Bytes of what went."""

    @property
    def kept(self) -> int:
        """Artifacts left."""

    @property
    def kept_bytes(self) -> int:
        """Bytes of those."""

    @property
    def pinned(self) -> int:
        """How many of those somebody uses now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySources:
    """Where a scrape looks; both are called on the event loop and read local state only.

    Attributes:
        resolutions: where every model of a registry stands.
        wall_s: wall-clock seconds since the epoch.
    """

    resolutions: Callable[[], Iterable[ResolutionView]]
    wall_s: Callable[[], float]


class _Fetch(NamedTuple):
    """A version whose files are on their way.

    Attributes:
        registry: where they come from.
        began_s: monotonic time.
        done_bytes: here when last told; None before anything is known to be fetched.
    """

    registry: str
    began_s: float
    done_bytes: int | None = None


class RegistryMetrics(Collector):
    """A PollObserver, LifecycleObserver and FetchObserver; counts what registries are asked and give.

    Event loop only. Series are bounded by the registries, and models of registries, that are configured.

    Args:
        clock: times fetches, and what lies between an answer and its first version.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._polls: Counter[tuple[str, ...]] = Counter()
        self._poll_seconds: dict[tuple[str, ...], BucketCounts] = {}
        self._looked: dict[str, tuple[str, float]] = {}
        self._resolve_seconds: dict[tuple[str, ...], BucketCounts] = {}
        self._fetches: dict[VersionId, _Fetch] = {}
        self._fetched_bytes: Counter[tuple[str, ...]] = Counter()
        self._fetch_seconds: dict[tuple[str, ...], BucketCounts] = {}
        self._collected: Counter[tuple[str, ...]] = Counter()
        self._freed_bytes = 0
        self._cache: CollectView | None = None

    def on_poll(self, registry: str, model: str, outcome: enum.Enum, seconds: float) -> None:
        """Take note that a look at a model took `seconds`."""
        word = str(outcome.value)
        self._polls[registry, model, word] += 1
        self._poll_seconds.setdefault((registry,), BucketCounts(POLL_SECONDS)).observe(seconds)
        # What an earlier answer had to bring is here by now, or it needed nothing new.
        self._looked.pop(model, None)
        if word == _CHANGED:
            self._looked[model] = (registry, self._clock.now_s() - seconds)

    def on_transition(self, status: VersionStatus) -> None:
        """Take note of the first version that an answer brought, and of fetches that begin and end."""
        if status.state is VersionState.NEW:
            self._resolved(status.id.model)
        elif status.state is VersionState.FETCHING and status.origin is not None:
            self._fetches[status.id] = _Fetch(status.origin.registry, self._clock.now_s())
        elif status.id in self._fetches:
            self._fetch_ended(status)

    def on_progress(self, status: VersionStatus) -> None:
        """Count the bytes that have come since the last time; what an earlier attempt left is not counted."""
        fetch = self._fetches.get(status.id)
        if fetch is None or status.state is not VersionState.FETCHING:
            return
        before = fetch.done_bytes
        if before is None:
            if not (status.total_bytes or status.done_bytes):
                return  # it may be in the cache
            before = status.done_bytes if status.total_bytes else 0
        self._fetched_bytes[fetch.registry, status.id.model] += max(0, status.done_bytes - before)
        self._fetches[status.id] = fetch._replace(done_bytes=status.done_bytes)

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Take no note: the steps of loads are counted with all others."""

    def on_collected(self, report: CollectView) -> None:
        """Take note of a garbage collection of the artifact cache."""
        self._cache = report
        self._freed_bytes += report.freed_bytes
        self._collected.update((why,) for why in report.removed.values())

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        labels = ("registry", "model", "outcome")
        yield _counters("gateway_registry_polls", "Looks at a model of a registry.", labels, self._polls)
        yield histogram_family(
            "gateway_registry_poll_seconds", "Looks at a registry.", ("registry",), self._poll_seconds
        )
        yield histogram_family(
            "gateway_registry_resolve_seconds",
            "From the beginning of the look that found a change until its first version is on its way.",
            ("registry",),
            self._resolve_seconds,
        )
        yield _counters(
            "gateway_registry_fetched_bytes",
            "Bytes of versions fetched.",
            ("registry", "model"),
            self._fetched_bytes,
        )
        yield histogram_family(
            "gateway_registry_fetch_seconds",
            "Fetches of versions, by how they ended.",
            ("registry", "outcome"),
            self._fetch_seconds,
        )
        yield from self._cache_families()

    def _cache_families(self) -> Iterable[Metric]:
        yield _counters(
            "gateway_cache_collected", "Artifacts removed from the cache.", ("reason",), self._collected
        )
        freed = CounterMetricFamily("gateway_cache_freed_bytes", "Bytes removed from the cache.")
        freed.add_metric((), self._freed_bytes)
        yield freed
        report = self._cache
        if report is None:
            return
        yield GaugeMetricFamily(
            "gateway_cache_artifacts", "Artifacts in the cache when it was last looked through.", report.kept
        )
        yield GaugeMetricFamily(
            "gateway_cache_pinned_artifacts", "Those of them in use by any gateway.", report.pinned
        )
        yield GaugeMetricFamily("gateway_cache_bytes", "Bytes of all of them.", report.kept_bytes)

    def _resolved(self, model: str) -> None:
        looked = self._looked.pop(model, None)
        if looked is not None:
            registry, began_s = looked
            seconds = self._resolve_seconds.setdefault((registry,), BucketCounts(LOAD_SECONDS))
            seconds.observe(self._clock.now_s() - began_s)

    def _fetch_ended(self, status: VersionStatus) -> None:
        fetch = self._fetches.pop(status.id)
        if fetch.done_bytes is None and status.state in _UNDER_WAY:
            outcome = "cached"
        elif status.state in _UNDER_WAY:
            outcome = "ok"
        else:
            outcome = "failed" if status.state is VersionState.FAILED else "withdrawn"
        series = self._fetch_seconds.setdefault((fetch.registry, outcome), BucketCounts(LOAD_SECONDS))
        series.observe(self._clock.now_s() - fetch.began_s)


class StalenessMetrics(Collector):
    """Gauges of where models stand with their registries, read when scraped."""

    def __init__(self, sources: RegistrySources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        staleness = GaugeMetricFamily(
            "gateway_registry_staleness_seconds",
            "Since the registry last had what the model's source names.",
            labels=("registry", "model"),
        )
        statuses = GaugeMetricFamily(
            "gateway_registry_status",
            "1 for the status in which the model is with its registry.",
            labels=("registry", "model", "status"),
        )
        now_s = self._sources.wall_s()
        for resolution in self._sources.resolutions():
            key = (resolution.registry, resolution.model)
            statuses.add_metric((*key, str(resolution.status.value)), 1)
            if resolution.last_ok_s is not None:
                staleness.add_metric(key, max(0.0, now_s - resolution.last_ok_s))
        yield staleness
        yield statuses


def _counters(
    name: str, help_text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], int]
) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family
