"""Histograms that cost a bisection per observation: counted in plain integers, rendered only when scraped.

`prometheus_client.Histogram.observe` walks its bounds in Python and takes two locks; the hot path lives on
one event loop and needs neither.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SECONDS: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Bounds for times of requests and runs, 50 us to 10 s."""
LOAD_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Bounds for loading and warming a model."""
LAG_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Bounds for event-loop lag; 5 ms and 25 ms are the budget's p99.9 and maximum."""
ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""Bounds for rows of a batch."""


class BucketCounts:
    """Observations of one series, by bucket.

    Invariant: `counts[i]` holds the observations in `(bounds[i-1], bounds[i]]`, the last one those above
    every bound. Written on the event loop only.

    Attributes:
        bounds: upper bounds, ascending, inclusive, without infinity.
        counts: one more than bounds.
        total: sum of all observed values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_each(self, values: Iterable[float]) -> None:
        """Count several values."""
        for value in values:
            self.observe(value)

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def cumulative(self) -> list[int]:
        """Return, for each bound and then for infinity, how many values are at or below it."""
        return list(accumulate(self.counts))


def histogram_family(
    name: str, help_text: str, labels: Sequence[str], series: Mapping[tuple[str, ...], BucketCounts]
) -> HistogramMetricFamily:
    """Render series of the same bounds, by their label values, as one family; about 15 us per series."""
    family = HistogramMetricFamily(name, help_text, labels=labels)
    bounds: tuple[str, ...] = ()
    for values, counts in series.items():
        bounds = bounds or _bound_texts(counts.bounds)
        own = dict(zip(labels, values, strict=True))
        cumulative = counts.cumulative()
        for bound, count in zip(bounds, cumulative, strict=True):
            family.add_sample(f"{name}_bucket", {**own, "le": bound}, count)
        family.add_sample(f"{name}_count", own, cumulative[-1])
        family.add_sample(f"{name}_sum", own, counts.total)
    return family


def _bound_texts(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(floatToGoString(bound) for bound in (*bounds, float("inf")))  # type: ignore[no-untyped-call]
