"""What is taken out of a batch: scores, predicted classes and segments, however they are logged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.monitor.performance.answers import class_index, label_value
from gateway.monitor.performance.extract import extract
from gateway.monitor.profile.reference import Task, TaskKind
from gateway.predlog.rows import Column, ColumnKind, Role
from tests.monitor.performance.rows import BINARY, batch, category, number, scores


def labelled_columns(values: Any) -> Column:
    """Return probabilities whose columns are named by class."""
    return Column("probabilities", Role.OUTPUT, ColumnKind.NUMERIC, np.asarray(values), (), ("no", "yes"))


@pytest.mark.parametrize("score", ["probabilities[1]", "probabilities[yes]"])
def test_a_score_is_found_by_index_or_label(score: str) -> None:
    """Both names mean the same column."""
    task = Task(kind=TaskKind.BINARY, score=score, classes=("no", "yes"))
    found = extract(batch(labelled_columns([[0.8, 0.2], [0.3, 0.7]])), task, ())
    rows = found.arms[0][1].rows
    assert rows["scores"][:, 0].tolist() == [0.2, 0.7]
    assert rows["prediction"].tolist() == [0, 1]


def test_an_input_of_the_same_name_is_not_taken_for_the_output() -> None:
    """Outputs come first."""
    echo = Column("probabilities", Role.INPUT, ColumnKind.NUMERIC, np.zeros((2, 2)))
    found = extract(batch(echo, scores([0.2, 0.7])), BINARY, ())
    assert found.arms[0][1].rows["scores"][:, 0].tolist() == [0.2, 0.7]


@pytest.mark.parametrize(
    "column",
    [category("label", ["no", "yes", "what"], Role.OUTPUT), number([0, 1, 5], "label")],
    ids=["category", "number"],
)
def test_a_predicted_class_is_read_from_text_or_number(column: Column) -> None:
    """One that the task does not name is unknown, and the row is left out."""
    task = Task(kind=TaskKind.BINARY, score="probabilities[1]", prediction="label", classes=("no", "yes"))
    found = extract(batch(scores([0.9, 0.1, 0.5]), column), task, ())
    assert found.arms[0][1].rows["prediction"].tolist() == [0, 1]
    assert found.skipped["no_score"] == 1


def test_a_score_of_another_shape_is_none() -> None:
    """A multiclass task whose classes do not fit the column leaves its rows out."""
    task = Task(kind=TaskKind.MULTICLASS, score="probabilities", classes=("a", "b", "c"))
    assert extract(batch(scores([0.1])), task, ()).skipped["no_score"] == 1
    assert extract(batch(number([0.1])), BINARY, ()).skipped["no_score"] == 1


def test_rows_are_split_by_arm_and_segments_by_value() -> None:
    """Segment columns, and inputs that the profile names: categories and few numbers."""
    columns = (
        category("region", ["n", "s", "n"]),
        category("colour", ["red", "red", "blue"], Role.INPUT),
        category("hidden", ["x", "y", "z"], Role.INPUT),
        Column("age", Role.INPUT, ColumnKind.NUMERIC, np.array([[1.0], [np.nan], [2.0]])),
    )
    rows = batch(scores([0.1, 0.2, 0.3]), *columns, arms=("stable", "canary"), arm_codes=[0, 1, 0])
    found = extract(rows, BINARY, ("colour", "age"))
    assert [(arm, part.keys) for arm, part in found.arms] == [("stable", [b"k0", b"k2"]), ("canary", [b"k1"])]
    part = found.arms[1][1]
    assert part.columns == ("age", "colour", "region")
    codes = part.rows["segments"][0].tolist()
    named = [names[code] if code >= 0 else None for names, code in zip(part.segments, codes, strict=True)]
    assert named == [None, "red", "s"]


def test_long_keys_hostile_names_and_codes_out_of_range_are_harmless() -> None:
    """Each is bounded, none raises."""
    codes = np.array([[5], [-9], [0]], np.int32)
    wild = Column("s", Role.SEGMENT, ColumnKind.CATEGORY, codes, (b"\xff" * 999,))
    rows = batch(scores([0.1, 0.2, 0.3]), wild, keys=(b"x" * 300, b"a", b"b"))
    part = extract(rows, BINARY, ()).arms[0][1]
    assert part.keys == [b"", b"a", b"b"]
    assert part.rows["segments"][:, 0].tolist() == [-1, -1, 0]
    assert len(part.segments[0][0]) == 64


@pytest.mark.parametrize(
    ("value", "index"),
    [("yes", 1), ("no", 0), (1.0, 1), (0.0, 0), ("1", 1), (2.0, -1), (0.5, -1), ("maybe", -1), (-1.0, -1)],
)
def test_labels_name_their_class(value: float | str, index: int) -> None:
    """By name, or by index where no class is a number."""
    assert class_index(("no", "yes"), value) == index


def test_numbers_that_are_names_are_no_indexes() -> None:
    """Classes 1, 2 and 3: the label 1 is the first, 0 is none."""
    assert [class_index(("1", "2", "3"), v) for v in (1.0, "1", "1.0", 3.0, 0.0)] == [0, 0, 0, 2, -1]
    regression = Task(kind=TaskKind.REGRESSION, score="price")
    assert [label_value(regression, v) for v in (1.5, "2.5", "x", "nan", "1e999")] == [
        1.5,
        2.5,
        None,
        None,
        None,
    ]
