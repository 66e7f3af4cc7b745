"""Loads of model versions: how many, how long and in which steps, how many failed; and which names exist."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from gateway.core.types import VersionState
from gateway.telemetry.histogram import LOAD_SECONDS, BucketCounts, histogram_family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from gateway.core.types import VersionStatus

_GONE: Final = (VersionState.UNLOADED, VersionState.FAILED)
_STEPS: Final[Mapping[VersionState, str]] = {
    VersionState.NEW: "wait",
    VersionState.FETCHING: "fetch",
    VersionState.VERIFYING: "verify",
    VersionState.LOADING: "load",
    VersionState.CHECKING: "check",
    VersionState.WARMING: "warm_up",
    VersionState.TESTING: "golden_test",
}

STEP_SECONDS: Final = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0)
"""Bounds for the steps of a load, few: there are seven steps to each model."""


class LifecycleMetrics(Collector):
    """A LifecycleObserver that counts loads and failures by model, and remembers what exists.

    Event loop only. Two loads of one version number (changed files) may overlap; the number is gone when
    the last one is.

    Args:
        on_gone: told (model, version) when a version number is gone, so that its series can be dropped.
    """

    def __init__(self, on_gone: Callable[[str, str], None]) -> None:
        self._on_gone = on_gone
        self._models: set[str] = set()
        self._live: dict[tuple[str, str], set[str]] = {}
        self._loads: dict[tuple[str, ...], BucketCounts] = {}
        self._steps: dict[tuple[str, ...], BucketCounts] = {}
        self._failures: Counter[tuple[str, ...]] = Counter()
        self._last_load_s: dict[tuple[str, str], float] = {}

    def on_transition(self, status: VersionStatus) -> None:
        """Take note of a state entered."""
        model, number, digest = status.id
        key = (model, str(number))
        self._models.add(model)
        if status.state is VersionState.FAILED:
            self._failures[(model,)] += 1
        if status.state in _GONE:
            self._drop(key, digest)
        else:
            self._live.setdefault(key, set()).add(digest)

    def on_loaded(self, status: VersionStatus, seconds: float) -> None:
        """Take note of a load that ended well, and of what its time went into."""
        model = status.id.model
        for step in status.steps:
            labels = (model, _STEPS[step.state])
            self._steps.setdefault(labels, BucketCounts(STEP_SECONDS)).observe(step.seconds)
        self._loads.setdefault((model,), BucketCounts(LOAD_SECONDS)).observe(seconds)
        self._last_load_s[model, str(status.id.number)] = seconds

    def knows(self, model: str, version: str) -> bool:
        """Whether a model, or with `version` that version of it, exists here."""
        return (model, version) in self._live if version else model in self._models

    def last_load_s(self) -> dict[tuple[str, str], float]:
        """Return (model, version) -> seconds its last load took, for versions that are loaded."""
        return dict(self._last_load_s)

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        yield histogram_family(
            "gateway_model_load_duration_seconds",
            "Loading and warming that ended well.",
            ("model",),
            self._loads,
        )
        yield histogram_family(
            "gateway_model_step_seconds",
            "Steps of loads that ended well.",
            ("model", "step"),
            self._steps,
        )
        loads = CounterMetricFamily("gateway_model_loads", "Loads that ended well.", labels=("model",))
        for labels, counts in self._loads.items():
            loads.add_metric(labels, counts.count)
        yield loads
        failures = CounterMetricFamily("gateway_model_load_failures", "Loads that failed.", labels=("model",))
        for labels, count in self._failures.items():
            failures.add_metric(labels, count)
        yield failures

    def _drop(self, key: tuple[str, str], digest: str) -> None:
        digests = self._live.get(key, set())
        digests.discard(digest)
        if not digests:
            self._live.pop(key, None)
            self._last_load_s.pop(key, None)
            self._on_gone(*key)
