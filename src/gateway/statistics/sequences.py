"""Confidence sequences: intervals of a difference that hold at all times together, however often one looks.

The normal mixture of Robbins (1970) in the form of Howard et al., "Time-uniform, nonparametric, nonasymptotic
confidence sequences" (Annals of Statistics 2021), with estimated variances (Waudby-Smith et al., "Time-
uniform central limit theory and asymptotic confidence sequences", 2021): asymptotic, so from `LEAST_ROWS`
rows per arm on. For rates of rare bad events use `statistics.ratio` and `statistics.rate`, which are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

LEAST_ROWS: Final = 100
"""Effective rows of each arm below which the sequence says nothing."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over independent rows of one arm, or over pairs.

    Attributes:
        rows: effective ones.
        mean: of the values.
        variance: of a value about it.
    """

    rows: float = 0.0
    mean: float = 0.0
    variance: float = 0.0


@dataclass(frozen=True, slots=True)
class Sequence:
    """A difference and what can be said of it now.

    Attributes:
        difference: candidate less baseline.
        low: of the sequence.
        high: likewise.
        e_value: evidence against no difference; its inverse is an always valid p-value.
    """

    difference: float
    low: float
    high: float
    e_value: float

    @property
    def p_value(self) -> float:
        """Valid at any time, even one chosen by the data."""
        return min(1.0, 1 / self.e_value) if self.e_value > 0 else 1.0


NOTHING: Final = Sequence(math.nan, -math.inf, math.inf, 1.0)


def rate(events: float, rows: float) -> Moments:
    """Return the moments of a rate; half an event is added to either side so that 0 has a variance too."""
    if rows <= 0:
        return Moments()
    smoothed = (events + 0.5) / (rows + 1)
    return Moments(rows, events / rows, smoothed * (1 - smoothed))


def unpaired(candidate: Moments, baseline: Moments, alpha: float, tuned: float = 5000.0) -> Sequence:
    """Compare two arms that saw different rows of the same traffic.

    Args:
        candidate: its moments so far, over the whole comparison, never a window chosen by what it shows.
        baseline: likewise.
        alpha: chance that the sequence ever misses the true difference.
        tuned: rows per arm at which the sequence is narrowest.
    """
    if min(candidate.rows, baseline.rows) < LEAST_ROWS:
        return NOTHING
    squared = candidate.variance / candidate.rows + baseline.variance / baseline.rows
    smaller = 1 / (1 / candidate.rows + 1 / baseline.rows)
    return _sequence(candidate.mean - baseline.mean, squared, smaller / (tuned / 2), alpha)


def paired(differences: Moments, alpha: float, tuned: float = 2000.0) -> Sequence:
    """Compare two arms on the same rows, as shadowing gives: moments are of candidate less baseline by row.

    Args:
        differences: their moments.
        alpha: as for `unpaired`.
        tuned: pairs at which the sequence is narrowest.
    """
    if differences.rows < LEAST_ROWS:
        return NOTHING
    squared = differences.variance / differences.rows
    return _sequence(differences.mean, squared, differences.rows / tuned, alpha)


def _sequence(difference: float, squared: float, progress: float, alpha: float) -> Sequence:
    """Return the sequence of an estimate with this squared error.

    Args:
        difference: the estimate.
        squared: its squared standard error.
        progress: information so far over that at which the sequence is tuned; the mixture's weight rho is
            fixed by
            the tuning, so that only the ratio matters.
        alpha: chance of missing.
    """
    log = -2 * math.log(alpha)
    rho = 1 / (log + math.log1p(log))
    if squared <= 0:
        return Sequence(difference, difference, difference, math.inf if difference else 1.0)
    part = (progress + rho) / progress
    width = math.sqrt(squared * part * (log + math.log((progress + rho) / rho)))
    z2 = difference * difference / squared
    exponent = z2 / (2 * part) - math.log((progress + rho) / rho) / 2
    return Sequence(difference, difference - width, difference + width, math.exp(min(exponent, 700.0)))
