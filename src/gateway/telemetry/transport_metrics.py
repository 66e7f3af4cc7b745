"""Limits of the transports that clients met."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric


class TransportMetrics(Collector):
    """Counts how often each limit fired. Event loop only.

    Invariant: label values are the names that transports give their limits, a closed set.
    """

    def __init__(self) -> None:
        self._fired: Counter[str] = Counter()

    def expect(self, limits: Iterable[str]) -> None:
        """Show these limits from the start, as never met."""
        for limit in limits:
            self._fired[limit] += 0

    def limit_fired(self, limit: str) -> None:
        """Count one refusal, reset or disconnection because of `limit`."""
        self._fired[limit] += 1

    def collect(self) -> Iterable[Metric]:
        """Render; called by the registry when scraped."""
        family = CounterMetricFamily(
            "gateway_grpc_limits",
            "Calls refused or reset, and connections closed, by the limit of the native transport they met.",
            labels=("limit",),
        )
        for limit, count in self._fired.items():
            family.add_metric((limit,), count)
        yield family
