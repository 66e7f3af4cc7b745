"""What a gateway's metrics page says of a run: batches, their time, and the event loop's lag."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from loadtests.served import metrics_text, read_counters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtests.served import Counters


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of the page.

    Attributes:
        counters: of the model.
        runs: batches run.
        run_s: time they took together: assembly, run and split.
        lag: upper bound in seconds -> measurements of the loop's lag at or below it, since the start.
    """

    counters: Counters
    runs: float
    run_s: float
    lag: Mapping[float, float]

    def figures_since(self, before: Reading) -> dict[str, float]:
        """Return the figures of what happened between `before` and this; see thresholds.FIGURES."""
        counted = self.counters.since(before.counters)
        runs = self.runs - before.runs
        found: dict[str, float] = {}
        if counted.batches:
            found["mean_batch"] = counted.rows / counted.batches
        if runs:
            found["batch_ms"] = (self.run_s - before.run_s) / runs * 1e3
        lag = {bound: count - before.lag.get(bound, 0.0) for bound, count in self.lag.items()}
        if lag and max(lag.values()):
            found["loop_lag_p999_ms"] = quantile(lag, 0.999) * 1e3
        return found


def quantile(cumulative: Mapping[float, float], share: float) -> float:
    """Return the least bound at or below which `share` of the measurements lie."""
    total = max(cumulative.values())
    return min(bound for bound, count in cumulative.items() if count >= share * total)


def read_page(url: str, model: str) -> Reading:
    """Read a metrics page now."""
    return parse_page(metrics_text(url), model)


def parse_page(text: str, model: str) -> Reading:
    """Return what a page's text says of a model."""
    sums: dict[str, float] = defaultdict(float)
    lag: dict[float, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "gateway_loop_lag_seconds_bucket":
                lag[float(sample.labels["le"])] = sample.value
            elif sample.labels.get("model") == model:
                sums[sample.name] += sample.value
    runs, run_s = (sums[f"gateway_compute_duration_seconds_{part}"] for part in ("count", "sum"))
    return Reading(read_counters(text, model), runs, run_s, lag)
