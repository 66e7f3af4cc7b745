"""Which signals are shown when there are a thousand: the worst first, the rest is found by searching."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.monitor.pages.charts.scores import Row, ratio
from gateway.monitor.values import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.values import Score

_JUDGED = (Finding.OK, Finding.DRIFT)


@dataclass(frozen=True, slots=True)
class Ranked:
    """One signal with its scores.

    Attributes:
        name: of the signal.
        worst: by window, the score that is highest for its threshold; earliest first.
        peak: the worst of them; None: none of them says anything.
        latest: the last of them.
        drifted: windows in which drift was found.
    """

    name: str
    worst: tuple[Score, ...]
    peak: Score | None
    latest: Score
    drifted: int

    @property
    def row(self) -> Row:
        """As a row of the heat map."""
        return Row(self.name, self.worst)


def ranked(scores: Sequence[Score]) -> list[Ranked]:
    """Return signals of one model, worst first: by windows with drift, then by the peak, then by name."""
    by_signal: dict[str, dict[float, Score]] = {}
    for score in scores:
        windows = by_signal.setdefault(score.signal, {})
        held = windows.get(score.end_s)
        if held is None or _weight(score) > _weight(held):
            windows[score.end_s] = score
    signals = [_ranked(name, windows) for name, windows in by_signal.items()]
    return sorted(signals, key=lambda signal: (-signal.drifted, -_peak(signal), signal.name))


def by_model(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Return scores by model."""
    models: dict[str, list[Score]] = {}
    for score in scores:
        models.setdefault(score.key.model, []).append(score)
    return models


def by_statistic(scores: Sequence[Score], signal: str) -> dict[str, tuple[Score, ...]]:
    """Return the scores of one signal by statistic, earliest first."""
    statistics: dict[str, list[Score]] = {}
    for score in scores:
        if score.signal == signal:
            statistics.setdefault(score.statistic, []).append(score)
    return {name: tuple(sorted(of, key=lambda score: score.end_s)) for name, of in statistics.items()}


def _ranked(name: str, windows: dict[float, Score]) -> Ranked:
    worst = tuple(windows[end_s] for end_s in sorted(windows))
    judged = [score for score in worst if score.finding in _JUDGED]
    return Ranked(
        name=name,
        worst=worst,
        peak=max(judged, key=_weight, default=None),
        latest=worst[-1],
        drifted=sum(score.finding is Finding.DRIFT for score in worst),
    )


def _weight(score: Score) -> tuple[int, float]:
    share = ratio(score)
    rank = 2 if score.finding is Finding.DRIFT else int(score.finding is Finding.OK)
    return rank, share if not math.isnan(share) else -1.0


def _peak(signal: Ranked) -> float:
    return _weight(signal.peak)[1] if signal.peak else -1.0
