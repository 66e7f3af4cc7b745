"""Evidence about one rate of bad outcomes: is it above, or below, a given bound?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.statistics.mixture import ABOVE, BELOW_TO_NONE, Grouping, observe

if TYPE_CHECKING:
    from gateway.statistics.mixture import EProcess


_SINGLE: Final = Grouping()


def above(
    process: EProcess, counts: tuple[float, float], most: float, grouping: Grouping = _SINGLE
) -> EProcess:
    """Add bad ones and trials to the evidence that their rate is above `most`; start with `ABOVE`."""
    return observe(process, _outcomes(counts), most, ABOVE, grouping)


def below(
    process: EProcess, counts: tuple[float, float], least: float, grouping: Grouping = _SINGLE
) -> EProcess:
    """Add bad ones and trials to the evidence of a rate below `least`; start with `BELOW_TO_NONE`."""
    return observe(process, _outcomes(counts), least, BELOW_TO_NONE, grouping)


def _outcomes(counts: tuple[float, float]) -> tuple[float, float]:
    bad, trials = counts
    return bad, max(trials - bad, 0)
