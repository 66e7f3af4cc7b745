"""Says whether a metric has left its reference band: what performance alarms are raised and cleared by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from gateway.monitor.performance.fairness import Options
from gateway.monitor.performance.results import HIGHER_IS_BETTER, UNIT, Judgement
from gateway.monitor.performance.weighted import at_level

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.config.monitor_labels import PerformanceSettings
    from gateway.monitor.performance.results import Estimated, Fairness, Metric, Realised
    from gateway.monitor.profile.reference import Profile
    from gateway.monitor.values import StreamKey


class Answers(Protocol):
    """What is judged: `part.Performance`."""

    def results(self, key: StreamKey, start_s: float, end_s: float) -> Realised | None:
        """Return performance by labels."""

    def estimated(self, key: StreamKey, start_s: float, end_s: float) -> Estimated | None:
        """Return performance without labels."""

    def fairness_at(
        self, key: StreamKey, column: str, window: tuple[float, float], options: Options
    ) -> Fairness | None:
        """Return how groups fare."""


def windows(start_s: float, end_s: float, window_s: float) -> Iterator[tuple[float, float]]:
    """Yield the windows of multiples of their length that lie within [start, end)."""
    first = math.ceil(start_s / window_s)
    for at in range(first, math.floor(end_s / window_s)):
        yield at * window_s, (at + 1) * window_s


def judge(
    answers: Answers, key: StreamKey, profile: Profile, settings: PerformanceSettings, now_s: float
) -> list[Judgement]:
    """Judge the newest window with enough labels, the newest whole one without, and declared groups."""
    last = math.floor((now_s - settings.settle) / settings.window)
    begun = (last - settings.lookback) * settings.window
    newest = list(windows(begun, last * settings.window, settings.window))[::-1]
    return [
        *_realised(answers, key, profile, settings, newest),
        *_estimated(answers, key, profile, settings, newest[:1]),
        *_fair(answers, key, settings, newest),
    ]


def _realised(
    answers: Answers,
    key: StreamKey,
    profile: Profile,
    settings: PerformanceSettings,
    newest: list[tuple[float, float]],
) -> Iterator[Judgement]:
    for window in newest:
        found = answers.results(key, *window)
        if found is None or not found.metrics:
            continue
        if max(metric.rows for metric in found.metrics.values()) >= settings.min_rows:
            about = {"completeness": found.completeness.ratio, "labelled": found.completeness.labelled}
            yield from _judged(key, "performance", window, (found.metrics, profile, about), settings)
            return


def _estimated(
    answers: Answers,
    key: StreamKey,
    profile: Profile,
    settings: PerformanceSettings,
    newest: list[tuple[float, float]],
) -> Iterator[Judgement]:
    for window in newest:
        found = answers.estimated(key, *window)
        if found is not None and max(m.rows for m in found.metrics.values()) >= settings.min_rows:
            about = {"rows": found.rows}
            yield from _judged(
                key, "estimated_performance", window, (found.metrics, profile, about), settings
            )


def _judged(
    key: StreamKey,
    kind: str,
    window: tuple[float, float],
    found: tuple[Mapping[str, Metric], Profile, Mapping[str, object]],
    settings: PerformanceSettings,
) -> Iterator[Judgement]:
    metrics, profile, about = found
    for name, reference in profile.performance.items():
        metric = metrics.get(name)
        if metric is None or math.isnan(metric.value) or math.isnan(reference):
            continue
        low, high = at_level(metric, 1 - settings.alarm_level, unit=name in UNIT)
        band = band_of(name, reference, settings)
        breached = high < band[0] or low > band[1]
        yield Judgement(
            key=key, kind=kind, subject=name, start_s=window[0], end_s=window[1], value=metric.value,
            low=low, high=high, band_low=band[0], band_high=band[1], breached=breached,
            summary=_sentence(key, kind, name, metric.value, reference),
            evidence={
                "metric": name, "value": metric.value, "reference": reference, "rows": metric.rows,
                "interval": [_finite(low), _finite(high)], "band": [_finite(band[0]), _finite(band[1])],
                "window": list(window), **about,
            },
        )  # fmt: skip


def band_of(name: str, reference: float, settings: PerformanceSettings) -> tuple[float, float]:
    """Return the values of a metric that are as good as the reference's, or better."""
    if name == "bias":
        return -math.inf, math.inf
    width = settings.tolerance if name in UNIT else abs(reference) * settings.relative_tolerance
    if name in HIGHER_IS_BETTER:
        return reference - width, math.inf
    return -math.inf, reference + width


def _fair(
    answers: Answers, key: StreamKey, settings: PerformanceSettings, newest: list[tuple[float, float]]
) -> Iterator[Judgement]:
    options = Options(settings.floor, 1 - settings.alarm_level)
    for column in settings.fairness.get(key.model, ()):
        for window in newest:
            found = answers.fairness_at(key, column, window, options)
            if found is not None and found.gaps:
                yield from _gaps(found, settings.fairness_gap)
                break


def _gaps(found: Fairness, most: float) -> Iterator[Judgement]:
    for gap in found.gaps:
        yield Judgement(
            key=found.key, kind="fairness", subject=f"{found.column}:{gap.name}", start_s=found.start_s,
            end_s=found.end_s, value=gap.value, low=gap.low, high=gap.high,
            band_low=-math.inf, band_high=most, breached=gap.low > most,
            summary=f"{gap.name} of {found.key.model} by {found.column}: {gap.highest} is {gap.value:.3f} "
            f"above {gap.lowest}, more than {most:g}",
            evidence={
                "gap": gap.name, "column": found.column, "highest": gap.highest, "lowest": gap.lowest,
                "value": gap.value, "interval": [gap.low, gap.high], "most": most,
                "window": [found.start_s, found.end_s], "hidden_groups": found.hidden,
            },
        )  # fmt: skip


def _sentence(key: StreamKey, kind: str, name: str, value: float, reference: float) -> str:
    which = "estimated " if kind == "estimated_performance" else ""
    arm = f" ({key.arm})" if key.arm else ""
    stream = f"{key.model} version {key.version}{arm}"
    return f"{which}{name} of {stream} is {value:.4g}, {reference:.4g} on its reference"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
