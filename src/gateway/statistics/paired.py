"""Two arms on the same rows: how often they disagree, and whether one is right more often where they do.

Exact at any sample size and any number of looks: counts against a bound, by the e-processes of `mixture`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.statistics import rate
from gateway.statistics.mixture import ABOVE, observe

if TYPE_CHECKING:
    from gateway.statistics.mixture import EProcess


def disagreement(process: EProcess, counts: tuple[float, float], most: float) -> EProcess:
    """Add (disagreeing, all) pairs to the evidence that more than `most` disagree; start with `ABOVE`."""
    return rate.above(process, counts, most)


def worse(process: EProcess, discordant: tuple[float, float]) -> EProcess:
    """Add pairs that one arm alone got right to the evidence that it is worse; start with `ABOVE`.

    Where both are equally good, either is right alone as often (McNemar 1947): concordant pairs say nothing.

    Args:
        process: evidence so far.
        discordant: pairs that the baseline alone got right, and that the candidate alone did.
    """
    return observe(process, discordant, 0.5, ABOVE)
