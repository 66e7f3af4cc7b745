"""A profile in the arrays that windows are compared with, made once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.values import ALL
from gateway.statistics import distances, two_sample

if TYPE_CHECKING:
    import numpy.typing as npt

    from gateway.monitor.profile.reference import Profile

    Floats = npt.NDArray[np.float64]

TAIL: Final = 0.001
"""Share of the reference beyond `low`, and beyond `high`."""

TAIL_ROWS: Final = 100_000
"""Rows that the quantiles of a larger reference are estimated from: what is known of its tails."""

_OPEN_ENDS: Final = 2
"""Of n values k are below a quantile, a new one is with chance (k + 1) / (n + 1): one more at each end."""

MAX_PREPARED: Final = 128


@dataclass(frozen=True, slots=True)
class Prepared:
    """The reference of one profile and segment; S numeric signals and C categories in the profile's order.

    Attributes:
        counts: `[S, bins]`, finite values by bin, zeros where a signal has fewer bins.
        finite: `[S]`, their sums.
        rows: `[S]`, all values, missing and infinite ones among them.
        missing: `[S]`.
        infinite: `[S]`.
        tails: `[S]`, values below `low` or above `high`, of `tail_rows`.
        tail_rows: `[S]`.
        gaps: `[S, bins - 1]`, for the earth mover's distance in deviations.
        deviations: `[S]`; 1 where the reference was constant.
        means: `[S]`.
        categories: `[C, values + 1]`, zeros at the end.
        category_rows: `[C]`, without missing ones.
        category_missing: `[C]`.
        novel: `[C]`, values outside of the dictionary, and as many as none was seen of yet (`unseen`).
    """

    counts: Floats
    finite: Floats
    rows: Floats
    missing: Floats
    infinite: Floats
    tails: Floats
    tail_rows: Floats
    gaps: Floats
    deviations: Floats
    means: Floats
    categories: Floats
    category_rows: Floats
    category_missing: Floats
    novel: Floats


class PreparedProfiles:
    """Remembers what was prepared last."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, str], Prepared | None] = OrderedDict()

    def find(self, profile: Profile, segment: str) -> Prepared | None:
        """Return the profile's arrays; None for a segment that it has no reference of."""
        place = (profile.id, segment)
        if place not in self._made:
            known = segment == ALL or segment in profile.by_segment
            self._made[place] = prepared(profile, segment) if known else None
            if len(self._made) > MAX_PREPARED:
                self._made.popitem(last=False)
        self._made.move_to_end(place)
        return self._made[place]


def prepared(profile: Profile, segment: str = ALL) -> Prepared:
    """Return the arrays of the whole reference, or of a segment of it.

    Raises:
        KeyError: there is no such segment.
    """
    numeric, categories = profile.numeric, profile.categories
    bins = 1 + max((len(n.edges) for n in numeric), default=0)
    if segment == ALL:
        counts = [n.counts for n in numeric]
        missing = np.array([n.missing for n in numeric])
        infinite = np.array([n.infinite for n in numeric])
        of_category = [c.counts for c in categories]
        category_missing = np.array([c.missing for c in categories])
    else:
        part = profile.by_segment[segment]
        counts = [c[:-1] for c in part.numeric]
        missing = np.array([c[-1] for c in part.numeric])
        infinite = np.zeros(len(numeric))
        of_category = [c[:-1] for c in part.categories]
        category_missing = np.array([c[-1] for c in part.categories])
    table = _padded(counts, bins)
    category_table = _padded(of_category, max((len(c) for c in of_category), default=1))
    finite = table.sum(axis=1)
    tail_rows = np.minimum(finite, TAIL_ROWS)
    spread = np.sqrt([n.variance for n in numeric]) if numeric else np.empty(0)
    deviations = np.where(spread > 0, spread, 1.0)
    return Prepared(
        counts=table,
        finite=finite,
        rows=finite + missing + infinite,
        missing=missing,
        infinite=infinite,
        tails=np.ceil(2 * TAIL * tail_rows) + _OPEN_ENDS,
        tail_rows=tail_rows,
        gaps=_gaps(profile, bins) / deviations[:, None],
        deviations=deviations,
        means=np.array([n.mean for n in numeric]),
        categories=category_table,
        category_rows=category_table.sum(axis=1),
        category_missing=category_missing,
        novel=np.array([float(two_sample.unseen(c)) for c in of_category]),
    )


def _padded(rows: list[Floats], width: int) -> Floats:
    table = np.zeros((len(rows), width))
    for into, row in zip(table, rows, strict=True):
        into[: len(row)] = row
    return table


def _gaps(profile: Profile, bins: int) -> Floats:
    gaps = np.zeros((len(profile.numeric), bins - 1))
    for into, n in zip(gaps, profile.numeric, strict=True):
        if len(n.edges):
            into[: len(n.edges)] = distances.widths(n.edges, np.array(n.low), np.array(n.high))
    return gaps
