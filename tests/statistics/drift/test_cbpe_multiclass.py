"""Estimates over several classes are what simulation says of calibrated scores."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata  # type: ignore[import-untyped]  # SciPy ships no types
from sklearn import metrics as oracle

from gateway.statistics import cbpe, cbpe_multiclass

ROWS = 3000
CLASSES = 3


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(31)


def likely(draw: np.random.Generator, rows: int = ROWS) -> Any:
    """Return probabilities of classes of unlike frequency, of two digits, so that scores are tied."""
    made = np.round(draw.dirichlet([0.9, 0.5, 0.3], rows), 2)
    return made / made.sum(axis=1, keepdims=True)


def realised(scores: Any, predicted: Any, truth: Any) -> dict[str, float]:
    """Return the oracle's metrics."""
    every = list(range(scores.shape[1]))
    told = {"labels": every, "average": "macro", "zero_division": 0}
    against = [(truth == c, predicted == c, scores[:, c]) for c in every]
    return {
        "accuracy": oracle.accuracy_score(truth, predicted),
        "precision": oracle.precision_score(truth, predicted, **told),
        "recall": oracle.recall_score(truth, predicted, **told),
        "f1": oracle.f1_score(truth, predicted, **told),
        "specificity": np.mean([oracle.recall_score(~t, ~p) for t, p, _ in against]),
        "roc_auc": np.mean([oracle.roc_auc_score(t, s) for t, _, s in against]),
    }


def test_certain_rows_are_the_realised_ones(draw: np.random.Generator) -> None:
    """Where every row's class is certain, the estimate is the metric itself, without any error."""
    scores = likely(draw)
    truth = draw.integers(0, CLASSES, ROWS)
    predicted = scores.argmax(axis=1)
    found = cbpe_multiclass.estimate(scores, np.eye(CLASSES)[truth], predicted, np.ones(ROWS))
    assert found.values == pytest.approx(realised(scores, predicted, truth), abs=1e-12)
    assert found.errors == pytest.approx(dict.fromkeys(cbpe_multiclass.METRICS, 0.0), abs=1e-9)


def drawn(scores: Any, predicted: Any, marks: Any) -> dict[str, Any]:
    """Return each metric of many draws of the rows' classes, `[draws]` each.

    Args:
        scores: `[rows, classes]`.
        predicted: `[rows]`.
        marks: `[draws, rows, classes]`, 1 at the class that was drawn.
    """
    rows, called = len(scores), np.eye(CLASSES)[predicted]
    true, hit, ranks = marks.sum(axis=1), (marks * called).sum(axis=1), rankdata(scores, axis=0)
    called = called.sum(axis=0)
    above = (marks * ranks).sum(axis=1) - true * (true + 1) / 2
    each = {
        "precision": hit / called,
        "recall": hit / true,
        "f1": 2 * hit / (called + true),
        "specificity": (rows - true - called + hit) / (rows - true),
        "roc_auc": above / (true * (rows - true)),
    }
    means = {name: values.mean(axis=1) for name, values in each.items()}
    return {"accuracy": hit.sum(axis=1) / rows, **means}


@pytest.mark.parametrize("weight", [1, 2])
def test_estimates_and_errors_are_those_of_drawn_classes(draw: np.random.Generator, weight: int) -> None:
    """Classes drawn by the probabilities, 4,000 times: mean and deviation of each metric are as estimated."""
    rows = 600 // weight
    scores = likely(draw, rows)
    predicted = np.where(draw.random(rows) < 0.7, scores.argmax(axis=1), draw.integers(0, CLASSES, rows))
    found = cbpe_multiclass.estimate(scores, scores, predicted, np.full(rows, float(weight)))
    scores, predicted = np.repeat(scores, weight, axis=0), np.repeat(predicted, weight)
    truth = (draw.random((4000, 600, 1)) > scores.cumsum(axis=1)).sum(axis=2).clip(0, CLASSES - 1)
    values = drawn(scores, predicted, np.eye(CLASSES)[truth])
    for name, one in realised(scores, predicted, truth[0]).items():
        assert values[name][0] == pytest.approx(one), name
        assert found.values[name] == pytest.approx(values[name].mean(), abs=found.errors[name] / 10), name
        assert found.errors[name] == pytest.approx(values[name].std(), rel=0.05), name


def test_errors_of_one_answer_are_half_of_two_classes(draw: np.random.Generator) -> None:
    """A model that always says yes: means over two classes have half the error of yes, its recall none."""
    yes = draw.random(ROWS)
    scores, ones = np.stack([1 - yes, yes], axis=1), np.ones(ROWS)
    found = cbpe_multiclass.estimate(scores, scores, np.ones(ROWS, int), ones)
    alone = cbpe.estimate(yes, yes, np.ones(ROWS, bool), ones)
    for name in ("precision", "recall", "f1"):
        assert found.values[name] == pytest.approx(alone.value(name) / 2), name
        assert found.errors[name] == pytest.approx(alone.errors[name] / 2, abs=1e-12), name
    assert found.errors["recall"] == pytest.approx(0, abs=1e-12)
    assert found.errors["accuracy"] == pytest.approx(alone.errors["accuracy"])
    assert found.values["roc_auc"] == pytest.approx(alone.roc_auc)


def test_more_effective_rows_are_more_certain(draw: np.random.Generator) -> None:
    """The estimate stays, its errors shrink by the root of the rows."""
    scores = likely(draw)
    few = cbpe_multiclass.estimate(scores, scores, scores.argmax(axis=1), np.ones(ROWS), ROWS / 4)
    all_of_them = cbpe_multiclass.estimate(scores, scores, scores.argmax(axis=1), np.ones(ROWS))
    assert few.values == pytest.approx(all_of_them.values)
    assert few.errors == pytest.approx({n: 2 * e for n, e in all_of_them.errors.items()}, rel=1e-6)
    assert few.rows == ROWS / 4


def test_calibration_mends_scores(draw: np.random.Generator) -> None:
    """Scores sharpened by a square mislead; calibrated they estimate what labels say of other rows."""
    true = likely(draw, 40_000)
    sharp = true**2 / (true**2).sum(axis=1, keepdims=True)
    truth = (draw.random((40_000, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    learn, judge = slice(0, 20_000), slice(20_000, None)
    calibrations = cbpe_multiclass.fit(sharp[learn], truth[learn], np.ones(20_000))
    scores, predicted = sharp[judge], sharp[judge].argmax(axis=1)
    mended = cbpe_multiclass.probabilities(calibrations, scores)
    assert mended.sum(axis=1) == pytest.approx(np.ones(20_000))
    real = realised(scores, predicted, truth[judge])
    for name, near, far in (("accuracy", 0.01, 0.04), ("f1", 0.01, 0.04), ("roc_auc", 0.01, 0.02)):
        found, raw = (
            cbpe_multiclass.estimate(scores, p, predicted, np.ones(20_000)).values[name]
            for p in (mended, scores)
        )
        assert found == pytest.approx(real[name], abs=near), name
        assert abs(raw - real[name]) > far, name


def test_rows_no_class_is_likely_for_are_split_evenly() -> None:
    """Where every calibration says 0, no class is preferred."""
    never = np.array([[0.0, 1.0], [0.0, 0.0]])
    assert cbpe_multiclass.probabilities([never] * 4, np.full((2, 4), 0.3)).tolist() == [[0.25] * 4] * 2


def test_classes_that_nobody_expects_do_not_count() -> None:
    """A third class with neither predictions nor probability leaves means and areas as they are."""
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    predicted, ones = np.array([0, 1, 0]), np.ones(3)
    three = cbpe_multiclass.estimate(scores, scores, predicted, ones)
    two = cbpe_multiclass.estimate(scores[:, :2], scores[:, :2], predicted, ones)
    assert three.values == pytest.approx(two.values)
    assert three.errors == pytest.approx(two.errors)
    assert three.interval("f1", 100.0) == (0.0, 1.0)


def test_no_row_says_nothing() -> None:
    """Every metric is undefined."""
    found = cbpe_multiclass.estimate(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, int), np.empty(0))
    assert [name for name, value in found.values.items() if not np.isnan(value)] == []
