"""Estimated performance of NannyML's examples: its published values."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.statistics import cbpe, cbpe_multiclass, isotonic
from loadtests import nannyml_ours

DATA = Path(__file__).parents[3] / "build" / "drift-data"

ROC_AUC = (
    *(0.970744, 0.971011, 0.971407, 0.971091, 0.971123),
    *(0.961090, 0.961825, 0.961073, 0.962533, 0.961316),
)
F1 = (
    *(0.943030, 0.941324, 0.943574, 0.943159, 0.944204),
    *(0.911753, 0.911766, 0.911661, 0.913763, 0.914751),
)

MULTICLASS_ROC_AUC = (
    *(0.906962, 0.909877, 0.909887, 0.909033, 0.907116),
    *(0.819359, 0.820096, 0.818966, 0.819245, 0.821429),
)
MULTICLASS_F1 = (
    *(0.753301, 0.756422, 0.758166, 0.756557, 0.753618),
    *(0.630985, 0.631482, 0.630552, 0.631736, 0.633443),
)


def columns(name: str, *wanted: str) -> list[Any]:
    with (DATA / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [np.array([float(row[column]) for row in rows]) for column in wanted]


@pytest.fixture(scope="module")
def calibration() -> Any:
    scores, repaid = columns("synthetic_car_loan_reference.csv", "y_pred_proba", "repaid")
    return isotonic.fit(scores, repaid, np.ones(len(scores)))


def test_published_estimates_are_met(calibration: Any) -> None:
    """ROC AUC and F1 of every 5,000 rows lie within 1e-5 of what NannyML publishes."""
    scores, predicted = columns("synthetic_car_loan_analysis.csv", "y_pred_proba", "y_pred")
    found = []
    for start in range(0, len(scores), 5000):
        pairs = np.stack([scores[start : start + 5000], predicted[start : start + 5000]], axis=1)
        bins, counts = np.unique(pairs, axis=0, return_counts=True)
        probabilities = isotonic.apply(calibration, bins[:, 0])
        found.append(cbpe.estimate(bins[:, 0], probabilities, bins[:, 1] == 1, counts.astype(float)))
    assert [e.roc_auc for e in found] == pytest.approx(ROC_AUC, abs=1e-5)
    assert [e.confusion.f1 for e in found] == pytest.approx(F1, abs=1e-5)


def test_published_estimates_of_three_classes_are_met() -> None:
    """Means over classes of ROC AUC and F1 of every 6,000 rows lie within 1e-5 of what NannyML publishes."""
    reference, analysis = nannyml_ours.mc(DATA)
    calibrations = cbpe_multiclass.fit(reference.scores, reference.truth, np.ones(len(reference.truth)))
    chunks = [analysis.rows(chosen) for chosen in np.split(np.arange(len(analysis.truth)), 10)]
    found = [nannyml_ours.multiclass_figures(chunk, calibrations) for chunk in chunks]
    assert [each["roc_auc"][0] for each in found] == pytest.approx(MULTICLASS_ROC_AUC, abs=1e-5)
    assert [each["f1"][0] for each in found] == pytest.approx(MULTICLASS_F1, abs=1e-5)
