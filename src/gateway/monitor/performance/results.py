"""What the performance part answers, by stream, segment and window. Metrics are weighted (1/p)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.monitor.profile.reference import TaskKind
    from gateway.monitor.values import StreamKey

HIGHER_IS_BETTER: Final = frozenset({
    "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1", "roc_auc", "r2", "ndcg",
    "mrr",
})  # fmt: skip
"""Metrics of which less is worse; of `bias` any change is, of all others more is."""

UNIT: Final = HIGHER_IS_BETTER | {"brier", "ece"}
"""Metrics between 0 and 1 (`r2` at most 1): their reference band is absolute, that of others relative."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its interval at the part's confidence.

    Attributes:
        value: NaN where the rows do not define it (one class alone, no predicted positive).
        low: of the interval; NaN where there is none.
        high: likewise.
        error: standard error; NaN where there is none.
        rows: effective number of rows that it is made of, (sum w)^2 / sum w^2.
    """

    value: float
    low: float
    high: float
    error: float
    rows: float


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram.

    Attributes:
        score: weighted mean score of its rows.
        rate: weighted share of positives among them.
        low: of the rate's interval.
        high: likewise.
        rows: sum of weights.
    """

    score: float
    rate: float
    low: float
    high: float
    rows: float


@dataclass(frozen=True, slots=True)
class Completeness:
    """How far labels have come for a stream and window.

    Attributes:
        predictions: rows kept, not weighted.
        joinable: of them with a join key.
        labelled: of them with a label.
        lag_p50_s: median time from prediction to label; NaN without labels.
        lag_p90_s: nine tenths of labels came within this time.
    """

    predictions: int
    joinable: int
    labelled: int
    lag_p50_s: float
    lag_p90_s: float

    @property
    def ratio(self) -> float:
        """Labelled over joinable rows; 0 where none is joinable."""
        return self.labelled / self.joinable if self.joinable else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised:
    """Performance by labels, of one stream or segment in one window.

    Attributes:
        key: the stream; its segment is `column=value` or ALL.
        kind: the task.
        start_s: begin of the window, by time of the prediction.
        end_s: end of the window, exclusive.
        metrics: by name: `accuracy`, `roc_auc`, `rmse`, ...
        classes: in the order of `confusion`.
        confusion: sums of weights, `[label][prediction]`; empty for tasks without classes.
        reliability: BINARY: by tenths of the score; empty else.
        completeness: of labels.
    """

    key: StreamKey
    kind: TaskKind
    start_s: float
    end_s: float
    metrics: Mapping[str, Metric]
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[float, ...], ...] = ()
    reliability: tuple[Bin, ...] = ()
    completeness: Completeness


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """Performance without labels: CBPE, of one stream or segment in one window.

    Attributes:
        key: the stream.
        start_s: begin of the window.
        end_s: end of the window, exclusive.
        metrics: `roc_auc`, `f1`, `accuracy`, ...; the interval is the band that sampling alone gives.
        rows: kept predictions that it is made of.
    """

    key: StreamKey
    start_s: float
    end_s: float
    metrics: Mapping[str, Metric]
    rows: int


@dataclass(frozen=True, slots=True)
class Group:
    """One group's rates.

    Attributes:
        name: value of the segment column.
        rows: labelled rows for rates by label, rows for `selection`; never fewer than the floor.
        rates: `selection`, `true_positive`, `false_positive`, `error`, each where enough rows define it.
    """

    name: str
    rows: int
    rates: Mapping[str, Metric]


@dataclass(frozen=True, slots=True)
class Gap:
    """The widest gap between two groups.

    Attributes:
        name: `demographic_parity` (selection), `equal_opportunity` (true positives),
            `false_positive_gap`, `error_gap`.
        highest: group with the highest rate.
        lowest: group with the lowest.
        value: the difference, 0 to 1.
        low: of its interval, corrected for the number of pairs that were looked at.
        high: likewise.
    """

    name: str
    highest: str
    lowest: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """How declared groups fare, of one stream in one window.

    Attributes:
        key: the stream.
        column: segment column whose values are the groups.
        start_s: begin of the window.
        end_s: end of the window, exclusive.
        groups: with at least the floor of rows.
        gaps: between them.
        hidden: how many groups were left out for being smaller than the floor.
    """

    key: StreamKey
    column: str
    start_s: float
    end_s: float
    groups: tuple[Group, ...]
    gaps: tuple[Gap, ...]
    hidden: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One metric of one window against the reference's band: what an alarm is raised or cleared by.

    Attributes:
        key: the stream.
        kind: `performance`, `estimated_performance` or `fairness`: the alarm's.
        subject: metric, or `column:gap`.
        start_s: begin of the window.
        end_s: end of the window, exclusive.
        value: of the metric.
        low: of its interval at the alarm level.
        high: likewise.
        band_low: of the reference band; -inf where there is no lower end.
        band_high: likewise.
        breached: the interval lies outside of the band.
        summary: one sentence.
        evidence: JSON types.
    """

    key: StreamKey
    kind: str
    subject: str
    start_s: float
    end_s: float
    value: float
    low: float
    high: float
    band_low: float
    band_high: float
    breached: bool
    summary: str
    evidence: Mapping[str, object] = field(default_factory=dict)

    @property
    def recovered(self) -> bool:
        """The metric itself is in its band: an alarm ends. Between this and `breached` it stays as it is."""
        return not self.breached and self.band_low <= self.value <= self.band_high
