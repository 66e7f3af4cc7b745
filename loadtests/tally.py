"""What a generator counted in one run, whichever generator it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from loadtests.peers.base import WireAnswer

QUANTILES: Final[Mapping[str, float]] = {"p50": 50, "p90": 90, "p99": 99, "p999": 99.9, "max": 100}


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer kept to be checked: which of the run's tensors was asked, and what came."""

    tensor: int
    answer: WireAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Counts and latencies.

    Attributes:
        due: requests that were to be sent; in a closed loop, those sent.
        good: answered with the protocol's success.
        seconds: from the first request to the last answer, at least the run's length in an open loop.
        latency_ms: quantile name of `QUANTILES` -> milliseconds, of good answers; in an open loop counted
            from when the request was due.
        rejected: refused as too many (HTTP 429 or 503; gRPC RESOURCE_EXHAUSTED or UNAVAILABLE).
        rejected_p99_ms: time to those refusals.
        expired: HTTP 504, gRPC DEADLINE_EXCEEDED.
        failed: every other end: another status, a broken connection, no answer.
        dropped: due and never sent.
        problems: what went wrong, in words, a few of them.
        samples: some good answers.
        generator_busy: share of its core that the generator itself took, where it knows.
    """

    due: int
    good: int
    seconds: float
    latency_ms: Mapping[str, float]
    rejected: int = 0
    rejected_p99_ms: float | None = None
    expired: int = 0
    failed: int = 0
    dropped: int = 0
    problems: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = field(default=(), repr=False)
    generator_busy: float | None = None


def quantiles_ms(latencies_s: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the quantiles of latencies in seconds; none of none."""
    if not len(latencies_s):
        return {}
    values = np.percentile(latencies_s, list(QUANTILES.values())) * 1e3
    return dict(zip(QUANTILES, map(float, values), strict=True))
