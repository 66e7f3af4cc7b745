"""Values that pages, the API and reports show: JSON types and aggregates only, never a row.

Times are seconds since the epoch. NaN stands for "not known" and is `null` in JSON. Shares are 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.monitor.values import ALL, Coverage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.monitor.values import Alarm, ArmVerdict, Marker


@dataclass(frozen=True, slots=True)
class Period:
    """From `start_s` up to but without `end_s`."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The stream that is looked at.

    Attributes:
        model: public model name.
        version: protocol version number; None: the version that got most rows in the period.
        arm: as logged; empty: rows that followed no route, or, where there are none, the stable arm.
        segment: `column=value`, or ALL.
    """

    model: str
    version: int | None = None
    arm: str = ""
    segment: str = ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreQuery:
    """Which scores are wanted.

    Attributes:
        window: name in `values.WINDOWS_S`.
        period: scores whose window ends within it.
        selection: the stream; None: every model's live version and arm, segment ALL.
        signal: only this one; empty: every one.
        search: only signals whose name holds this, case-insensitive; empty: every one.
        every_segment: scores of all segments of the selection's version and arm, not of its one segment.
        most: at most so many scores, the latest.
    """

    window: str
    period: Period
    selection: Selection | None = None
    signal: str = ""
    search: str = ""
    every_segment: bool = False
    most: int = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionShown:
    """One version of a model that rows have come from.

    Attributes:
        version: protocol version number.
        digest: content digest.
        arms: arm names that occurred, NO_ARM among them as "".
        segments: `column=value` that are kept, the most frequent first, at most 200; without ALL.
        profile: id of its reference profile; empty: it has none.
        profile_source: where the profile's data came from; empty likewise.
        profile_rows: rows of the reference.
        first_s: when its first row came.
        last_s: when its latest row came.
    """

    version: int
    digest: str
    arms: tuple[str, ...] = ("",)
    segments: tuple[str, ...] = ()
    profile: str = ""
    profile_source: str = ""
    profile_rows: int = 0
    first_s: float = float("nan")
    last_s: float = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalShown:
    """One signal of a model.

    Attributes:
        name: as in scores.
        role: `input`, `output` or `segment`.
        kind: `numeric`, `category` or `embedding`.
    """

    name: str
    role: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShown:
    """One model.

    Attributes:
        model: public model name.
        rows: served rows of the last day, sampled ones by weight.
        coverage: of the last day.
        standing: alarms of it that stand.
        versions: the live one first.
        signals: of the live version; empty in lists of models.
        task: `binary`, `multiclass`, `regression`, `ranking`; empty: unknown.
    """

    model: str
    rows: float
    coverage: Coverage
    standing: int
    versions: tuple[VersionShown, ...]
    signals: tuple[SignalShown, ...] = ()
    task: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageShown:
    """Coverage over time, one element per step of a minute or more, and moments to mark.

    Attributes:
        starts_s: begin of each step.
        step_s: length of a step.
        ratio: coverage of each, NaN where nothing was served.
        rows: served rows of each.
        markers: a version appeared, weights moved, a profile was replaced.
    """

    starts_s: Sequence[float]
    step_s: float
    ratio: Sequence[float]
    rows: Sequence[float]
    markers: Sequence[Marker] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericShown:
    """A numeric signal now against its reference; histograms share the profile's edges.

    Attributes:
        edges: as in NumericReference: `[k]` for `k + 1` bins, the outer ones open.
        reference: `[k + 1]` shares of the reference's finite values.
        current: `[k + 1]` likewise of the period.
        least: smallest finite value of both, where the pictures begin.
        most: largest finite value of both.
        error: half width of the band in which the difference of both ECDFs is noise; NaN: unknown.
        percents: of the fan, such as 5, 25, 50, 75, 95.
        reference_quantiles: by percent.
        quantiles: `[steps][percents]`, NaN in a step without rows.
    """

    edges: Sequence[float]
    reference: Sequence[float]
    current: Sequence[float]
    least: float
    most: float
    error: float
    percents: Sequence[float]
    reference_quantiles: Sequence[float]
    quantiles: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryShown:
    """A categorical signal now against its reference. Values seen fewer than 20 times are not named.

    Attributes:
        values: most frequent first, at most 50; what else there is counts as other.
        reference: `[values]` shares of the reference.
        current: `[values]` shares of the period.
        reference_other: share of the reference in no named value.
        current_other: share of the period in no named value, novel ones included.
        novel: share of values that the reference never had.
        novel_values: the heaviest of them with their estimated counts, at most 20.
        distinct: estimate of how many distinct values came; NaN: unknown.
        shares: `[steps][values]` over time.
    """

    values: Sequence[str]
    reference: Sequence[float]
    current: Sequence[float]
    reference_other: float
    current_other: float
    novel: float
    novel_values: Sequence[tuple[str, float]]
    distinct: float
    shares: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingShown:
    """An embedding on the reference's first two principal axes.

    Attributes:
        reference: `[points][2]`, at most 512.
        current: `[points][2]` centroids of the steps, oldest first; empty for a column of projections, of
            whose values no means are kept.
    """

    reference: Sequence[tuple[float, float]]
    current: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One signal of one stream: exactly one of `numeric`, `category` and `embedding`, or none without rows.

    Attributes:
        selection: the stream, resolved.
        signal: its name.
        period: what `current` is about.
        rows: effective rows of the period.
        reference_rows: of the reference.
        starts_s: begin of each step of what goes over time.
        step_s: length of a step.
        missing: by step, share of rows without a value.
        invalid: by step, share of the wrong type or infinite.
        below: by step, share below the reference's 0.1 % quantile; empty for categories.
        above: by step, share above the reference's 99.9 % quantile; empty for categories.
        novel: by step, share of values that the reference never had; empty for numbers.
        reference_missing: share of the reference without a value.
    """

    selection: Selection
    signal: str
    period: Period
    rows: float
    reference_rows: float
    starts_s: Sequence[float]
    step_s: float
    missing: Sequence[float]
    invalid: Sequence[float]
    below: Sequence[float] = ()
    above: Sequence[float] = ()
    novel: Sequence[float] = ()
    reference_missing: float = 0.0
    numeric: NumericShown | None = None
    category: CategoryShown | None = None
    embedding: EmbeddingShown | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPoint:
    """A metric in one block of time, with its 95 % interval.

    Attributes:
        rows: that it is computed from: labelled rows for realised metrics.
        completeness: labels over rows that could have one, by now; 1 for estimates.
    """

    start_s: float
    end_s: float
    value: float
    low: float
    high: float
    rows: float
    completeness: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricShown:
    """A metric over time.

    Attributes:
        metric: `roc_auc`, `f1`, `mae`, ...
        kind: `realised` or `estimated`.
        segment: `column=value`, or ALL.
        points: oldest first.
        reference: value on the reference; NaN: unknown.
        least: below it the model is not good any more; NaN: no such bound.
        most: above it likewise; NaN: no such bound.
    """

    metric: str
    kind: str
    segment: str
    points: Sequence[MetricPoint]
    reference: float
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Predicted against observed, by bins of the score, with 95 % intervals.

    Attributes:
        predicted: mean score of each bin.
        observed: share of positives of each bin.
        low: of its interval.
        high: of its interval.
        rows: of each bin.
        error: expected calibration error.
    """

    predicted: Sequence[float]
    observed: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    rows: Sequence[float]
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentEffect:
    """A metric in one segment, for the forest plot."""

    segment: str
    metric: str
    value: float
    low: float
    high: float
    rows: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessGap:
    """A metric of one group less that of another, over the period, with its 95 % interval.

    Attributes:
        most: the gap that was declared bearable, either way.
    """

    metric: str
    group: str
    against: str
    gap: float
    low: float
    high: float
    most: float
    rows: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceShown:
    """How good the model is.

    Attributes:
        selection: the stream, resolved.
        period: what it is about.
        metrics: realised and estimated.
        scores: distribution of the prediction, a numeric one; None: no task is known.
        reliability: None without labels or for tasks without scores.
        segments: for the forest plot, at most 200.
        fairness: between declared groups.
        labels: posted in the period.
        labels_late_s: median delay of a label; NaN without labels.
    """

    selection: Selection
    period: Period
    metrics: Sequence[MetricShown]
    scores: NumericShown | None = None
    reliability: Reliability | None = None
    segments: Sequence[SegmentEffect] = ()
    fairness: Sequence[FairnessGap] = ()
    labels: int = 0
    labels_late_s: float = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmMetric:
    """What candidate less baseline came to as rows arrived: a confidence sequence.

    Attributes:
        metric: `disagreement`, `errors`, `score`, `accuracy`, ...
        ends_s: time of each look.
        difference: candidate less baseline, at each look.
        low: of the confidence sequence: holds at all looks together.
        high: likewise.
        harm: side that is worse: `above`, `below` or `either`.
        margin: difference that is tolerated.
        pairs: rows compared, paired ones once.
        paired: both arms answered the same requests.
    """

    metric: str
    ends_s: Sequence[float]
    difference: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    harm: str
    margin: float
    pairs: float
    paired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSignal:
    """One signal in both arms and the reference, over the same edges, as in NumericShown."""

    signal: str
    edges: Sequence[float]
    least: float
    most: float
    candidate: Sequence[float]
    baseline: Sequence[float]
    reference: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmsShown:
    """One arm against another.

    Attributes:
        verdict: as the rollout's gate gets it.
        metrics: confidence sequences.
        signals: at most 12, the most different first.
    """

    verdict: ArmVerdict
    metrics: Sequence[ArmMetric] = ()
    signals: Sequence[ArmSignal] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmsShown:
    """The ledger of a period.

    Attributes:
        period: what it is about.
        alarms: raised in it or standing in it, the latest first, at most 1000.
        raised: how many were raised in it.
        expected_false: how many false ones the declared budget allows in as much time.
        budget: the declaration in words, `at most 1 false page per model in 90 days`.
    """

    period: Period
    alarms: Sequence[Alarm]
    raised: int
    expected_false: float
    budget: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerShown:
    """One gateway's log, as far as the monitor knows: rows since that process started.

    Attributes:
        producer: the gateway's name.
        connected: its stream is open.
        produced: rows that were offered to the log.
        applied: rows in the monitor's state.
        dropped: rows lost or left out, by reason.
        outstanding: rows on their way: in flight, in the ring and spooled, by where, if the gateway says so.
        credit_bytes: that it may still send.
        spool_bytes: waiting on its disk; NaN: unknown.
        lag_s: age of the latest row when it was applied.
        last_s: when its last frame came.
        epochs: processes of it that were seen.
        duplicates: frames that had been applied before.
    """

    producer: str
    connected: bool
    produced: int
    applied: int
    dropped: Mapping[str, int]
    outstanding: Mapping[str, int] = field(default_factory=dict)
    credit_bytes: int = 0
    spool_bytes: float = float("nan")
    lag_s: float = float("nan")
    last_s: float = float("nan")
    epochs: int = 1
    duplicates: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineShown:
    """The way from gateways to the state, now and over the last hours.

    Attributes:
        producers: by name, at most 200.
        starts_s: begin of each step of what follows, oldest first.
        step_s: length of a step.
        applied: rows applied in each step.
        dropped: reason -> rows dropped in each step.
        lag_s: 99th percentile of the lag in each step; NaN where nothing came.
        checkpoint_s: when the last checkpoint was made.
        state_bytes: memory of the panes.
        state_limit_bytes: what they are held to.
        counters: what was refused, coarsened or cut off, by name.
    """

    producers: Sequence[ProducerShown]
    starts_s: Sequence[float]
    step_s: float
    applied: Sequence[float]
    dropped: Mapping[str, Sequence[float]]
    lag_s: Sequence[float]
    checkpoint_s: float = float("nan")
    state_bytes: float = float("nan")
    state_limit_bytes: float = float("nan")
    counters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostedLabel:
    """What turned out to be true of one row.

    Attributes:
        key: join key of the request.
        row: row within its request.
        label: the class name or the value, as text or number.
        at_s: when it became known; None: when it was posted.
        revision: a higher one replaces a lower one.
        weight: how many rows it stands for.
        source: who says so.
    """

    key: str
    label: str | float
    row: int = 0
    at_s: float | None = None
    revision: int = 0
    weight: float = 1.0
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsTaken:
    """What became of posted labels: the four add up to how many were posted.

    Attributes:
        joined: a row was waiting for it.
        waiting: no such row yet; kept until one comes or it expires.
        unchanged: of a revision that was known, or an older one.
        refused: unusable, with why in `reasons`.
        reasons: reason -> how many.
    """

    joined: int
    waiting: int
    unchanged: int
    refused: int
    reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthShown:
    """Whether the monitor works.

    Attributes:
        ready: state was restored and rows are taken in.
        reason: one sentence where not.
        checkpoint_s: when the last checkpoint was made; NaN: never.
    """

    ready: bool
    reason: str = ""
    checkpoint_s: float = float("nan")
