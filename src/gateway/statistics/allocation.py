"""Evidence that keys are not divided between arms as they should be: sample-ratio mismatch.

The multinomial e-process with a Dirichlet mixture (Lindon and Malek, "Anytime-valid inference for multinomial
count data", NeurIPS 2022). In closed form, so the counts are all the state there is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

PSEUDO_COUNT: Final = 20.0
"""Weight of the smallest arm in the mixture: alternatives lie within about 22 % of its share, where a
mismatch that matters lies too."""


def log_e(counts: Sequence[float], shares: Sequence[float]) -> float:
    """Return the log of the evidence against these shares.

    Each count must be of independent draws: distinct keys, or requests that each draw anew. Arms that should
    get nothing, and those that get everything, are no evidence. Exact to 0.01 up to 1e12 counts.

    Args:
        counts: draws that each arm got.
        shares: of 1, in the same order.
    """
    arms = [(count, share) for count, share in zip(counts, shares, strict=True) if share > 0]
    total = math.fsum(count for count, _ in arms)
    if len(arms) < 2 or not total:
        return 0.0
    weight = PSEUDO_COUNT / min(share for _, share in arms)
    whole = math.fsum(share for _, share in arms)
    terms = [math.lgamma(weight * whole) - math.lgamma(weight * whole + total)]
    for count, share in arms:
        terms += [
            math.lgamma(weight * share + count),
            -math.lgamma(weight * share),
            -count * math.log(share / whole),
        ]
    return math.fsum(terms)
