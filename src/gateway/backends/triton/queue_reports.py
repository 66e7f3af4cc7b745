"""How long requests wait at an endpoint, from the counters of Triton's statistics extension. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.backends.remote.connection import QueueReport
from gateway.backends.triton.versions import Loaded

if TYPE_CHECKING:
    from collections.abc import Mapping


def counts_of(statistics: Any) -> dict[Loaded, tuple[int, int, int]]:
    """Return waited ns, computed ns and requests of each version."""
    found = {}
    for model in statistics:
        stats = model.inference_stats
        computed = stats.compute_input.ns + stats.compute_infer.ns + stats.compute_output.ns
        if model.version.isdigit():
            found[Loaded(model.name, int(model.version))] = (stats.queue.ns, computed, stats.success.count)
    return found


def report(
    before: Mapping[Loaded, tuple[int, int, int]], now: Mapping[Loaded, tuple[int, int, int]]
) -> QueueReport:
    """Return the averages of what was counted in between; counters that fell began anew."""
    waited = computed = count = 0
    for key, counts in now.items():
        old = before.get(key, (0, 0, 0))
        if counts[2] < old[2]:
            old = (0, 0, 0)
        waited += max(0, counts[0] - old[0])
        computed += max(0, counts[1] - old[1])
        count += counts[2] - old[2]
    if not count:
        return QueueReport(0.0, 0.0, 0)
    return QueueReport(waited / count / 1e9, computed / count / 1e9, count)
