"""What blocks of the reference differ by from the rest of it: how far apart good traffic can be.

The reference is cut into blocks in order of time. Each is compared with all others, never with itself: a
reference that contains what it is compared with gives thresholds that are too low. The largest value of each
statistic is what a window must exceed, so that nobody is paged on Mondays because Sundays are different.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gateway.monitor.detect.compare import all_tests
from gateway.monitor.detect.prepared import prepared
from gateway.monitor.panes.layout import INFINITE, MISSING
from gateway.monitor.panes.pane import Pane
from gateway.monitor.profile.reference import BlockThreshold

if TYPE_CHECKING:
    from gateway.monitor.detect.prepared import Prepared
    from gateway.monitor.panes.filling import Filling
    from gateway.monitor.panes.layout import Layout
    from gateway.monitor.profile.reference import Profile

MOST_BLOCKS: Final = 200
"""Over two weeks a block is 100 minutes: what hours differ by is seen too."""
LEAST_BLOCKS: Final = 5
"""With fewer there are no thresholds by blocks."""
LEAST_ROWS: Final = 500
"""Of a block: with fewer, its values would be the noise of few rows, not what days differ by."""
_MEMORY: Final = 256 << 20
_ALPHA: Final = 0.01


class BlockPanes:
    """Counts the rows of each block."""

    def __init__(self, layout: Layout, rows: int) -> None:
        """Cut so many rows into blocks; none where they are too few."""
        blocks = min(MOST_BLOCKS, rows // LEAST_ROWS, _MEMORY // (8 * layout.size))
        self._panes = [Pane(layout) for _ in range(blocks)] if blocks >= LEAST_BLOCKS else []
        self._rows = rows
        self._seen = 0

    def add(self, filling: Filling) -> None:
        """Take the next rows in order of time."""
        if self._panes:
            place = np.arange(self._seen, self._seen + filling.rows) * len(self._panes) // self._rows
            filling.add(self._panes, place)
        self._seen += filling.rows

    def thresholds(self, profile: Profile) -> dict[str, dict[str, BlockThreshold]]:
        """Return the largest value of each signal's statistics; `profile` has the counts of all blocks."""
        found: dict[str, dict[str, BlockThreshold]] = {}
        blocks, rows = len(self._panes), self._rows // max(len(self._panes), 1)
        whole = prepared(profile)
        most: dict[tuple[str, str], float] = {}
        for pane in self._panes:
            others, rest = _without(profile, whole, pane)
            for tests in all_tests(pane, others, rest, _ALPHA):
                for name, value in zip(tests.names, tests.value.tolist(), strict=True):
                    if tests.statistic != "type" and np.isfinite(value):
                        place = (name, tests.statistic)
                        most[place] = max(most.get(place, 0.0), value)
        for (name, statistic), value in most.items():
            found.setdefault(name, {})[statistic] = BlockThreshold(rows, blocks, value)
        return found


def _without(profile: Profile, whole: Prepared, pane: Pane) -> tuple[Profile, Prepared]:
    """Return the reference less one block."""
    counts = whole.counts - pane.counts
    flags = pane.flags
    categories = whole.categories.copy()
    for i in range(len(categories)):
        found = pane.category(i)
        categories[i, : len(found)] -= found
    finite = counts.sum(axis=1)
    missing, infinite = whole.missing - flags[:, MISSING], whole.infinite - flags[:, INFINITE]
    changed: dict[str, Any] = {
        "counts": counts,
        "finite": finite,
        "missing": missing,
        "infinite": infinite,
        "rows": finite + missing + infinite,
        "categories": categories,
        "category_rows": categories.sum(axis=1),
        "category_missing": whole.category_missing - pane.category_flags[:, 0],
        "novel": whole.novel - [pane.category(i)[-1] for i in range(len(categories))],
    }
    embeddings = tuple(
        replace(e, total=e.total - pane.embedding(i), rows=e.rows - float(pane.embedding_weights[i, 0]))
        for i, e in enumerate(profile.embeddings)
    )
    return replace(profile, embeddings=embeddings), replace(whole, **changed)
