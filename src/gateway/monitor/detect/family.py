"""One family of tests: what a model's streams and signals say in one window, multiplicity minded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gateway.monitor.detect.table import DRIFT, OK
from gateway.statistics.multiplicity import benjamini_hochberg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.monitor.detect.levels import Level
    from gateway.monitor.detect.table import ScoreTable


def judge(tables: Sequence[ScoreTable], level: Level) -> bool:
    """Set findings to DRIFT where the family at level q rejects them and the effect is above its threshold.

    Tests whose finding is not OK so far, or that have no p-value, are none.

    Args:
        tables: of one model, window and end: all signals, segments, versions and arms.
        level: of the window.

    Returns:
        Whether anything was testable.
    """
    testable = [np.flatnonzero((t.finding == OK) & ~np.isnan(t.p_value)) for t in tables]
    p_values = np.concatenate(
        [t.p_value[rows] for t, rows in zip(tables, testable, strict=True)] or [np.empty(0)]
    )
    if not len(p_values):
        return False
    rejected = benjamini_hochberg(p_values, level.q)
    at = 0
    for table, rows in zip(tables, testable, strict=True):
        found = rows[rejected[at : at + len(rows)]]
        at += len(rows)
        table.finding[found[table.value[found] > table.threshold[found]]] = DRIFT
    return True
