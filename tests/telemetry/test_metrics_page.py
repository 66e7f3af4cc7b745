"""Holds docs/metrics.md against the page of a composed GatewayMetrics."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.errors import Overloaded
from gateway.core.evidence import ArmCounts, RoutePlan, ShadowCounts
from gateway.core.remote import Address, EndpointState, EndpointView
from gateway.core.remote import Outcome as AttemptOutcome
from gateway.core.rollout import Assignment, HashSpec
from gateway.core.types import CPU, StepTiming, VersionOrigin, VersionState
from gateway.registry.cache import CollectReport
from gateway.registry.following import ModelResolution, PollOutcome, ResolutionStatus
from gateway.routing.views import ArmView, RouteView
from gateway.telemetry.memory_metrics import MemorySources
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.outcome import Outcome
from gateway.telemetry.registry_metrics import RegistrySources
from gateway.telemetry.remote_metrics import RemoteMetrics
from gateway.telemetry.rollout_metrics import RolloutSources
from gateway.telemetry.server_metrics import QueueView, ServerSources
from gateway.testing import VirtualClock
from tests.telemetry.builders import DIGITS, Catalog, Served, batch, request, status, text_page

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `((?:gateway|nv)_\w+)` \| (\w+) \| ([^|]*)\|", re.MULTILINE)

Facts = Mapping[str, tuple[str, frozenset[str]]]
"""Name as on the page -> type, label names."""


class EmptyQueue:
    """A VersionBatcher's counts."""

    queued_requests = queued_rows = running_rows = 0


@pytest.fixture
def scraped() -> Facts:
    """Every family of ours, each with a sample."""
    metrics = GatewayMetrics(VirtualClock())
    steps = [StepTiming(state=VersionState.LOADING, began_s=7.0, seconds=0.5)]
    ready = status(VersionState.READY, steps=steps)
    metrics.lifecycle.on_transition(ready)
    metrics.lifecycle.on_loaded(ready, 0.5)
    metrics.lifecycle.on_transition(status(VersionState.FAILED, DIGITS._replace(number=2)))
    metrics.batches.on_batch(batch([request()]))
    metrics.batches.on_rejected(DIGITS, request(), Overloaded("full"))
    metrics.transport.limit_fired("resets")
    metrics.requests.finished("digits", "1", Outcome.OK, 0.001)
    queue = QueueView(DIGITS, CPU, EmptyQueue())  # type: ignore[arg-type]  # its counts are all that is read
    catalog = Catalog(versions=[Served()], statuses=[ready])
    metrics.lazy.on_cold_start("digits", 0.5, loaded=True)
    metrics.lazy.on_evicted("digits", "memory")
    _use_registries(metrics)
    metrics.watch(ServerSources(catalog=catalog, queues=lambda: [queue], inflight_bytes=lambda: 0))
    metrics.watch_rollouts(_rollout_sources())
    metrics.watch_memory(
        MemorySources(
            devices=lambda: [(CPU, 1, 2)],
            refusals=lambda: {CPU: 1},
            requests=lambda: {"digits": 2},
            waited=lambda: {"digits": 1},
            awake=lambda: ["digits"],
        )
    )
    metrics.watch_fleets(_fleet_metrics())
    return dict(_families(text_page(metrics).decode()))


def _fleet_metrics() -> RemoteMetrics:
    """Of one endpoint, ejected after one attempt."""
    endpoint = Address("10.0.0.1", 8001)
    view = EndpointView(address=endpoint, state=EndpointState.EJECTED)
    fleets = RemoteMetrics(lambda: {"fleet-a": [view]})
    fleets.on_attempt("fleet-a", endpoint, AttemptOutcome.FAILED, 0.1)
    fleets.on_decision("fleet-a", "retry")
    fleets.on_endpoint("fleet-a", endpoint, EndpointState.EJECTED, "5 failures in a row")
    return fleets


def _use_registries(metrics: GatewayMetrics) -> None:
    """Look, fetch and collect once."""
    registries = metrics.registries
    registries.on_poll("mlflow", "digits", PollOutcome.CHANGED, 0.1)
    origin = VersionOrigin(registry="mlflow", source="mlflow://digits", label="1")
    for state in (VersionState.NEW, VersionState.FETCHING):
        registries.on_transition(status(state, origin=origin))
    registries.on_progress(status(VersionState.FETCHING, origin=origin, done_bytes=5))
    registries.on_transition(status(VersionState.VERIFYING, origin=origin))
    registries.on_collected(CollectReport({"a": "age"}, 1, 2, 3, 1, 0))
    standing = ModelResolution(
        model="digits",
        registry="mlflow",
        reference="mlflow://digits",
        status=ResolutionStatus.OK,
        since_s=0.0,
        last_ok_s=0.0,
        message="",
        labels=("1",),
        aliases={},
    )
    metrics.watch_registries(RegistrySources(resolutions=lambda: [standing], wall_s=lambda: 1.0))


def _families(page: str) -> Iterator[tuple[str, tuple[str, frozenset[str]]]]:
    for family in text_string_to_metric_families(page):
        if not family.name.startswith(("gateway_", "nv_")):
            continue
        assert family.samples, f"{family.name} has no sample to take labels from"
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        total = family.type == "counter" and family.name.startswith("gateway_")
        yield family.name + "_total" * total, (family.type, labels)


def _rollout_sources() -> RolloutSources:
    """A route, a shadow, a rollout and a file, each with something in every family."""
    arm = ArmView(name="stable", version=DIGITS, weight_ppm=1_000_000, counts=ArmCounts())
    plan = RoutePlan(model="digits", arms=(), assign=Assignment(HashSpec("salt")))
    route = RouteView(plan=plan, arms=(arm,), unkeyed=0, overridden=0, overrides_refused=0, saturated=0)
    numbers = {"log_e_harm": 1.0, "log_bound_harm": 2.0}
    gate = {"group": "safety", "name": "errors", "numbers": numbers}
    rollout = {"name": "r", "model": "digits", "phase": "baking", "weight_ppm": 0, "gates": [gate]}
    return RolloutSources(
        routes=lambda: {"digits": route},
        shadows=lambda: {("digits", "r-1", 0): {"canary": ShadowCounts()}},
        rollouts=lambda: [rollout],
        files=lambda: [{"path": "r.yaml", "error": ""}],
    )


def test_the_page_lists_exactly_what_is_exported(scraped: Facts) -> None:
    """Names, types and labels in docs/metrics.md are those of the page that a scraper reads."""
    rows = ROW.findall(PAGE.read_text())
    documented = {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert documented == scraped
    assert len(documented) == len(rows), "a metric is described twice"


def test_the_page_lists_every_outcome() -> None:
    """The words that `outcome` may hold are those in the table of docs/metrics.md."""
    table = PAGE.read_text().partition("| outcome |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [outcome.value for outcome in Outcome]
