"""How declared groups fare: their rates, and the widest gap between any two."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.monitor.performance.realised import both_weights
from gateway.monitor.performance.results import Fairness, Gap, Group
from gateway.monitor.performance.weighted import rate
from gateway.monitor.profile.reference import TaskKind
from gateway.statistics import intervals

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from gateway.monitor.performance.block import Selection
    from gateway.monitor.performance.results import Metric
    from gateway.monitor.values import StreamKey

GAPS: Final = {
    "demographic_parity": "selection",
    "equal_opportunity": "true_positive",
    "false_positive_gap": "false_positive",
    "error_gap": "error",
}
"""Gap -> the rate that it compares."""


@dataclass(frozen=True, slots=True)
class Options:
    """How groups are compared.

    Attributes:
        floor: rates of fewer rows are not given.
        level: of confidence, of all pairs of groups together.
    """

    floor: int
    level: float


def fairness(
    key: StreamKey, column: str, window: tuple[float, float], selection: Selection, options: Options
) -> Fairness:
    """Compare the groups that a segment column's values make; rows without a value are in none."""
    names, codes = selection.columns[column]
    members = [(name, codes == code) for code, name in enumerate(names)]
    large = [(name, mask) for name, mask in members if int(mask.sum()) >= options.floor]
    groups = [Group(name, int(mask.sum()), _rates(selection, mask, options)) for name, mask in large]
    found = [gap for name, of in GAPS.items() if (gap := _widest(name, of, groups, options.level))]
    return Fairness(
        key=key,
        column=column,
        start_s=window[0],
        end_s=window[1],
        groups=tuple(sorted(groups, key=lambda group: group.name)),
        gaps=tuple(found),
        hidden=sum(1 for _, mask in members if mask.any()) - len(large),
    )


def _rates(selection: Selection, mask: npt.NDArray[np.bool_], options: Options) -> dict[str, Metric]:
    if selection.task.kind not in {TaskKind.BINARY, TaskKind.MULTICLASS}:
        return {}
    predicted = selection.rows["prediction"].astype(np.int64)
    labelled = mask & (selection.labels["weight"] > 0)
    truth = selection.labels["value"].astype(np.int64)
    weights = both_weights(selection)
    asked = {"error": (predicted != truth, labelled, weights)}
    if selection.task.kind is TaskKind.BINARY:
        chosen = predicted == 1
        asked = {
            "selection": (chosen, mask, selection.weights),
            "true_positive": (chosen, labelled & (truth == 1), weights),
            "false_positive": (chosen, labelled & (truth == 0), weights),
            **asked,
        }
    return {
        name: rate(events, among, by, options.level)
        for name, (events, among, by) in asked.items()
        if int(among.sum()) >= options.floor
    }


def _widest(name: str, of: str, groups: Sequence[Group], level: float) -> Gap | None:
    known = [(group.name, group.rates[of]) for group in groups if of in group.rates]
    pairs = list(combinations(known, 2))
    if not pairs:
        return None
    ordered = [sorted(pair, key=lambda one: -one[1].value) for pair in pairs]
    high, low = max(ordered, key=lambda pair: pair[0][1].value - pair[1][1].value)
    each = 1 - (1 - level) / len(pairs)
    ends = intervals.difference(_events(high[1]), _events(low[1]), each)
    return Gap(name, high[0], low[0], high[1].value - low[1].value, max(ends[0], 0.0), min(ends[1], 1.0))


def _events(metric: Metric) -> tuple[float, float]:
    return metric.value * metric.rows, metric.rows
