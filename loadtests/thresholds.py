"""Conditions on figures, as scenario files state them: `p99_ms: "< 20"`."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FIGURES: Final[Mapping[str, str]] = {
    "requests_per_s": "good answers per second",
    "rows_per_s": "rows in them per second",
    "offered_per_s": "requests due per second",
    "goodput_ratio": "good answers to requests due",
    "goodput_of_peak": "good answers per second, to the mean peak before and after (`of_peak`)",
    "p50_ms": "median latency of good answers",
    "p90_ms": "90th percentile",
    "p99_ms": "99th percentile",
    "p999_ms": "99.9th percentile",
    "max_ms": "largest latency of good answers",
    "rejected_p99_ms": "99th percentile of the time until a refusal",
    "p99_of_service": "p99 to the mean time of a batch's run",
    "errors": "whatever went wrong: failures, wrong answers, requests the generator could not send",
    "rejected": "requests refused as too many",
    "expired": "requests answered that their deadline had passed",
    "dropped": "requests that were due and never sent",
    "cpu_us_per_request": "CPU time of the server's process tree per good answer, microseconds",
    "peak_rss_mib": "most resident memory of the server's process tree",
    "rss_growth_mib": "resident memory after the run less that before it",
    "loop_lag_p999_ms": "99.9th percentile of the event loop's lag, upper bound of its bucket",
    "mean_batch": "rows per run of the model",
    "batch_ms": "mean time of a batch's run",
    "foreign": "share of the server's core that other programs took",
    "steal": "share of it that the host took",
    "generator_idle": "share of the generator's core left over",
}
"""Every figure of a run. One that could not be measured is absent and meets no threshold."""

_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION: Final = re.compile(r"\s*(<=|>=|==|<|>)\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*")


class ThresholdError(ValueError):
    """A condition cannot be read."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A comparison with a number."""

    sign: str
    bound: float

    def holds(self, value: float) -> bool:
        """Return whether `value` meets it."""
        return _OPERATORS[self.sign](value, self.bound)


def parse(condition: str) -> Threshold:
    """Read a condition.

    Raises:
        ThresholdError: it is no sign and number.
    """
    if (found := _CONDITION.fullmatch(condition)) is None:
        raise ThresholdError(f"cannot read {condition!r}: expected a sign and a number, as in '< 20'")
    return Threshold(found[1], float(found[2]))


def missed(thresholds: Mapping[str, str], figures: Mapping[str, float]) -> list[str]:
    """Return a sentence for each threshold that the figures do not meet, or that was not measured."""
    sentences = []
    for figure, condition in thresholds.items():
        value = figures.get(figure)
        if value is None:
            sentences.append(f"{figure} was not measured, asked for {condition}")
        elif not parse(condition).holds(value):
            sentences.append(f"{figure} is {value:,.4g}, asked for {condition}")
    return sentences
