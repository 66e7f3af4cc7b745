"""ADWIN on annotated series (van den Burg and Williams 2020): the scores of docs/drift-statistics.md."""

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from river.drift import datasets

from gateway.statistics.adwin import Adwin, Settings

MARGIN = 5
SETTINGS = Settings(clock=1)


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


def changes(series: list[float]) -> list[int]:
    """Return where the window begins that each alarm leaves."""
    window, found = Adwin(SETTINGS), []
    for index, value in enumerate(series):
        if window.update(value):
            found.append(index + 1 - window.width)
    return found


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
PUBLISHED: dict[str, tuple[float, float, int, int]] = {
    "run_log": (0.570, 0.370, 376, 3),
    "occupancy": (0.428, 0.565, 509, 6),
    "bitcoin": (0.502, 0.709, 822, 5),
    "apple": (0.381, 0.457, 623, 5),
    "brent": (0.324, 0.551, 500, 5),
    "uk_coal": (0.408, 0.393, 105, 1),
    "airline": (0.754, 0.809, 468, 2),
}


def scores(name: str) -> tuple[float, float, int, int]:
    """Return F1, cover, rows and changes found."""
    kind, file, column = SERIES[name]
    made: Any = getattr(datasets, kind)()
    series = values(file, column)
    found = changes(series)
    return f1(made.annotations, found), cover(made.annotations, found, len(series)), len(series), len(found)


@pytest.mark.parametrize("name", SERIES)
def test_scores_are_those_of_the_page(name: str) -> None:
    """F1 and cover to three digits, rows and changes found."""
    assert scores(name) == pytest.approx(PUBLISHED[name], abs=6e-4)
