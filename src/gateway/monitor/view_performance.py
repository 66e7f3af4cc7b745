"""How good a model is: realised and estimated, by segment and group. Engine thread."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.monitor.pages.shown import (
    FairnessGap,
    MetricPoint,
    MetricShown,
    PerformanceShown,
    Reliability,
    SegmentEffect,
)
from gateway.monitor.performance.results import HIGHER_IS_BETTER, UNIT
from gateway.monitor.values import ALL, PANE_S
from gateway.monitor.view_distribution import numeric_shown, steps
from gateway.monitor.view_streams import resolved, selection_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.config.monitor_labels import PerformanceSettings
    from gateway.monitor.pages.shown import NumericShown, Period, Selection
    from gateway.monitor.parts import Parts
    from gateway.monitor.performance.results import Estimated, Realised
    from gateway.monitor.profile.reference import Profile
    from gateway.monitor.values import StreamKey

MAX_POINTS: Final = 60
MAX_SEGMENTS: Final = 200
_MAIN: Final = ("roc_auc", "accuracy", "rmse", "ndcg")
"""The metric that segments are compared by: the first that there is."""


def performance(parts: Parts, selection: Selection, period: Period) -> PerformanceShown:
    """Return realised and estimated performance over a period.

    Raises:
        NotFound: there is no such stream.
    """
    key = resolved(parts, selection, period)
    profile = parts.catalog.find(key.model, key.version, key.digest)
    settings = parts.config.performance
    block_s = block_of(period, settings.window)
    start_s = period.start_s // block_s * block_s
    realised = parts.performance.timeline(key, start_s, period.end_s + block_s, block_s)
    estimated = parts.performance.estimated_timeline(key, start_s, period.end_s + block_s, block_s)
    whole = parts.performance.results(key, period.start_s, period.end_s)
    shown = PerformanceShown(
        selection=selection_of(key),
        period=period,
        metrics=[
            *_metrics("realised", realised, profile, settings),
            *_metrics("estimated", estimated, profile, settings),
        ],
        scores=_scores(parts, key, period, profile),
        segments=list(_segments(parts, key, period)),
        fairness=list(_gaps(parts, key, period)),
    )
    if whole is None:
        return shown
    return replace(
        shown,
        reliability=_reliability(whole),
        labels=whole.completeness.labelled,
        labels_late_s=whole.completeness.lag_p50_s,
    )


def block_of(period: Period, window_s: float) -> float:
    """Return the length of a block: the window that is judged, or another where it makes too few or many."""
    length_s = period.end_s - period.start_s
    if length_s / window_s > MAX_POINTS:
        return math.ceil(length_s / MAX_POINTS / window_s) * window_s
    if length_s < 4 * window_s:
        return max(PANE_S, length_s / 12 // PANE_S * PANE_S)
    return window_s


def _metrics(
    kind: str,
    found: Sequence[Realised] | Sequence[Estimated],
    profile: Profile | None,
    settings: PerformanceSettings,
) -> Iterator[MetricShown]:
    for name in dict.fromkeys(metric for one in found for metric in one.metrics):
        points = [_point(one, name) for one in found if name in one.metrics]
        points = [point for point in points if not math.isnan(point.value)]
        if points:
            reference = profile.performance.get(name, math.nan) if profile else math.nan
            least, most = _bounds(name, reference, settings)
            yield MetricShown(
                metric=name,
                kind=kind,
                segment=found[0].key.segment,
                points=points,
                reference=reference,
                least=least,
                most=most,
            )


def _point(one: Realised | Estimated, name: str) -> MetricPoint:
    metric = one.metrics[name]
    completeness = getattr(one, "completeness", None)
    return MetricPoint(
        start_s=one.start_s,
        end_s=one.end_s,
        value=metric.value,
        low=metric.low,
        high=metric.high,
        rows=metric.rows,
        completeness=completeness.ratio if completeness is not None else 1.0,
    )


def _bounds(metric: str, reference: float, settings: PerformanceSettings) -> tuple[float, float]:
    """Return the band outside of which a metric is worse than on the reference; NaN where it has no end."""
    part = settings.tolerance if metric in UNIT else settings.relative_tolerance * abs(reference)
    if metric in HIGHER_IS_BETTER:
        return reference - part, math.nan
    return (reference - part if metric == "bias" else math.nan), reference + part


def _scores(parts: Parts, key: StreamKey, period: Period, profile: Profile | None) -> NumericShown | None:
    layout = parts.panes.layout(key)
    if layout is None or profile is None or profile.task is None:
        return None
    index = layout.numeric_index.get(profile.task.score)
    if index is None:
        return None
    _, by_step = steps(parts, key, period, layout)
    total = parts.panes.window(key, period.start_s, period.end_s)
    return numeric_shown(profile, total, [pane for _, pane in sorted(by_step.items())], index)


def _reliability(whole: Realised) -> Reliability | None:
    if not whole.reliability:
        return None
    error = whole.metrics.get("ece")
    return Reliability(
        predicted=[b.score for b in whole.reliability],
        observed=[b.rate for b in whole.reliability],
        low=[b.low for b in whole.reliability],
        high=[b.high for b in whole.reliability],
        rows=[b.rows for b in whole.reliability],
        error=error.value if error else math.nan,
    )


def _segments(parts: Parts, key: StreamKey, period: Period) -> Iterator[SegmentEffect]:
    for segment in [ALL, *parts.performance.segments(key)[: MAX_SEGMENTS - 1]]:
        found = parts.performance.results(key._replace(segment=segment), period.start_s, period.end_s)
        if found is None:
            continue
        name = _main(found.metrics)
        if name and found.metrics[name].rows >= parts.config.performance.floor:
            metric = found.metrics[name]
            yield SegmentEffect(
                segment=segment,
                metric=name,
                value=metric.value,
                low=metric.low,
                high=metric.high,
                rows=metric.rows,
            )


def _main(metrics: Iterable[str]) -> str:
    known = set(metrics)
    return next((name for name in _MAIN if name in known), "")


def _gaps(parts: Parts, key: StreamKey, period: Period) -> Iterator[FairnessGap]:
    for column in parts.performance.fairness_columns(key.model):
        found = parts.performance.fairness(key, column, period.start_s, period.end_s)
        for gap in found.gaps if found else ():
            yield FairnessGap(
                metric=gap.name,
                group=f"{column}={gap.highest}",
                against=f"{column}={gap.lowest}",
                gap=gap.value,
                low=gap.low,
                high=gap.high,
                most=parts.config.performance.fairness_gap,
                rows=float(sum(g.rows for g in found.groups)) if found else 0.0,
            )


def latest_results(parts: Parts, now_s: float) -> Iterator[tuple[str, Realised | Estimated]]:
    """Yield `realised` or `estimated`, and the results of the newest whole window of each stream."""
    settings = parts.config.performance
    end_s = (now_s - settings.settle) // settings.window * settings.window
    for key in parts.performance.keys():  # noqa: SIM118 - no dictionary
        realised = parts.performance.results(key, end_s - settings.window, end_s)
        if realised is not None and realised.completeness.labelled:
            yield "realised", realised
        estimated = parts.performance.estimated(key, end_s - settings.window, end_s)
        if estimated is not None:
            yield "estimated", estimated
