"""What is counted of registries and the artifact cache."""

from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from gateway.core.clock import LoopClock
from gateway.core.types import VersionId, VersionOrigin, VersionState, VersionStatus
from gateway.registry.cache import CollectReport
from gateway.registry.directory_registry import DirectoryOptions, DirectoryRegistry
from gateway.registry.following import ModelResolution, PollOutcome, ResolutionStatus, SourcedModel
from gateway.registry.reference import parse_reference
from gateway.registry.resolutions import ResolutionStore
from gateway.registry.source import RegistrySource, RegistrySourceOptions, SourceParts
from gateway.telemetry.metrics import render_families
from gateway.telemetry.registry_metrics import RegistryMetrics, RegistrySources, StalenessMetrics
from gateway.testing import VirtualClock
from tests.registry.fakes import FakeCache
from tests.telemetry.builders import Samples

FRAUD = VersionId("fraud", 3, "d")
ORIGIN = VersionOrigin(registry="mlflow", source="mlflow://fraud@champion", label="3")
FETCHING = VersionStatus(id=FRAUD, state=VersionState.FETCHING, origin=ORIGIN)
CHANGED, UNCHANGED = PollOutcome.CHANGED, PollOutcome.UNCHANGED


def samples(*collectors: RegistryMetrics | StalenessMetrics) -> Samples:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return Samples(render_families(list(registry.collect()), "").body)


def seen(metrics: RegistryMetrics, *states: VersionState) -> None:
    for state in states:
        metrics.on_transition(replace(FETCHING, state=state))


def test_polls_are_counted_by_outcome() -> None:
    """How many, by model and outcome; how long, by registry."""
    metrics = RegistryMetrics(VirtualClock())
    for outcome in (CHANGED, UNCHANGED, UNCHANGED, PollOutcome.TIMEOUT):
        metrics.on_poll("mlflow", "fraud", outcome, 0.2)
    page = samples(metrics)
    labels = {"registry": "mlflow", "model": "fraud"}
    assert page.value("gateway_registry_polls_total", **labels, outcome="unchanged") == 2
    assert page.value("gateway_registry_polls_total", **labels, outcome="timeout") == 1
    assert page.value("gateway_registry_poll_seconds_count", registry="mlflow") == 4
    assert page.value("gateway_registry_poll_seconds_bucket", registry="mlflow", le="0.1") == 0
    assert page.value("gateway_registry_poll_seconds_bucket", registry="mlflow", le="0.25") == 4


def test_resolving_runs_from_the_look_to_the_version() -> None:
    """The time of the look itself is in it, and a version counts once."""
    clock = VirtualClock()
    metrics = RegistryMetrics(clock)
    metrics.on_poll("mlflow", "fraud", CHANGED, 2.0)
    clock.advance(0.5)
    seen(metrics, VersionState.NEW, VersionState.NEW)
    page = samples(metrics)
    assert page.value("gateway_registry_resolve_seconds_count", registry="mlflow") == 1
    assert page.value("gateway_registry_resolve_seconds_sum", registry="mlflow") == 2.5


def test_a_change_without_a_version_is_not_resolved_later() -> None:
    """An alias that moved back to what serves brings nothing new; what is loaded later is another matter."""
    metrics = RegistryMetrics(VirtualClock())
    metrics.on_poll("mlflow", "fraud", CHANGED, 2.0)
    metrics.on_poll("mlflow", "fraud", UNCHANGED, 0.1)
    seen(metrics, VersionState.NEW)
    assert samples(metrics).value("gateway_registry_resolve_seconds_count", registry="mlflow") is None


def test_fetched_bytes_leave_out_what_an_earlier_attempt_left() -> None:
    """Counting starts where the first attempt ended; bytes that are done again count again."""
    clock = VirtualClock()
    metrics = RegistryMetrics(clock)
    seen(metrics, VersionState.FETCHING)
    for done, total in ((0, 0), (40, 100), (60, 100), (50, 100), (100, 100)):
        metrics.on_progress(replace(FETCHING, done_bytes=done, total_bytes=total))
    clock.advance(3.0)
    seen(metrics, VersionState.VERIFYING)
    metrics.on_progress(replace(FETCHING, state=VersionState.VERIFYING, done_bytes=0, total_bytes=100))
    page = samples(metrics)
    assert page.value("gateway_registry_fetched_bytes_total", registry="mlflow", model="fraud") == 70
    labels = {"registry": "mlflow", "outcome": "ok"}
    assert page.value("gateway_registry_fetch_seconds_count", **labels) == 1
    assert page.value("gateway_registry_fetch_seconds_sum", **labels) == 3.0


def test_bytes_count_where_the_total_is_not_known() -> None:
    """A registry that tells no sizes is no reason to take a fetch for a find in the cache."""
    metrics = RegistryMetrics(VirtualClock())
    seen(metrics, VersionState.FETCHING)
    for done in (0, 30, 80):
        metrics.on_progress(replace(FETCHING, done_bytes=done))
    seen(metrics, VersionState.VERIFYING)
    page = samples(metrics)
    assert page.value("gateway_registry_fetched_bytes_total", registry="mlflow", model="fraud") == 80
    assert page.value("gateway_registry_fetch_seconds_count", registry="mlflow", outcome="ok") == 1


def test_how_fetches_end() -> None:
    """Found in the cache, failed, or given up; a version of a local repository is none."""
    metrics = RegistryMetrics(VirtualClock())
    for end in (VersionState.VERIFYING, VersionState.FAILED, VersionState.DRAINING):
        seen(metrics, VersionState.FETCHING)
        metrics.on_progress(FETCHING)
        seen(metrics, end)
    metrics.on_transition(replace(FETCHING, origin=None))
    metrics.on_transition(replace(FETCHING, origin=None, state=VersionState.FAILED))
    found = list(samples(metrics).labels("gateway_registry_fetch_seconds_count"))
    outcomes = {labels["outcome"] for labels in found}
    assert outcomes == {"cached", "failed", "withdrawn"}
    assert samples(metrics).value("gateway_registry_fetched_bytes_total", registry="mlflow") is None


def test_the_cache_is_as_the_last_collection_left_it() -> None:
    """What went is added up, what is there is the last report's."""
    metrics = RegistryMetrics(VirtualClock())
    assert samples(metrics).value("gateway_cache_bytes") is None
    first = CollectReport({"a": "age", "b": "bytes"}, 300, 4, 5000, 2, 0)
    metrics.on_collected(first)
    metrics.on_collected(replace(first, removed={"c": "age"}, freed_bytes=7, kept=3, kept_bytes=4993))
    page = samples(metrics)
    assert page.value("gateway_cache_collected_total", reason="age") == 2
    assert page.value("gateway_cache_collected_total", reason="bytes") == 1
    assert page.value("gateway_cache_freed_bytes_total") == 307
    assert page.value("gateway_cache_artifacts") == 3
    assert page.value("gateway_cache_pinned_artifacts") == 2
    assert page.value("gateway_cache_bytes") == 4993


def resolution(model: str, status: ResolutionStatus, last_ok_s: float | None) -> ModelResolution:
    return ModelResolution(
        model=model,
        registry="mlflow",
        reference=f"mlflow://{model}",
        status=status,
        since_s=0.0,
        last_ok_s=last_ok_s,
        message="",
        labels=(),
        aliases={},
    )


def test_staleness_counts_from_the_last_good_answer() -> None:
    """Seconds for a model that was ever found, and the status of each."""
    standing = [
        resolution("fraud", ResolutionStatus.STALE, 900.0),
        resolution("new", ResolutionStatus.ERROR, None),
        resolution("ahead", ResolutionStatus.OK, 1001.0),
    ]
    page = samples(StalenessMetrics(RegistrySources(resolutions=lambda: standing, wall_s=lambda: 1000.0)))
    name = "gateway_registry_staleness_seconds"
    assert page.value(name, registry="mlflow", model="fraud") == 100
    assert page.value(name, registry="mlflow", model="new") is None
    assert page.value(name, registry="mlflow", model="ahead") == 0, "a clock that was set back"
    assert page.value("gateway_registry_status", registry="mlflow", model="fraud", status="stale") == 1
    assert page.value("gateway_registry_status", registry="mlflow", model="new", status="error") == 1


async def test_a_source_tells_of_its_looks(tmp_path: Path) -> None:
    """A real source over a directory has its polls counted, and where it stands shown."""
    version = tmp_path / "models" / "fraud" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"model")
    clock = LoopClock()
    metrics = RegistryMetrics(clock)
    registry = DirectoryRegistry("models", tmp_path / "models", DirectoryOptions(settle_s=0))
    model = SourcedModel(name="fraud", reference=parse_reference("models/fraud@latest", tmp_path))
    parts = SourceParts(
        registry, FakeCache(tmp_path / "cache"), ResolutionStore(tmp_path / "resolutions"), clock
    )
    source = RegistrySource("models", [model], parts, RegistrySourceOptions(observer=metrics))
    await source.snapshot()
    await source.snapshot()
    await registry.aclose()
    now_s = source.resolutions()[0].last_ok_s
    assert now_s is not None
    staleness = StalenessMetrics(RegistrySources(resolutions=source.resolutions, wall_s=lambda: now_s + 5))
    page = samples(metrics, staleness)
    labels = {"registry": "models", "model": "fraud"}
    assert page.value("gateway_registry_polls_total", **labels, outcome="changed") == 1
    assert page.value("gateway_registry_polls_total", **labels, outcome="unchanged") == 1
    assert page.value("gateway_registry_staleness_seconds", **labels) == 5
    assert page.value("gateway_registry_status", **labels, status="ok") == 1
