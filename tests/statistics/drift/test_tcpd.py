"""ADWIN and CUSUM on annotated series (van den Burg and Williams 2020): see docs/drift-statistics.md."""

import csv
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from river.drift import datasets

from gateway.statistics import cusum
from gateway.statistics.adwin import Adwin, Settings

MARGIN = 5
SETTINGS = Settings(clock=1)
LEARNED = 20
"""Values after each change that CUSUM takes mean and deviation from."""
HEIGHT = cusum.height_for(1000)
"""Of CUSUM: one false alarm in 1,000 values that are independent and normal."""


def values(file: str, column: str) -> list[float]:
    """Return a column, standardised: ADWIN's bound is for values of about unit range."""
    with (Path(datasets.__file__).parent / file).open() as lines:
        rows = list(csv.DictReader(lines))
    if file.startswith("brent"):  # annotated are every tenth day from 2000 on
        rows = [row for row in rows if int(row["day"][-4:]) in range(2000, 2050)][::10]
    if file.startswith("apple"):
        rows = rows[::3]
    found = np.array([float(row[column]) for row in rows])
    return ((found - found.mean()) / found.std()).tolist()  # type: ignore[no-any-return]


def by_adwin(series: list[float]) -> list[int]:
    """Return where the window begins that each alarm leaves."""
    window, found = Adwin(SETTINGS), []
    for index, value in enumerate(series):
        if window.update(value):
            found.append(index + 1 - window.width)
    return found


def by_cusum(series: list[float]) -> list[int]:
    """Return where the sum that raised each alarm left 0; then it starts anew from there."""
    found, begin = [], 0
    while (change := _next_change(series, begin)) is not None:
        found.append(change)
        begin = change
    return found


def _next_change(series: list[float], begin: int) -> int | None:
    learned = np.array(series[begin : begin + LEARNED])
    rest = series[begin + LEARNED :]
    spread = max(learned.std(ddof=1), 1e-9) if rest else 1.0  # of equal values any other is a change
    state = cusum.Cusum()
    left_above = left_below = begin + LEARNED
    for index, value in enumerate(rest, begin + LEARNED):
        state = cusum.update(state, (value - learned.mean()) / spread)
        left_above = left_above if state.above else index + 1
        left_below = left_below if state.below else index + 1
        if max(state.above, state.below) > HEIGHT:
            return left_above if state.above > state.below else left_below
    return None


def f1(annotations: dict[str, list[int]], found: list[int]) -> float:
    """Return F1 as TCPDBench has it: precision by all annotators, recall on average; the start counts."""
    truths = [{0, *marks} for marks in annotations.values()]
    predicted = {0, *found}
    precision = _matched(set().union(*truths), predicted) / len(predicted)
    recall = sum(_matched(truth, predicted) / len(truth) for truth in truths) / len(truths)
    return 2 * precision * recall / (precision + recall)


def _matched(truth: set[int], predicted: set[int]) -> int:
    left, count = set(predicted), 0
    for mark in sorted(truth):
        near = [x for x in left if abs(x - mark) <= MARGIN]
        if near:
            left.remove(min(near, key=lambda x: abs(x - mark)))
            count += 1
    return count


def cover(annotations: dict[str, list[int]], found: list[int], rows: int) -> float:
    """Return how well the parts cover each annotator's, on average."""
    parts = _parts(found, rows)
    scores = []
    for marks in annotations.values():
        best = [
            len(part) * max(len(part & other) / len(part | other) for other in parts)
            for part in _parts(marks, rows)
        ]
        scores.append(sum(best) / rows)
    return sum(scores) / len(scores)


def _parts(marks: list[int], rows: int) -> list[set[int]]:
    bounds = sorted({0, rows, *marks})
    return [set(range(a, b)) for a, b in pairwise(bounds)]


SERIES = {
    "run_log": ("RunLog", "run_log.csv", "Pace"),
    "occupancy": ("Occupancy", "occupancy.csv", "V3"),
    "bitcoin": ("Bitcoin", "bitcoin.csv", "price"),
    "apple": ("Apple", "apple.csv", "Close"),
    "brent": ("BrentSpotPrice", "brent_crude_oil.csv", "DPB"),
    "uk_coal": ("UKCoalEmploy", "uk_coal_employment.csv", "Employment"),
    "airline": ("AirlinePassengers", "airline_passengers.csv", "Total Passengers"),
}
METHODS: dict[str, Callable[[list[float]], list[int]]] = {
    "adwin": by_adwin,
    "cusum": by_cusum,
    "none": lambda _: [],
}
"""The last finds no change: what a score is to be compared with."""

ROWS = {
    "run_log": 376,
    "occupancy": 509,
    "bitcoin": 822,
    "apple": 623,
    "brent": 500,
    "uk_coal": 105,
    "airline": 468,
}
PUBLISHED: dict[str, dict[str, tuple[float, float, int]]] = {
    "adwin": {
        "run_log": (0.570, 0.370, 3),
        "occupancy": (0.428, 0.565, 6),
        "bitcoin": (0.502, 0.709, 5),
        "apple": (0.381, 0.457, 5),
        "brent": (0.324, 0.551, 5),
        "uk_coal": (0.408, 0.393, 1),
        "airline": (0.754, 0.809, 2),
    },
    "cusum": {
        "run_log": (0.479, 0.583, 12),
        "occupancy": (0.816, 0.564, 14),
        "bitcoin": (0.263, 0.266, 29),
        "apple": (0.331, 0.218, 24),
        "brent": (0.422, 0.335, 19),
        "uk_coal": (0.795, 0.571, 5),
        "airline": (0.361, 0.275, 12),
    },
    "none": {
        "run_log": (0.446, 0.304, 0),
        "occupancy": (0.341, 0.236, 0),
        "bitcoin": (0.450, 0.473, 0),
        "apple": (0.594, 0.425, 0),
        "brent": (0.315, 0.266, 0),
        "uk_coal": (0.513, 0.356, 0),
        "airline": (0.723, 0.630, 0),
    },
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SERIES)
def test_scores_are_those_of_the_page(name: str, method: str) -> None:
    """F1 and cover to three digits, changes found; the series are as long as they were annotated."""
    kind, file, column = SERIES[name]
    made: Any = getattr(datasets, kind)()
    series = values(file, column)
    found = METHODS[method](series)
    assert len(series) == ROWS[name]
    assert pytest.approx(5.75, abs=0.005) == HEIGHT
    scores = f1(made.annotations, found), cover(made.annotations, found, len(series)), len(found)
    assert scores == pytest.approx(PUBLISHED[method][name], abs=6e-4)
