"""Rollouts and routes: shares, what came of the requests of each arm and shadow, phases, gates, files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.core.rollout import PPM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from gateway.core.evidence import ArmCounts, ShadowCounts
    from gateway.core.types import VersionId


class ArmView(Protocol):
    """One arm of a route."""

    @property
    def name(self) -> str:
        """As its file has it."""

    @property
    def version(self) -> VersionId:
        """What answers."""

    @property
    def weight_ppm(self) -> int:
        """Its share."""

    @property
    def counts(self) -> ArmCounts:
        """What came of its requests since its step began."""


class RouteView(Protocol):
    """One route."""

    @property
    def arms(self) -> Sequence[ArmView]:
        """Its arms."""

    @property
    def unkeyed(self) -> int:
        """Requests without a key."""

    @property
    def overridden(self) -> int:
        """Requests that chose their arm."""

    @property
    def overrides_refused(self) -> int:
        """Requests whose choice was ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSources:
    """Where a scrape looks; every callable is called on the event loop and reads local state only.

    Attributes:
        routes: in force, by model.
        shadows: totals by (model, rollout_id, step) and shadow.
        rollouts: documents, as administration shows them.
        files: likewise.
    """

    routes: Callable[[], Mapping[str, RouteView]]
    shadows: Callable[[], Mapping[tuple[str, str, int], Mapping[str, ShadowCounts]]]
    rollouts: Callable[[], Sequence[Mapping[str, Any]]]
    files: Callable[[], Sequence[Mapping[str, Any]]]


class RolloutMetrics(Collector):
    """Gauges and counters read from their owners when scraped; counts begin anew with every step."""

    def __init__(self, sources: RolloutSources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        yield from _routes(self._sources.routes())
        yield from _shadows(self._sources.shadows())
        yield from _rollouts(self._sources.rollouts())
        accepted = GaugeMetricFamily(
            "gateway_rollout_file_accepted",
            "1 where the newest content of a rollout file is in force, 0 where an older one is, or none.",
            labels=["file"],
        )
        for file in self._sources.files():
            accepted.add_metric([file["path"]], 0.0 if file["error"] else 1.0)
        yield accepted


def _routes(routes: Mapping[str, RouteView]) -> Iterable[Metric]:
    share = GaugeMetricFamily(
        "gateway_route_share",
        "Share of the keys that an arm gets, 0 to 1.",
        labels=["model", "arm", "version"],
    )
    requests = CounterMetricFamily(
        "gateway_route_requests",
        "Requests by the arm that they were assigned to.",
        labels=["model", "arm", "outcome"],
    )
    chosen = CounterMetricFamily(
        "gateway_route_unusual_requests",
        "Requests without a key, that chose their arm, or that were not allowed to.",
        labels=["model", "kind"],
    )
    for model, route in routes.items():
        for arm in route.arms:
            share.add_metric([model, arm.name, str(arm.version.number)], arm.weight_ppm / PPM)
            counts = arm.counts
            outcomes = {
                "ok": counts.requests - counts.errors,
                "error": counts.errors,
                "fallback": counts.fallbacks,
                "crash": counts.crashes,
                "not_counted": counts.requests_all - counts.requests,
            }
            for outcome, count in outcomes.items():
                requests.add_metric([model, arm.name, outcome], count)
        chosen.add_metric([model, "unkeyed"], route.unkeyed)
        chosen.add_metric([model, "overridden"], route.overridden)
        chosen.add_metric([model, "override_refused"], route.overrides_refused)
    yield from (share, requests, chosen)


def _shadows(totals: Mapping[tuple[str, str, int], Mapping[str, ShadowCounts]]) -> Iterable[Metric]:
    copies = CounterMetricFamily(
        "gateway_shadow_copies",
        "Copies of requests by what became of them; dropped ones by reason.",
        labels=["model", "shadow", "outcome"],
    )
    for (model, _, _), shadows in totals.items():
        for name, counts in shadows.items():
            outcomes = {
                "agreed": counts.compared - counts.disagreed,
                "disagreed": counts.disagreed,
                "failed": counts.failed,
                **{f"dropped_{reason}": count for reason, count in counts.dropped.items()},
            }
            for outcome, count in outcomes.items():
                copies.add_metric([model, name, outcome], count)
    yield copies


def _rollouts(documents: Sequence[Mapping[str, Any]]) -> Iterable[Metric]:
    phase = GaugeMetricFamily(
        "gateway_rollout_phase", "1 for the phase that a rollout is in.", labels=["rollout", "model", "phase"]
    )
    share = GaugeMetricFamily(
        "gateway_rollout_canary_share", "The canary's share, 0 to 1.", labels=["rollout"]
    )
    gates = GaugeMetricFamily(
        "gateway_rollout_gate_evidence",
        "Evidence of a gate as a share of what decides it, for harm and for a pass; 1 is decided.",
        labels=["rollout", "gate", "for"],
    )
    for document in documents:
        name = document["name"]
        phase.add_metric([name, document["model"], document["phase"]], 1.0)
        share.add_metric([name], document["weight_ppm"] / PPM)
        for gate in document["gates"]:
            for what in ("harm", "pass"):
                evidence, bound = (gate["numbers"].get(f"log_{kind}_{what}") for kind in ("e", "bound"))
                if evidence is not None and bound:
                    gates.add_metric(
                        [name, f"{gate['group']}/{gate['name']}", what], max(0.0, evidence / bound)
                    )
    yield from (phase, share, gates)
