"""The published performance of NannyML's car_loan example, through rows, labels and windows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pyarrow import csv

from gateway.monitor.labels.label import Label
from gateway.monitor.profile.reference import Task, TaskKind
from gateway.statistics import isotonic
from tests.monitor.performance.rows import KEY, START_S, Monitor, batch, number, profile, scores

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA = Path(__file__).parents[3] / "build" / "drift-data"
CHUNK = 5000
CHUNKS = 10
WINDOW_S = 300.0

REALISED = (
    0.970962, 0.970248, 0.976282, 0.967721, 0.969886,
    0.960050, 0.958530, 0.959041, 0.963094, 0.957556,
)  # fmt: skip
ESTIMATED = (
    0.970744, 0.971011, 0.971407, 0.971091, 0.971123,
    0.961090, 0.961825, 0.961073, 0.962533, 0.961316,
)  # fmt: skip
ESTIMATED_F1 = (
    0.943030, 0.941324, 0.943574, 0.943159, 0.944204,
    0.911753, 0.911766, 0.911661, 0.913763, 0.914751,
)  # fmt: skip


TASK = Task(
    kind=TaskKind.BINARY, score="probabilities[1]", prediction="label", classes=("0", "1"), threshold=0.5
)


def read(name: str) -> Mapping[str, Any]:
    """Return a file's columns as arrays."""
    table = csv.read_csv(DATA / f"synthetic_car_loan_{name}.csv")
    return {name: table[name].to_numpy() for name in table.column_names}


@pytest.fixture(scope="module")
def monitor() -> Monitor:
    """A monitor that was sent the analysis period, a chunk per five minutes, and its labels a day late."""
    reference = read("reference")
    scored = reference["y_pred_proba"]
    calibration = isotonic.fit(scored, reference["repaid"], np.ones(len(scored)))
    monitor = Monitor(profile(TASK, calibration=calibration))
    rows, truth = read("analysis"), read("analysis_target")
    for chunk in range(CHUNKS):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        at_s = START_S + chunk * WINDOW_S + np.arange(CHUNK) * WINDOW_S / CHUNK
        keys = tuple(b"%d" % i for i in rows["id"][part].tolist())
        columns = scores(rows["y_pred_proba"][part]), number(rows["y_pred"][part], "label")
        monitor.apply(batch(*columns, keys=keys, at_s=at_s))
    monitor.now_s = START_S + 86_400
    for mixed in np.array_split(np.random.default_rng(1).permutation(len(truth["id"])), 10):
        labels = zip(truth["id"][mixed].tolist(), truth["repaid"][mixed].tolist(), strict=True)
        assert monitor.post(*(Label(b"%d" % key, 0, value) for key, value in labels)).joined == len(mixed)
    return monitor


def chunks(answers: list[Any], metric: str) -> tuple[float, ...]:
    """Return a metric by chunk."""
    return tuple(answer.metrics[metric].value for answer in answers)


def test_realised_area_is_the_published_one(monitor: Monitor) -> None:
    """ROC AUC of each 5,000 rows by labels that came late and in any order."""
    found = monitor.part.timeline(KEY, START_S, START_S + CHUNKS * WINDOW_S, WINDOW_S)
    assert chunks(found, "roc_auc") == pytest.approx(REALISED, abs=1e-5)


def test_estimates_are_the_published_ones(monitor: Monitor) -> None:
    """ROC AUC and F1 of each 5,000 rows without any label."""
    found = monitor.part.estimated_timeline(KEY, START_S, START_S + CHUNKS * WINDOW_S, WINDOW_S)
    assert chunks(found, "roc_auc") == pytest.approx(ESTIMATED, abs=1e-5)
    assert chunks(found, "f1") == pytest.approx(ESTIMATED_F1, abs=1e-5)


def test_a_restart_changes_no_digit(monitor: Monitor) -> None:
    """After a checkpoint and a crash the same rows give the same answers."""
    before = monitor.part.timeline(KEY, START_S, START_S + CHUNKS * WINDOW_S, WINDOW_S)
    monitor.checkpoint()
    monitor.restart()
    assert monitor.part.timeline(KEY, START_S, START_S + CHUNKS * WINDOW_S, WINDOW_S) == before
