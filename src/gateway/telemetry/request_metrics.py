"""Requests as clients see them: how many, how they ended, how long they took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.telemetry.histogram import SECONDS, BucketCounts, histogram_family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.core import Metric

    from gateway.telemetry.outcome import Outcome

UNKNOWN_MODEL: Final = "_unknown"
"""Label of every model name that is not served here: names that clients make up must not become series."""

_LABELS: Final = ("model", "version", "outcome")


class RequestMetrics(Collector):
    """Counts and times of requests by model, version and outcome. Event loop only.

    Invariant: label values are model names and versions that exist here, UNKNOWN_MODEL, and an empty
    version (unknown, or none asked for and none chosen), so the number of series is bounded by what is
    served.

    Args:
        knows: whether a model (version empty) or one of its versions exists here.

    Attributes:
        inflight: requests begun and not finished.
    """

    def __init__(self, knows: Callable[[str, str], bool]) -> None:
        self.inflight = 0
        self._knows = knows
        self._series: dict[tuple[str, ...], BucketCounts] = {}

    def finished(self, model: str, version: str, outcome: Outcome, seconds: float) -> None:
        """Count one request that took `seconds` from arrival to its answer."""
        # The plain text: the hash of an enumeration's member is computed in Python each time.
        series = self._series.get((model, version, outcome._value_))
        if series is None:
            series = self._bounded(model, version, outcome)
        series.observe(seconds)

    def forget(self, model: str, version: str) -> None:
        """Drop the series of a version that is gone."""
        for key in [k for k in self._series if k[:2] == (model, version)]:
            del self._series[key]

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        series = dict(self._series)
        yield histogram_family(
            "gateway_request_duration_seconds", "Arrival of the last byte to the answer.", _LABELS, series
        )
        requests = CounterMetricFamily("gateway_requests", "Requests answered, by how.", labels=_LABELS)
        for values, counts in series.items():
            requests.add_metric(values, counts.count)
        yield requests
        yield GaugeMetricFamily(
            "gateway_inflight_requests", "Requests begun and not answered.", value=self.inflight
        )

    def _bounded(self, model: str, version: str, outcome: Outcome) -> BucketCounts:
        if not self._knows(model, ""):
            model, version = UNKNOWN_MODEL, ""
        elif not self._knows(model, version):
            version = ""
        return self._series.setdefault((model, version, outcome.value), BucketCounts(SECONDS))
