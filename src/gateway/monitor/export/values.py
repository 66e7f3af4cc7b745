"""A report's content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.monitor.pages.shown import (
        AlarmsShown,
        CoverageShown,
        Distribution,
        ModelShown,
        PerformanceShown,
        Period,
        Selection,
    )
    from gateway.monitor.values import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One model's stream over a period.

    Attributes:
        made_s: when, seconds since the epoch.
        selection: the stream.
        period: what it is about.
        window: whose scores it holds.
        model: the model with its versions and signals.
        scores: of all signals, at most 20,000, the latest.
        coverage: over the period.
        distributions: of the worst signals.
        performance: realised and estimated.
        alarms: of the period.
    """

    made_s: float
    selection: Selection
    period: Period
    window: str
    model: ModelShown
    scores: tuple[Score, ...]
    coverage: CoverageShown
    distributions: tuple[Distribution, ...]
    performance: PerformanceShown
    alarms: AlarmsShown
