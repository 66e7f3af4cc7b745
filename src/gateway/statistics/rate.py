"""Evidence about one rate of bad outcomes: is it above, or below, a given bound?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.statistics.mixture import ABOVE, BELOW_TO_NONE, observe

if TYPE_CHECKING:
    from gateway.statistics.mixture import EProcess


def above(process: EProcess, counts: tuple[float, float], most: float, together: float = 1.0) -> EProcess:
    """Add bad ones and trials to the evidence that their rate is above `most`; start with `ABOVE`."""
    return observe(process, _outcomes(counts), most, ABOVE, together)


def below(process: EProcess, counts: tuple[float, float], least: float, together: float = 1.0) -> EProcess:
    """Add bad ones and trials to the evidence of a rate below `least`; start with `BELOW_TO_NONE`."""
    return observe(process, _outcomes(counts), least, BELOW_TO_NONE, together)


def _outcomes(counts: tuple[float, float]) -> tuple[float, float]:
    bad, trials = counts
    return bad, max(trials - bad, 0)
