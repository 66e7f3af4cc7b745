"""Several classes without labels: from the profile that is built to the estimate that is judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gateway.monitor.profile.artifact import ProfileError, from_bytes, to_bytes
from gateway.monitor.profile.build import BuildOptions, build
from gateway.monitor.profile.reference import Task, TaskKind
from gateway.monitor.profile.tables import Chunk
from gateway.predlog.rows import Column, ColumnKind, Role
from gateway.statistics import cbpe_multiclass
from loadtests import nannyml_ours
from tests.monitor.performance.rows import KEY, START_S, Monitor, batch, profile, scores

if TYPE_CHECKING:
    from gateway.monitor.profile.reference import Profile

DATA = Path(__file__).parents[3] / "build" / "drift-data"
TASK = Task(kind=TaskKind.MULTICLASS, score="probabilities", prediction="card", classes=nannyml_ours.CLASSES)
ROWS = 6000


def cards(predicted: Any) -> Column:
    """Return the predicted classes as the model answers them."""
    words = tuple(name.encode() for name in nannyml_ours.CLASSES)
    return Column("card", Role.OUTPUT, ColumnKind.CATEGORY, predicted.astype(np.int32)[:, None], words)


@pytest.fixture(scope="module")
def data() -> tuple[nannyml_ours.Predictions, nannyml_ours.Predictions]:
    return nannyml_ours.mc(DATA)


@pytest.fixture(scope="module")
def built(data: Any) -> Profile:
    """The profile of the reference, through its file."""
    reference = data[0]
    rows = batch(scores(reference.scores), cards(reference.predicted))
    labels = np.array([nannyml_ours.CLASSES[c].encode() for c in reference.truth], object)
    made = build([Chunk(rows, labels)], BuildOptions(model="loan", version=1, task=TASK))
    return from_bytes(to_bytes(made))


def test_the_profile_knows_each_class(data: Any, built: Profile) -> None:
    """Calibrations are those of the classes against the rest; performance is the realised one."""
    reference = data[0]
    fitted = cbpe_multiclass.fit(reference.scores, reference.truth, np.ones(len(reference.truth)))
    assert len(built.class_calibrations) == len(fitted)
    for found, expected in zip(built.class_calibrations, fitted, strict=True):
        assert found == pytest.approx(expected)
    assert built.performance["accuracy"] == pytest.approx(
        (reference.scores.argmax(1) == reference.truth).mean()
    )
    assert {"f1", "precision", "recall", "roc_auc"} < built.performance.keys()


def test_windows_are_estimated_as_published(data: Any, built: Profile) -> None:
    """ROC AUC and F1 of 6,000 rows before the change and after it, and the change is judged."""
    monitor = Monitor(built, window="5m", settle="0s")
    published = [(0, 0.906962, 0.753301), (30_000, 0.819359, 0.630985)]
    for number, (first, area, f1) in enumerate(published):
        chunk = data[1].rows(np.arange(first, first + ROWS))
        start_s = START_S + 300 * number
        at_s = start_s + np.arange(ROWS) * 300 / ROWS
        monitor.apply(batch(scores(chunk.scores), cards(chunk.predicted), at_s=at_s, first=first))
        found = monitor.part.estimated(KEY, start_s, start_s + 300)
        assert found is not None
        assert found.rows == ROWS
        assert found.metrics["roc_auc"].value == pytest.approx(area, abs=1e-5)
        assert found.metrics["f1"].value == pytest.approx(f1, abs=1e-5)
        judged = monitor.part.evaluate(start_s + 301)
        breached = {each.subject: each.breached for each in judged if each.kind == "estimated_performance"}
        assert breached["f1"] == breached["roc_auc"] == bool(number)


def test_no_estimate_without_every_class(data: Any) -> None:
    """Classes of which there is no calibration, or one too few, say nothing; nor do unlabelled ones."""
    chunk = data[1].rows(np.arange(100))
    for known in ((), (nannyml_ours.AS_THEY_ARE,) * 2):
        monitor = Monitor(profile(TASK, class_calibrations=known))
        monitor.apply(batch(scores(chunk.scores), cards(chunk.predicted)))
        assert monitor.part.estimated(KEY, START_S, START_S + 60) is None
    two = data[0].rows(np.flatnonzero(data[0].truth < 2)[:500])
    labels = np.array([nannyml_ours.CLASSES[c].encode() for c in two.truth], object)
    rows = batch(scores(two.scores), cards(two.predicted))
    made = build([Chunk(rows, labels)], BuildOptions(model="loan", version=1, task=TASK))
    assert made.class_calibrations == ()


def test_a_file_without_one_of_them_is_refused(built: Profile) -> None:
    """What is no calibration is none of a class's either."""
    data = to_bytes(built)
    start = data.index(b'"class_calibrations": [') + len(b'"class_calibrations": [')
    with pytest.raises(ProfileError):
        from_bytes(data[:start] + b"null," + data[start:])
