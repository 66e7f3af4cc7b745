"""What two arms did on the same traffic, and what can be said of the difference however often one looks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.monitor.panes.layout import MISSING
from gateway.predlog.rows import Role
from gateway.statistics import sequences
from gateway.statistics.sequences import Moments

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from gateway.config.monitor_detect import ArmSettings
    from gateway.monitor.arms.pairs import Paired
    from gateway.monitor.panes.pane import Pane

    Floats = npt.NDArray[np.float64]

MAX_SIGNALS: Final = 64
"""Outputs that are compared; the rest is not."""

OK, HARM, OPEN = "ok", "harm", "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One quantity of both arms.

    Attributes:
        name: signal, `SIGNAL.missing`, or `errors`.
        unit: `deviations` of the baseline, or `share`.
        candidate: its mean or share; NaN where only pairs are known.
        baseline: likewise.
        difference: candidate less baseline, in `unit`.
        low: of the confidence sequence of it.
        high: likewise.
        margin: differences up to it do no harm.
        both_ways: a difference below -margin is harm too.
        rows: effective rows of the smaller arm, or pairs.
        paired: by mirrored rows, each with itself.
    """

    name: str
    unit: str
    candidate: float
    baseline: float
    difference: float
    low: float
    high: float
    margin: float
    both_ways: bool
    rows: float
    paired: bool = False

    @property
    def finding(self) -> str:
        """`ok`: proven to be within the margin; `harm`: proven to be beyond it; `open`: neither."""
        if self.low > self.margin or (self.both_ways and self.high < -self.margin):
            return HARM
        if self.high <= self.margin and (not self.both_ways or self.low >= -self.margin):
            return OK
        return OPEN

    def document(self) -> dict[str, Any]:
        """Return it in JSON types; what is not finite is None."""
        numbers = {
            name: value if math.isfinite(value) else None
            for name in ("candidate", "baseline", "difference", "low", "high", "margin", "rows")
            for value in (float(getattr(self, name)),)
        }
        return {
            "name": self.name,
            "unit": self.unit,
            **numbers,
            "paired": self.paired,
            "finding": self.finding,
        }


class Concurrent:
    """Sums over the minutes in which both arms served, minute by minute against each other.

    A minute counts for n m / (n + m) rows, n and m the arms' effective ones: differences between minutes, as
    by the time of day or by a share of traffic that grows, cancel. Signals are matched by name: the arms'
    versions may have profiles of their own.
    """

    def __init__(self) -> None:
        self.minutes = 0
        self.rows = [0.0, 0.0]
        self._names: tuple[str, ...] = ()
        self._weight: Floats = np.empty(0)
        self._difference: Floats = np.empty(0)
        self._sums: tuple[Floats, ...] = ()
        self._rates: dict[str, Floats] = {}

    def add(self, candidate: Pane, baseline: Pane) -> None:
        """Add a minute."""
        if not self._sums:
            self._begin(candidate, baseline)
        self.minutes += 1
        self.rows[0] += candidate.effective_rows
        self.rows[1] += baseline.effective_rows
        arms = [_moments(pane, self._names) for pane in (candidate, baseline)]
        (n, mean_c, square_c), (m, mean_b, square_b) = arms
        both = (n > 0) & (m > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = np.where(both, n * m / (n + m), 0.0)
        self._weight += weight
        self._difference += weight * np.where(both, mean_c - mean_b, 0.0)
        for sums, (rows, mean, square) in zip(
            (self._sums[:3], self._sums[3:]), ((n, mean_c, square_c), (m, mean_b, square_b)), strict=True
        ):
            known = rows > 0
            sums[0][:] += rows
            sums[1][:] += np.where(known, rows * mean, 0.0)
            sums[2][:] += np.where(known, rows * square, 0.0)
        self._add_rates(candidate, baseline)

    def comparisons(self, settings: ArmSettings, paired: Mapping[str, Paired]) -> tuple[Comparison, ...]:
        """Return every comparison; each interval is one of all, so that their level holds together.

        Args:
            settings: level and margins.
            paired: by signal, differences of mirrored rows, which replace those between arms.
        """
        names = [*self._names, *self._rates, *(n for n in paired if n not in self._names)]
        if not names:
            return ()
        alpha = settings.alpha / len(set(names))
        found = []
        for i, name in enumerate(self._names):
            if name not in paired:
                found.append(self._mean(i, name, alpha, settings))
        found += [_rate(name, sums, alpha, settings) for name, sums in self._rates.items()]
        found += [_pair(name, pairs, alpha, settings) for name, pairs in paired.items()]
        return tuple(found)

    def _begin(self, candidate: Pane, baseline: Pane) -> None:
        known = baseline.layout.numeric_index
        names = (n.name for n in candidate.layout.numeric if n.role is Role.OUTPUT and n.name in known)
        self._names = tuple(names)[:MAX_SIGNALS]
        size = len(self._names)
        self._weight, self._difference = np.zeros(size), np.zeros(size)
        self._sums = tuple(np.zeros(size) for _ in range(6))
        self._rates = {name: np.zeros(5) for name in ("errors", *(f"{n}.missing" for n in self._names))}

    def _add_rates(self, candidate: Pane, baseline: Pane) -> None:
        """Add to each rate: weight, weighted difference, events of both arms, rows of both arms."""
        shares = {"errors": [_errors(pane) for pane in (candidate, baseline)]}
        for name in self._names:
            shares[f"{name}.missing"] = [_missing(pane, name) for pane in (candidate, baseline)]
        for name, ((share_c, n), (share_b, m)) in shares.items():
            if n > 0 and m > 0:
                weight = n * m / (n + m)
                self._rates[name] += (
                    weight,
                    weight * (share_c - share_b),
                    share_c * n + share_b * m,
                    n,
                    m,
                )

    def _mean(self, i: int, name: str, alpha: float, settings: ArmSettings) -> Comparison:
        n, total_c, square_c, m, total_b, square_b = (float(s[i]) for s in self._sums)
        mean_c, mean_b = _ratio(total_c, n), _ratio(total_b, m)
        variance_c = max(_ratio(square_c, n) - mean_c**2, 0.0) if n else 0.0
        variance_b = max(_ratio(square_b, m) - mean_b**2, 0.0) if m else 0.0
        spread = math.sqrt(variance_b) or math.sqrt(variance_c)
        difference = _ratio(float(self._difference[i]), float(self._weight[i]))
        sequence = sequences.NOTHING
        if min(n, m) >= settings.min_rows and not math.isnan(difference):
            # Minutes are weighed so that the estimate has the variance of 1/weight rows of one arm each.
            rows = 2 * float(self._weight[i])
            sequence = sequences.unpaired(
                Moments(rows, difference, variance_c), Moments(rows, 0.0, variance_b), alpha
            )
        scale = 1 / spread if spread else 1.0
        return Comparison(
            name=name,
            unit="deviations",
            candidate=mean_c,
            baseline=mean_b,
            difference=difference * scale,
            low=sequence.low * scale,
            high=sequence.high * scale,
            margin=settings.margin_sigma,
            both_ways=True,
            rows=min(n, m),
        )


def _rate(name: str, sums: Floats, alpha: float, settings: ArmSettings) -> Comparison:
    weight, weighted, events, n, m = (float(s) for s in sums)
    difference = _ratio(weighted, weight)
    sequence = sequences.NOTHING
    if min(n, m) >= settings.min_rows:
        pooled = sequences.rate(events, n + m)
        rows = 2 * weight
        sequence = sequences.unpaired(
            Moments(rows, difference, pooled.variance), Moments(rows, 0.0, pooled.variance), alpha
        )
    share = _ratio(events, n + m)
    return Comparison(
        name=name,
        unit="share",
        candidate=share + difference * m / (n + m) if n + m else math.nan,
        baseline=share - difference * n / (n + m) if n + m else math.nan,
        difference=difference,
        low=sequence.low,
        high=sequence.high,
        margin=settings.margin_rate,
        both_ways=False,
        rows=min(n, m),
    )


def _pair(name: str, pairs: Paired, alpha: float, settings: ArmSettings) -> Comparison:
    rows, mean, variance = pairs.rows, pairs.mean, pairs.variance
    sequence = sequences.NOTHING
    if rows >= settings.min_rows:
        # While no answers differ: as if one did, by one deviation, or the interval would have no width.
        unit = pairs.spread or 1.0
        sequence = sequences.paired(Moments(rows, mean, max(variance, unit**2 / rows)), alpha)
    scale = 1 / pairs.spread if pairs.spread else 1.0
    return Comparison(
        name=name,
        unit="deviations",
        candidate=math.nan,
        baseline=math.nan,
        difference=mean * scale,
        low=sequence.low * scale,
        high=sequence.high * scale,
        margin=settings.margin_sigma,
        both_ways=True,
        rows=rows,
        paired=True,
    )


def _moments(pane: Pane, names: tuple[str, ...]) -> tuple[Floats, Floats, Floats]:
    """Return effective rows, mean and mean square of the signals; none of one that the layout lacks."""
    places = [pane.layout.numeric_index.get(name, -1) for name in names]
    moments = np.array([pane.moments[i] if i >= 0 else np.zeros(3) for i in places]).reshape(-1, 3)
    centre = np.array([pane.layout.numeric[i].mean if i >= 0 else 0.0 for i in places])
    with np.errstate(invalid="ignore", divide="ignore"):
        shift, square = moments[:, 1] / moments[:, 0], moments[:, 2] / moments[:, 0]
    return moments[:, 0] * pane.design, centre + shift, square + 2 * centre * shift + centre**2


def _errors(pane: Pane) -> tuple[float, float]:
    if not pane.weight:
        return 0.0, 0.0
    return 1 - pane.statuses.get("", 0.0) / pane.weight, pane.effective_rows


def _missing(pane: Pane, name: str) -> tuple[float, float]:
    place = pane.layout.numeric_index.get(name)
    if not pane.answered or place is None:
        return 0.0, 0.0
    return float(pane.flags[place, MISSING]) / pane.answered, pane.answered * pane.design


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
