"""Mixtures of likelihood ratios between binary outcomes: the one e-process beneath every gate.

An outcome is bad with probability at most `share` under the null hypothesis. Each alternative multiplies the
odds of that by its ratio, and the evidence against the null is the mean of the alternatives' likelihood
ratios. Under the null that mean is a non-negative supermartingale that starts at 1, so the chance that it
*ever* reaches 1/alpha is at most alpha (Ville 1939): one may look after every event and stop at will.

With ratios below 1 the same is evidence against "at least `share`".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

ABOVE: Final = (1.25, 1.5, 2.0, 3.0, 5.0)
"""Alternatives against "at most": from a little worse to much worse."""
BELOW: Final = tuple(1 / ratio for ratio in ABOVE)
"""Alternatives against "at least"."""
BELOW_TO_NONE: Final = (*BELOW, 0.01)
"""Likewise, and nearly never: what a service without any bad event is tested with."""


@dataclass(frozen=True, slots=True)
class EProcess:
    """Evidence against one null hypothesis, in nats.

    Attributes:
        logs: log likelihood ratio of each alternative.
        peak: the greatest `log_e` so far, as events seemed to come together then; at least 0.
    """

    logs: tuple[float, ...]
    peak: float = 0.0


def start(ratios: tuple[float, ...]) -> EProcess:
    """Return no evidence, for these alternatives."""
    return EProcess((0.0,) * len(ratios))


def log_e(process: EProcess, together: float = 1.0) -> float:
    """Return the log of the mean of the alternatives' likelihood ratios, each to the power 1/`together`.

    Args:
        process: what was counted.
        together: how many events come at a time, at least 1 (`statistics.dispersion`). Any such number, even
            one chosen by the outcome, keeps the promise about reaching 1/alpha: the mean of the roots is at
            most the root of the mean (Jensen), which is that high only where the mean is.
    """
    logs = [log / together for log in process.logs]
    most = max(logs)
    return most + math.log(math.fsum([math.exp(log - most) for log in logs]) / len(logs))


def observe(
    process: EProcess,
    outcomes: tuple[float, float],
    share: float,
    ratios: tuple[float, ...],
    together: float = 1.0,
) -> EProcess:
    """Count outcomes of which each was bad with probability at most `share` (at least, for ratios below 1).

    Args:
        process: what was known before.
        outcomes: bad ones, and the others.
        share: probability of a bad one at the edge of the null hypothesis; 0 and 1 are allowed. It must not
            depend on the outcomes.
        ratios: the alternatives that `process` was started with.
        together: as for `log_e`, these outcomes included; `peak` goes by it.
    """
    bad, good = outcomes
    if not bad and not good:
        return process
    logs = tuple(
        log + log_likelihood_ratio(bad, good, share, ratio)
        for log, ratio in zip(process.logs, ratios, strict=True)
    )
    return EProcess(logs, max(process.peak, log_e(EProcess(logs), together)))


def log_likelihood_ratio(bad: float, good: float, share: float, ratio: float) -> float:
    """Return the log likelihood ratio of the alternative whose odds of bad are `ratio` times as high.

    Linear in the counts, which may be expected ones.
    """
    return bad * math.log(ratio) - (bad + good) * math.log1p(share * (ratio - 1))
