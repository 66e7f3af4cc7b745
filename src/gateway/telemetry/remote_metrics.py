"""Fleets of remote model servers: attempts, decisions about them, and the state of each endpoint."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.core.remote import EndpointState
from gateway.telemetry.histogram import SECONDS, BucketCounts, histogram_family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from gateway.core.remote import Address, EndpointView, Outcome

V = TypeVar("V")

_ENDPOINT: Final = ("fleet", "endpoint")
_PRUNE_AT: Final = 1024
"""Series of attempts from which on those of gone endpoints are looked for before a scrape does it."""


class RemoteMetrics(Collector):
    """A RemoteObserver; counts what becomes of attempts and shows endpoints as they are.

    Event loop only. Series are bounded by the endpoints that there are: those of one that is gone disappear,
    and its counts begin anew should it come back.

    Args:
        views: gives, for each fleet, its endpoints as they are now; reads local state only.
    """

    def __init__(self, views: Callable[[], Mapping[str, Sequence[EndpointView]]]) -> None:
        self._views = views
        self._attempts: dict[tuple[str, ...], BucketCounts] = {}
        self._ejections: dict[tuple[str, ...], int] = {}
        self._decisions: Counter[tuple[str, ...]] = Counter()

    def on_attempt(self, fleet: str, address: Address, outcome: Outcome, seconds: float) -> None:
        """Count one attempt."""
        key = (fleet, str(address), outcome.value)
        counts = self._attempts.get(key)
        if counts is None:
            if len(self._attempts) >= _PRUNE_AT:
                self._prune(self._views())
            counts = self._attempts[key] = BucketCounts(SECONDS)
        counts.observe(seconds)

    def on_decision(self, fleet: str, decision: str) -> None:
        """Count one decision."""
        self._decisions[fleet, decision] += 1

    def on_endpoint(self, fleet: str, address: Address, state: EndpointState, reason: str) -> None:  # noqa: ARG002 - reasons are unbounded
        """Count an ejection; states are read when scraped."""
        if state is EndpointState.EJECTED:
            key = (fleet, str(address))
            self._ejections[key] = self._ejections.get(key, 0) + 1

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        views = self._views()
        self._prune(views)
        yield from self._attempt_families()
        decisions = CounterMetricFamily(
            "gateway_remote_decisions",
            "Decisions about requests to a fleet.",
            labels=("fleet", "decision"),
        )
        for labels, count in self._decisions.items():
            decisions.add_metric(labels, count)
        yield decisions
        yield from self._endpoint_families(views)

    def _attempt_families(self) -> Iterable[Metric]:
        labels = (*_ENDPOINT, "outcome")
        attempts = CounterMetricFamily(
            "gateway_remote_attempts",
            "Attempts at an endpoint that are over, by how they ended.",
            labels=labels,
        )
        for key, counts in self._attempts.items():
            attempts.add_metric(key, counts.count)
        yield attempts
        yield histogram_family(
            "gateway_remote_attempt_seconds", "How long they took.", labels, self._attempts
        )

    def _endpoint_families(self, views: Mapping[str, Sequence[EndpointView]]) -> Iterable[Metric]:
        ejections = CounterMetricFamily(
            "gateway_remote_ejections", "Times that an endpoint was ejected.", labels=_ENDPOINT
        )
        states = GaugeMetricFamily(
            "gateway_remote_endpoint_state",
            "1 for the state in which the endpoint is.",
            labels=(*_ENDPOINT, "state"),
        )
        inflight = GaugeMetricFamily(
            "gateway_remote_inflight_attempts", "Attempts under way at an endpoint.", labels=_ENDPOINT
        )
        limit = GaugeMetricFamily(
            "gateway_remote_attempt_limit", "Attempts that may be under way there.", labels=_ENDPOINT
        )
        for fleet, endpoints in views.items():
            for view in endpoints:
                key = (fleet, str(view.address))
                ejections.add_metric(key, self._ejections.get(key, 0))
                for state in EndpointState:
                    states.add_metric((*key, state.value), state is view.state)
                inflight.add_metric(key, view.inflight)
                limit.add_metric(key, view.limit)
        yield from (states, inflight, limit, ejections)

    def _prune(self, views: Mapping[str, Sequence[EndpointView]]) -> None:
        present = {(fleet, str(view.address)) for fleet, endpoints in views.items() for view in endpoints}
        self._attempts = _of(self._attempts, present)
        self._ejections = _of(self._ejections, present)


def _of(series: Mapping[tuple[str, ...], V], present: set[tuple[str, str]]) -> dict[tuple[str, ...], V]:
    return {key: value for key, value in series.items() if (key[0], key[1]) in present}
